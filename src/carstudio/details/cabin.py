"""The cabin: windows with a glimpse of the inside, posts, roof."""

from __future__ import annotations

import numpy as np

from carstudio.arrays import BoolArray, FloatArray, smoothstep
from carstudio.body import WAIST_SINK_M, Shape
from carstudio.details.flat import line_share, polyline, share
from carstudio.light import Material

_BLACK = (0.012, 0.012, 0.013)
_CHROME = (0.62, 0.63, 0.65)
_GLASS_GLOSS = 0.8
_WINDOW_TOP = 0.84  # height share where the glass ends under the roof
_SEAT_HALF_WIDTH_M, _SEAT_Y_M = 0.25, 0.37


def paint_cabin(
    shape: Shape,
    material: Material,
    position_N3: FloatArray,
    surface_N2: FloatArray,
    view_N3: FloatArray,
    softness_m: float,
) -> BoolArray:
    """Paint windows and posts over the lacquer, in place; returns which samples are glass.

    `view_N3` is the direction of sight in the car's frame.
    """
    screens, sides, posts = _window_distances(shape, position_N3, surface_N2)
    level = surface_N2[:, 1]
    style = shape.car.style
    if style.chrome:
        material.cover(line_share(sides - 0.024, 0.02, softness_m), _CHROME, 2.5, 0.8)
    # Rubber around every pane; the posts between side windows are black.
    material.cover(share(np.minimum(screens, sides) - 0.014, softness_m), _BLACK, 0.6)
    distance = np.minimum(screens, np.maximum(sides, posts))
    glass = share(distance, softness_m)
    index = np.flatnonzero(glass > 0)
    if index.size:
        inside = _interior(shape, position_N3[index], view_N3[index])
        tint = np.float32(style.glass_tint)
        color = inside[:, None] * tint * np.array([0.92, 1.0, 0.97], dtype=np.float32)
        mix = glass[index][:, None]
        material.color_N3[index] = material.color_N3[index] * (1 - mix) + color * mix
        material.gloss_N[index] = material.gloss_N[index] * (1 - mix[:, 0]) + _GLASS_GLOSS * mix[:, 0]
        material.flake_N[index] *= 1 - mix[:, 0]
    _seams(shape, material, position_N3, level, softness_m)
    return glass > 0.5


