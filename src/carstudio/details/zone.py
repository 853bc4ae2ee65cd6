"""A patch of the body to paint on, the colors of its fittings, and the license plate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from carstudio.arrays import BoolArray, FloatArray
from carstudio.details.flat import line_share, polyline, rounded_box, share
from carstudio.light import Material

BLACK = (0.012, 0.012, 0.013)
PLASTIC = (0.035, 0.036, 0.038)
CHROME = (0.62, 0.63, 0.65)
LAMP_GLASS = (0.50, 0.52, 0.55)
LAMP_HOUSING = (0.10, 0.105, 0.115)
BARS = (0.26, 0.265, 0.27)
RED = (0.40, 0.008, 0.012)
AMBER = (0.62, 0.22, 0.02)
PLATE = (0.78, 0.79, 0.82)
INK = (0.03, 0.05, 0.16)
PLATE_HALF = (0.165, 0.075)
GAP_M = 0.009


@dataclass
class Zone:
    """A patch of the lower body: samples with two flat coordinates in meters, and the material to paint."""

    material: Material
    u_N: FloatArray
    v_N: FloatArray
    softness_m: float

    def fill(self, distance_N: FloatArray, color: tuple[float, float, float], gloss: float, flake: float = 0) -> None:
        """Paint the inside of a shape."""
        self.material.cover(share(distance_N, self.softness_m), color, gloss, flake)

    def gap(self, distance_N: FloatArray, width_m: float = GAP_M, amount: float = 0.85) -> None:
        """Draw a dark gap along a line."""
        self.material.darken(line_share(distance_N, width_m, self.softness_m), amount)


def on_samples(material: Material, where_N: BoolArray, paint: Callable[[Material], None]) -> None:
    """Run `paint` on some of the samples only, and put the result back."""
    index = np.flatnonzero(where_N)
    if index.size == 0:
        return
    part = Material(material.color_N3[index], material.gloss_N[index], material.flake_N[index])
    paint(part)
    material.color_N3[index] = part.color_N3
    material.gloss_N[index] = part.gloss_N
    material.flake_N[index] = part.flake_N


def draw_plate(digits: tuple[int, ...], zone: Zone, right_N: FloatArray, center: float) -> None:
    """A license plate in the middle at height `center`; `right_N` is positive to the right of who looks at it."""
    plate = rounded_box(zone.u_N, zone.v_N, (0, center), PLATE_HALF, 0.015)
    zone.fill(plate - 0.012, BLACK, 0.4)
    zone.fill(plate, PLATE, 0.3)
    inside = plate < 0
    across = np.where(right_N > 0, zone.u_N, -zone.u_N)[inside]
    up = zone.v_N[inside] - np.float32(center)
    on_samples(zone.material, inside, lambda part: _digits(digits, Zone(part, across, up, zone.softness_m)))


def _digits(digits: tuple[int, ...], zone: Zone) -> None:
    """Seven-segment digits, which at most sizes are too small to read."""
    pitch = 1.6 * PLATE_HALF[0] / len(digits)
    for number, digit in enumerate(digits):
        left = (number - (len(digits) - 1) / 2) * pitch
        zone.fill(_digit(zone.u_N - np.float32(left), zone.v_N, digit), INK, 0.2)


_SEGMENTS = {  # segment: its ends in units of the digit's half width and half height
    "a": ((-1, 1), (1, 1)), "b": ((1, 1), (1, 0)), "c": ((1, 0), (1, -1)), "d": ((-1, -1), (1, -1)),
    "e": ((-1, 0), (-1, -1)), "f": ((-1, 1), (-1, 0)), "g": ((-1, 0), (1, 0)),
}  # fmt: skip
_DIGITS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abfgcd")


def _digit(u_N: FloatArray, v_N: FloatArray, digit: int) -> FloatArray:
    half_width, half_height, stroke = 0.013, 0.032, 0.005
    nearest = np.full(u_N.shape, np.inf, dtype=np.float32)
    for segment in _DIGITS[digit]:
        ends = [(u * half_width, v * half_height) for u, v in _SEGMENTS[segment]]
        np.minimum(nearest, polyline(u_N, v_N, ends), out=nearest)
    return nearest - stroke
