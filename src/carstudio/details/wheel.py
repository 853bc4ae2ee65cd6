"""Wheels: tire, rim and spokes."""

from __future__ import annotations

import numpy as np

from carstudio.arrays import FloatArray, smoothstep
from carstudio.body import RIM_SHARE, Shape
from carstudio.details.flat import share
from carstudio.light import Material

_RUBBER = (0.022, 0.022, 0.024)
_ALLOY = (0.55, 0.56, 0.58)
_DARK_ALLOY = (0.04, 0.041, 0.045)
_BEHIND_SPOKES = (0.012, 0.012, 0.013)
_BRAKE_DISC = (0.22, 0.22, 0.23)


def paint_wheel(
    shape: Shape, material: Material, position_N3: FloatArray, surface_N2: FloatArray, softness_m: float
) -> None:
    """Paint wheels in place; `surface_N2` are the offsets from the axle forwards and upwards in meters."""
    plan, style = shape.car.plan, shape.car.style
    forward, up = surface_N2.T
    radius = np.hypot(forward, up)
    rim = np.float32(RIM_SHARE * plan.wheel_radius)
    count = len(radius)
    material.cover(np.ones(count, dtype=np.float32), _RUBBER, 0.12)
    groove = np.abs(np.mod(np.arctan2(up, forward) * 24 / np.pi, 1) - 0.5) < 0.16
    material.darken((groove & (radius > 0.965 * plan.wheel_radius)).astype(np.float32), 0.5)
    lettering = share(np.abs(radius - 0.85 * plan.wheel_radius) - 0.006, 0.02)
    material.darken(lettering, -0.35)
    # Only the outer face has spokes: its offset from the wheel's middle points away from the car.
    middle = shape.car.wheel_y
    outer = np.abs(position_N3[:, 1]) > middle
    inside = share(radius - rim, softness_m) * outer
    alloy = _DARK_ALLOY if style.dark_rims else _ALLOY
    material.cover(inside, _BEHIND_SPOKES, 0.1)
    material.cover(inside * share(radius - 0.62 * rim, softness_m), _BRAKE_DISC, 0.5, 0.5)
    material.cover(inside * _spokes(style.spokes, style.spoke_width, forward, up, rim, softness_m), alloy, 1.4, 0.75)
    lip = share(np.abs(radius - 0.955 * rim) - 0.04 * rim, softness_m)
    material.cover(inside * lip, alloy, 1.4, 0.75)
    hub = share(radius - 0.22 * rim, softness_m)
    material.cover(inside * hub, alloy, 1.4, 0.75)
    material.darken(inside * share(np.abs(radius - 0.13 * rim) - 0.008, softness_m), 0.7)
    bolt_angle = np.mod(np.arctan2(up, forward) * 5 / (2 * np.pi), 1) - 0.5
    bolts = np.hypot(bolt_angle * 2 * np.pi / 5 * radius, radius - 0.3 * rim) - 0.014
    material.darken(inside * share(bolts, softness_m), 0.8)


def _spokes(
    count: int, width: float, forward_N: FloatArray, up_N: FloatArray, rim_m: np.float32, softness_m: float
) -> FloatArray:
    """Share covered by spokes, which widen to the hub and fork a little toward the rim."""
    radius = np.hypot(forward_N, up_N)
    turn = np.mod(np.arctan2(up_N, forward_N) * count / (2 * np.pi) + 0.25, 1) - 0.5
    across = np.abs(turn) * 2 * np.pi / count * radius
    half = np.float32(width * np.pi / count) * rim_m * (0.52 + 0.25 * smoothstep(0.55, 1.0, radius / rim_m))
    return share(across - half, softness_m)