def _window_distances(
    shape: Shape, position_N3: FloatArray, surface_N2: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Signed distances in meters (N,), negative inside: the screens, the band of side windows, between its posts."""
    car, plan = shape.car, shape.car.plan
    arc, level = surface_N2.T
    x, _, z = position_N3.T
    tail = np.float32(shape.cabin_arc_m) - arc
    front_corner, rear_corner = shape.cabin_corners_m
    tall = float(car.roof(car.x(plan.windshield[1] + 0.3)) - car.top(car.x(plan.windshield[1]))) + WAIST_SINK_M
    waist = car.top(x).astype(np.float32) + np.float32(0.035)
    vertical = np.maximum((level - _WINDOW_TOP) * np.float32(tall), waist - z)
    screen = np.maximum(arc - (front_corner - 0.02), vertical - 0.03)
    rear_glass = np.maximum(tail - (rear_corner - 0.05), vertical + (0.02 if plan.bed else 0.0))
    side = np.maximum(front_corner + 0.10 - arc, vertical + 0.012)
    rear_post = 0.16 if car.body_type in ("saloon", "coupe") else 0.10
    side = np.maximum(side, rear_corner + rear_post - tail)
    if car.style.panel_van:
        side = np.maximum(side, np.float32(car.x(plan.pillars[0] - 0.05)) - x)
    between = np.full(x.shape, -np.inf, dtype=np.float32)
    for number, post in enumerate(plan.pillars):
        width = 0.045 if number == 0 else 0.035
        lean = 0.08 * (z - waist) * (1 if number else 0.4)
        between = np.maximum(between, width - np.abs(x - car.x(post) - lean))
    return np.minimum(screen, rear_glass), side, between


def _interior(shape: Shape, position_N3: FloatArray, view_N3: FloatArray) -> FloatArray:
    """What is seen through the glass, as a gray value (N,): seats in the dark, daylight through the far windows."""
    car, plan = shape.car, shape.car.plan
    x, y, z = position_N3.T
    vx, vy, vz = view_N3.T
    waist = float(car.top(0.0))
    half = np.float32(plan.width / 2 - 0.17)
    to_side = (np.where(vy > 0, half, -half) - y) / np.where(np.abs(vy) < 1e-4, 1e-4, vy)
    far_x, far_z = x + to_side * vx, z + to_side * vz
    roof = car.roof(far_x).astype(np.float32) - 0.12
    window_front = car.x(plan.windshield[0] + 0.35 * (plan.windshield[1] - plan.windshield[0]))
    window_rear = car.x(0.5 * (plan.rear_window[0] + plan.rear_window[1]))
    daylight = smoothstep(0.0, 0.06, far_z - waist - 0.02) * smoothstep(0.0, 0.06, roof - far_z)
    daylight = daylight * smoothstep(0.0, 0.1, far_x - window_rear) * smoothstep(0.0, 0.1, window_front - far_x)
    daylight = daylight * smoothstep(0.05, 0.5, np.abs(vy))
    for post in plan.pillars:
        daylight = daylight * smoothstep(0.03, 0.06, np.abs(far_x - car.x(post)))
    if car.style.panel_van:
        daylight = daylight * (far_x > car.x(plan.pillars[0]))
    value = np.float32(0.035) + np.float32(0.05) * smoothstep(waist - 0.5, waist + 0.4, far_z)
    value = value + (0.62 - value) * daylight
    for seat_x in _seats(shape):
        to_seat = (seat_x - x) / np.where(np.abs(vx) < 1e-4, 1e-4, vx)
        hit_y, hit_z = y + to_seat * vy, z + to_seat * vz
        value = _behind_seat(
            value, np.abs(np.abs(hit_y) - _SEAT_Y_M), hit_z, waist, (to_seat > 0) & (to_seat < to_side)
        )
        # Seen from the side a seat is a leaning bar.
        for seat_y in (-_SEAT_Y_M, _SEAT_Y_M):
            to_plane = (seat_y - y) / np.where(np.abs(vy) < 1e-4, 1e-4, vy)
            side_x, side_z = x + to_plane * vx, z + to_plane * vz
            lean = np.abs(side_x - seat_x + 0.25 * (side_z - waist)) * 1.7
            value = _behind_seat(value, lean, side_z, waist, (to_plane > 0) & (to_plane < to_side))
    return value


def _seats(shape: Shape) -> list[float]:
    """X of the seat backs."""
    plan = shape.car.plan
    first = shape.car.x(plan.pillars[0]) + (0.05 if len(plan.pillars) > 1 or plan.bed else 0.35)
    rows = [first]
    if len(plan.pillars) > 1 and not shape.car.style.panel_van:
        rows.append(first - 0.92)
    return rows


def _behind_seat(
    value_N: FloatArray, across_N: FloatArray, height_N: FloatArray, waist: float, reached_N: BoolArray
) -> FloatArray:
    back = (across_N < _SEAT_HALF_WIDTH_M) & (height_N < waist + 0.14)
    head = (across_N < 0.13) & (height_N < waist + 0.31) & (height_N > waist + 0.16)
    post = (across_N < 0.05) & (height_N < waist + 0.2)
    return np.where(reached_N & (back | head | post), np.float32(0.03) + 0.02 * (value_N < 0.2), value_N)


def _seams(shape: Shape, material: Material, position_N3: FloatArray, level_N: FloatArray, softness_m: float) -> None:
    """Wipers, the sunroof and the seams beside the roof."""
    car, plan = shape.car, shape.car.plan
    x, y, _ = position_N3.T
    roof = level_N > 0.97
    seam = line_share(np.where(roof, np.abs(y) - (plan.roof_half_width - 0.12), 1.0), 0.014, softness_m)
    material.darken(seam, 0.6)
    if car.style.sunroof:
        front, rear = car.x(plan.windshield[1] + 0.2), car.x(plan.windshield[1] + 0.75)
        pane = np.maximum(np.abs(x - (front + rear) / 2) - (front - rear) / 2, np.abs(y) - 0.36)
        material.cover(share(np.where(roof, pane, 1.0), softness_m), _BLACK, 1.2)
    foot = car.x(plan.windshield[0])
    low = level_N < 0.5
    for start in (0.05, -0.55):
        blade = polyline(x, y, [(foot - 0.13, start + 0.08), (foot - 0.24, start + 0.58)])
        material.cover(line_share(np.where(low, blade, 1.0), 0.02, softness_m), _BLACK, 0.3)
