"""Smooth lines through a few points and rounded outlines: what a car's body is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from carstudio.arrays import FloatArray

_CURVE_SAMPLES = 1024


@dataclass(frozen=True)
class Curve:
    """A function of one variable, held constant outside its range."""

    at: FloatArray
    value: FloatArray

    def __call__(self, where: FloatArray | float) -> FloatArray:
        """Values at `where`, in the shape of `where`."""
        return np.asarray(np.interp(where, self.at, self.value))


def smooth_curve(points: Sequence[tuple[float, float]], softness: float) -> Curve:
    """The polyline through `points`, its corners rounded with a Gaussian of `softness` (in units of the variable)."""
    xs, ys = np.array(points, dtype=np.float64).T
    at = np.linspace(xs[0], xs[-1], _CURVE_SAMPLES)
    value = np.interp(at, xs, ys)
    sigma = softness / (at[1] - at[0])
    reach = min(int(3 * sigma) + 1, _CURVE_SAMPLES - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    # Mirrored through the end points, so that the ends stay where they are and keep their slope.
    before = 2 * value[0] - value[reach:0:-1]
    after = 2 * value[-1] - value[-2 : -reach - 2 : -1]
    padded = np.concatenate([before, value, after])
    return Curve(at, np.convolve(padded, kernel / kernel.sum(), mode="valid"))


@dataclass(frozen=True)
class Outline:
    """One half of a rounded rectangle seen from above, from the middle of its front to the middle of its rear.

    `along_N` runs from +1 (front) to -1 (rear), `across_N` from 0 over 1 (the widest place) back to 0.
    """

    along_N: FloatArray
    across_N: FloatArray

    def place(
        self, front_m: float, rear_m: float, half_width_m: float, front_bow_m: float, rear_bow_m: float
    ) -> FloatArray:
        """Points (N, 2) of the half outline in meters, its ends bowed so that corners lie behind the middle."""
        x = rear_m + (self.along_N + 1) / 2 * (front_m - rear_m)
        at_front = np.clip(self.along_N, 0, 1) ** 4
        at_rear = np.clip(-self.along_N, 0, 1) ** 4
        x = x - front_bow_m * at_front * self.across_N**2 + rear_bow_m * at_rear * self.across_N**2
        return np.stack([x, half_width_m * self.across_N], axis=1)


def superellipse(count: int, front_power: float, rear_power: float, length_m: float, width_m: float) -> Outline:
    """A half superellipse with `count` points spread by arc length and, three times as densely, by turning angle.

    |x|^n + |y|^n = 1 (Lamé's curve) with n = `front_power` ahead of the middle and `rear_power` behind it; a higher
    power gives tighter corners.
    """
    angle = np.linspace(0, np.pi, 8001)
    power = np.where(angle < np.pi / 2, front_power, rear_power)
    along = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / power)
    across = np.abs(np.sin(angle)) ** (2 / power)
    along[0], along[-1], across[0], across[-1] = 1.0, -1.0, 0.0, 0.0
    step = np.stack([np.diff(along) * length_m / 2, np.diff(across) * width_m / 2], axis=1)
    length = np.hypot(step[:, 0], step[:, 1])
    heading = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
    turning = np.abs(np.diff(heading, prepend=heading[0]))
    effort = np.concatenate([[0], np.cumsum(length / length.sum() + 1.2 * turning / max(turning.sum(), 1e-9))])
    even = np.linspace(0, effort[-1], count)
    return Outline(np.interp(even, effort, along), np.interp(even, effort, across))
