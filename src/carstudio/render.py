"""One photo of one car: the car's samples shaded, set on the turntable, exposed and developed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from carstudio.arrays import BoolArray, ByteArray, FloatArray
from carstudio.body import Shape, build_shape
from carstudio.design import Car, design_car
from carstudio.raster import PinholeCamera, sample_car
from carstudio.scene import Backdrop, Studio, furnish, light_on_floor, paint_backdrop, table_map
from carstudio.surfaces import color_samples

_SAMPLES_PER_PIXEL = 2  # each way
_REFLECTION_SCALE, _REFLECTION_WIDTH_PX = 0.5, 480  # it is blurred anyway: drawn small, at most this wide


@dataclass(frozen=True)
class Session:
    """A car, its room and everything that is the same in all of its views."""

    seed: int
    number: int
    car: Car
    shape: Shape
    studio: Studio
    camera: PinholeCamera
    backdrop: Backdrop
    table: FloatArray


def open_session(seed: int, number: int, size_HW: tuple[int, int]) -> Session:
    """Prepare car `number` of the set for photos of `size_HW`."""
    car = design_car(seed, number)
    shape, studio = build_shape(car), furnish(seed, number)
    camera = studio.camera(size_HW)
    return Session(seed, number, car, shape, studio, camera, paint_backdrop(studio, camera), table_map(shape))


def take_photo(session: Session, view: int, views: int) -> tuple[ByteArray, BoolArray]:
    """View 1..views as (image_HWC uint8 RGB, mask_HW bool); a pixel is car when the car covers half of it or more."""
    to_world = placement(session.car, view, views)
    light = session.backdrop.radiance_HW3.copy()
    rows = session.backdrop.floor_rows
    light[rows] *= light_on_floor(session.backdrop, session.table, to_world)[..., None]
    _add_reflection(session, to_world, light)
    coverage = _add_car(session, to_world, light)
    rng = np.random.default_rng([session.seed, session.number, 3, view])
    return _develop(light, rng), coverage >= 0.5


def placement(car: Car, view: int, views: int) -> FloatArray:
    """The 3x4 matrix from the car's frame to the studio's: view 1 shows the nose, then the car's left side comes."""
    heading = -np.pi / 2 - 2 * np.pi * (view - 1) / views + car.heading_error_rad
    cos, sin = np.cos(heading), np.sin(heading)
    rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return np.column_stack([rotation, rotation @ np.array([*car.offset_m, 0.0])])


def _add_car(session: Session, to_world: FloatArray, light_HW3: FloatArray) -> FloatArray:
    """Draw the car over the room, in place; returns the share of each pixel that it covers, float32 HW."""
    factor = _SAMPLES_PER_PIXEL
    camera = session.camera.scaled(factor)
    coverage = np.zeros(light_HW3.shape[:2], dtype=np.float32)
    samples = sample_car(session.shape, to_world, camera)
    if samples is None:
        return coverage
    colors = color_samples(session.shape, samples, to_world, camera)
    row, column = np.divmod(samples.index_N, samples.window_HW[1])
    row, column = row + samples.corner[0], column + samples.corner[1]
    # Summing samples into pixels: over the window of pixels that they fall in.
    top, left = int(row.min()) // factor, int(column.min()) // factor
    bottom, right = int(row.max()) // factor + 1, int(column.max()) // factor + 1
    window = np.zeros(((bottom - top) * factor, (right - left) * factor, 4), dtype=np.float32)
    window[row - top * factor, column - left * factor, :3] = colors
    window[row - top * factor, column - left * factor, 3] = 1
    pixels = cv2.resize(window, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    alpha = pixels[..., 3]
    patch = light_HW3[top:bottom, left:right]
    patch *= 1 - alpha[..., None]
    patch += pixels[..., :3]
    coverage[top:bottom, left:right] = alpha
    return coverage


def _add_reflection(session: Session, to_world: FloatArray, light_HW3: FloatArray) -> None:
    """The car's faint mirror image in the floor, blurred by the floor's roughness; in place."""
    camera = session.camera.scaled(min(_REFLECTION_SCALE, _REFLECTION_WIDTH_PX / session.camera.size_HW[1]))
    samples = sample_car(session.shape, to_world, camera, mirrored=True)
    if samples is None:
        return
    flipped = np.diag([1.0, 1.0, -1.0]) @ to_world
    colors = color_samples(session.shape, samples, flipped, camera)
    # Parts high above the floor are mirrored at a flatter angle through a longer, rougher way: they fade.
    fade = np.exp(-samples.position_N3[:, 2] / 0.55).astype(np.float32)
    height, width = light_HW3.shape[:2]
    window = np.zeros((*camera.size_HW, 4), dtype=np.float32)
    row, column = np.divmod(samples.index_N, samples.window_HW[1])
    row, column = row + samples.corner[0], column + samples.corner[1]
    window[row, column, :3] = colors * fade[:, None]
    window[row, column, 3] = fade
    window = cv2.GaussianBlur(window, (0, 0), 0.006 * camera.size_HW[1])
    window = cv2.resize(window, (width, height), interpolation=cv2.INTER_LINEAR)
    rows = session.backdrop.floor_rows
    strength = np.float32(session.studio.gloss) * session.backdrop.floor_share_HW
    light_HW3[rows] *= 1 - (strength * window[rows, :, 3])[..., None]
    light_HW3[rows] += strength[..., None] * window[rows, :, :3]


def _develop(light_HW3: FloatArray, rng: np.random.Generator) -> ByteArray:
    """Lens, exposure, white balance, film curve, sensor noise and rounding to bytes."""
    height, width = light_HW3.shape[:2]
    exposure = np.exp(rng.normal(0, 0.06))
    balance = np.exp(rng.normal(0, 0.012, 3)).astype(np.float32)
    across = np.linspace(-1, 1, width, dtype=np.float32)
    down = np.linspace(-1, 1, height, dtype=np.float32)
    vignette = 1 - 0.16 * (0.6 * across[None, :] ** 2 + 0.4 * down[:, None] ** 2)
    light = cv2.GaussianBlur(light_HW3, (0, 0), 0.35 + 0.25 * width / 1918)
    light *= np.float32(exposure) * vignette[..., None] * balance
    tone = _film_curve(light)
    noise = rng.standard_normal(light.shape, dtype=np.float32)
    tone += np.float32(0.006) * noise
    developed: ByteArray = np.clip(tone * 255 + 0.5, 0, 255).astype(np.uint8)
    return developed


_FILM_SPEED = 1.9
_TOE = 0.008  # what the darkest shadows lose
_CONTRAST = 0.4  # share of an S curve in the print


def _film_curve(light_HW3: FloatArray) -> FloatArray:
    """Film that saturates softly, the display's gamma, a little contrast; in and out float32, out 0..1."""
    exposed = np.maximum(1 - np.exp(np.float32(-_FILM_SPEED) * light_HW3) - np.float32(_TOE), 0)
    shown: FloatArray = exposed ** np.float32(1 / 2.2)
    shown += np.float32(_CONTRAST) * (shown * shown * (3 - 2 * shown) - shown)
    return shown
