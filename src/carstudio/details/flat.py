"""Shapes in a plane as signed distances in meters (negative inside), and what share of a sample they cover."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from carstudio.arrays import FloatArray


def share(distance_N: FloatArray, softness_m: float) -> FloatArray:
    """1 inside, 0 outside, a straight ramp of `softness_m` across the edge."""
    covered: FloatArray = np.clip(0.5 - distance_N / softness_m, 0, 1)
    return covered


def line_share(distance_N: FloatArray, width_m: float, softness_m: float) -> FloatArray:
    """Share covered by a line `width_m` wide; a line thinner than a sample grows paler and never disappears."""
    drawn = max(width_m, softness_m)
    return share(np.abs(distance_N) - drawn / 2, softness_m) * np.float32(width_m / drawn)


def polygon(u_N: FloatArray, v_N: FloatArray, corners: Sequence[tuple[float, float]]) -> FloatArray:
    """A convex polygon, corners counter-clockwise; beyond a corner the distance is that to the nearer edge's line."""
    distance = np.full(u_N.shape, -np.inf, dtype=np.float32)
    for (u0, v0), (u1, v1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        length = np.hypot(u1 - u0, v1 - v0)
        nu, nv = (v1 - v0) / length, -(u1 - u0) / length
        np.maximum(distance, np.float32(nu) * u_N + np.float32(nv) * v_N - np.float32(nu * u0 + nv * v0), out=distance)
    return distance


def rounded_box(
    u_N: FloatArray, v_N: FloatArray, center: tuple[float, float], half: tuple[float, float], radius: float
) -> FloatArray:
    """A rectangle with rounded corners."""
    du = np.abs(u_N - center[0]) - np.float32(half[0] - radius)
    dv = np.abs(v_N - center[1]) - np.float32(half[1] - radius)
    outside = np.hypot(np.maximum(du, 0), np.maximum(dv, 0))
    distance: FloatArray = outside + np.minimum(np.maximum(du, dv), 0) - np.float32(radius)
    return distance


def circle(u_N: FloatArray, v_N: FloatArray, center: tuple[float, float], radius: float) -> FloatArray:
    """A disc."""
    distance: FloatArray = np.hypot(u_N - center[0], v_N - center[1]) - np.float32(radius)
    return distance


def polyline(u_N: FloatArray, v_N: FloatArray, points: Sequence[tuple[float, float]]) -> FloatArray:
    """Distance to a chain of straight pieces (never negative)."""
    nearest = np.full(u_N.shape, np.inf, dtype=np.float32)
    for (u0, v0), (u1, v1) in pairwise(points):
        du, dv = u1 - u0, v1 - v0
        t = np.clip(((u_N - u0) * du + (v_N - v0) * dv) / (du * du + dv * dv), 0, 1)
        np.minimum(nearest, np.hypot(u_N - u0 - t * du, v_N - v0 - t * dv), out=nearest)
    return nearest
