"""A car's surfaces: lower body, cabin, wheels, mirrors, underbody, and parts such as roof rails and spoilers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import numpy as np

from carstudio.arrays import BoolArray, FloatArray, smoothstep
from carstudio.blueprints import TIRE_WIDTH_M
from carstudio.curves import superellipse
from carstudio.design import Car
from carstudio.mesh import Loft, Mesh, box, ellipsoid, grid_mesh, revolve, smooth_normals, strip, tube

WAIST_SINK_M = 0.10  # the cabin starts this far below the waist, hidden in the lower body
_FLARE_M, _FLARE_REACH_M = 0.032, 0.16
UNDERBODY_INSET_M = 0.26
BED_INSET_M = 0.19  # from the side of a pickup to the inner side of its bed
_LINER_OVERLAP_M, _RIM_OVERLAP_M = 0.012, 0.012
RIM_SHARE = 0.70  # of the wheel's radius


class Surface(IntEnum):
    """What a face belongs to; `details` paints each kind in its own way."""

    BODY = 0
    CABIN = 1
    WHEEL = 2
    MIRROR = 3
    UNDERBODY = 4
    BED = 5
    TRIM = 6
    PAINTED = 7


@dataclass(frozen=True)
class Part:
    """A mesh whose faces hide each other correctly when drawn from far to near."""

    mesh: Mesh
    surface: Surface


@dataclass(frozen=True)
class Shape:
    """All parts of a car and the measures that the painting of details needs (meters, car frame)."""

    car: Car
    parts: tuple[Part, ...]
    body_arc_m: float  # half the way around the lower body
    cabin_arc_m: float
    cabin_corners_m: tuple[float, float]  # along the cabin's outline: from the front, from the rear
    arch_radius_m: float

    @property
    def wheel_x(self) -> tuple[float, float]:
        """X of the front and of the rear axle."""
        return self.car.x(self.car.plan.axles[0]), self.car.x(self.car.plan.axles[1])

    def in_wheel_arch(self, position_N3: FloatArray) -> BoolArray:
        """Where the body's side is cut open for a wheel."""
        inside = np.zeros(len(position_N3), dtype=np.bool_)
        for x in self.wheel_x:
            dx, dz = position_N3[:, 0] - x, position_N3[:, 2] - self.car.plan.wheel_radius
            reach = np.where(dz > 0, np.hypot(dx, dz), np.abs(dx))
            inside |= reach < self.arch_radius_m
        return inside & (np.abs(position_N3[:, 1]) > 0.3 * self.car.plan.width)


def build_shape(car: Car) -> Shape:
    """The car's surfaces, in the car's own frame."""
    body, cabin = _lower_body(car), _cabin(car)
    arch_radius_m = car.plan.wheel_radius + (0.075 if car.body_type in ("estate", "pickup") else 0.055)
    skin = _with_flares(body.mesh(), car)
    parts = [Part(skin, Surface.BODY), Part(cabin.mesh(), Surface.CABIN)]
    parts += [Part(mesh, Surface.UNDERBODY) for mesh in _arch_liners(car, skin, arch_radius_m)]
    parts += [Part(mesh, Surface.WHEEL) for mesh in _wheels(car)]
    parts += [Part(mesh, Surface.MIRROR) for mesh in _mirrors(car)]
    parts += list(_extras(car))
    return Shape(
        car=car,
        parts=tuple(parts),
        body_arc_m=body.arc_length_m(),
        cabin_arc_m=cabin.arc_length_m(),
        cabin_corners_m=_corners(cabin),
        arch_radius_m=arch_radius_m,
    )


def _lower_body(car: Car) -> Loft:
    plan = car.plan
    blunt = 0.6 if car.body_type in ("pickup", "van") else 1.0
    # Height share, then insets of side, front and rear: tucked in below, a crease at door-handle height, a shoulder.
    section = [
        (0.00, 0.08, 0.15, 0.14),
        (0.03, 0.05, 0.09, 0.09),
        (0.08, 0.036, 0.05, 0.055),
        (0.16, 0.024, 0.025, 0.028),
        (0.26, 0.012, 0.006, 0.008),
        (0.36, 0.008, 0.0, 0.0),
        (0.46, 0.002, 0.004, 0.004),
        (0.52, 0.0, 0.035 * blunt, 0.035 * blunt),
        (0.58, 0.0, 0.045 * blunt, 0.05 * blunt),
        (0.66, 0.002, 0.055 * blunt, 0.06 * blunt),
        (0.715, 0.003, 0.065 * blunt, 0.065 * blunt),
        (0.735, 0.014, 0.068 * blunt, 0.066 * blunt),
        (0.80, 0.022, 0.08 * blunt, 0.072 * blunt),
        (0.87, 0.034, 0.10 * blunt, 0.08 * blunt),
        (0.92, 0.048, 0.125 * blunt, 0.092 * blunt),
        (0.96, 0.07, 0.16 * blunt, 0.11 * blunt),
        (0.985, 0.10, 0.205 * blunt, 0.135 * blunt),
        (1.00, 0.14, 0.26 * blunt, 0.165 * blunt),
    ]
    return Loft(
        outline=superellipse(64, 6.2, plan.rear_corner_power, plan.length, plan.width),
        section=section,
        front_m=plan.length / 2,
        rear_m=-plan.length / 2,
        half_width_m=plan.width / 2,
        front_bow_m=0.15,
        rear_bow_m=0.05 if plan.bed else 0.10,
        bottom=car.bottom,
        top=car.top,
        crown_m=0.015 if plan.bed else 0.035,
    )


def _with_flares(mesh: Mesh, car: Car) -> Mesh:
    """The body with its fenders drawn outwards around the wheels."""
    plan = car.plan
    x, y, z = mesh.vertices_V3.T
    out = np.zeros_like(x)
    for station in plan.axles:
        reach = np.hypot(x - car.x(station), np.maximum(z - plan.wheel_radius, 0))
        out = np.maximum(out, np.exp(-(((reach - 1.1 * plan.wheel_radius) / _FLARE_REACH_M) ** 2)))
    # Only the flanks move: not the hood, not the face of the bumpers.
    flank = smoothstep(0.80, 0.95, np.abs(y) / (plan.width / 2)) * (1 - smoothstep(0.8, 0.96, mesh.surface_V2[:, 1]))
    vertices = mesh.vertices_V3.copy()
    vertices[:, 1] += np.sign(y) * _FLARE_M * out * flank
    return Mesh(vertices, smooth_normals(vertices, mesh.quads_Q4), mesh.surface_V2, mesh.quads_Q4)


def _cabin(car: Car) -> Loft:
    plan = car.plan
    rake_front = plan.windshield[1] - plan.windshield[0]
    rake_rear = plan.rear_window[0] - plan.rear_window[1]
    foot_half_width = plan.width / 2 - 0.075
    lean = foot_half_width - plan.roof_half_width
    section = []
    for height in (0.0, 0.12, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.78, 0.84, 0.89, 0.93, 0.965, 0.99, 1.0):
        # Sides and screens run straight, then turn into the roof on a rounded edge.
        turn = max(0.0, (height - 0.80) / 0.20)
        edge = 1 - float(np.sqrt(1 - turn**2))
        section.append(
            (
                height,
                lean * min(height, 0.9) ** 1.15 + 0.085 * edge,
                rake_front * min(height, 0.95) ** 1.08 + 0.16 * edge,
                rake_rear * min(height, 0.95) ** 1.15 + 0.14 * edge,
            )
        )
    low = np.array(car.top.value) - WAIST_SINK_M
    return Loft(
        outline=superellipse(48, 7, max(plan.rear_corner_power, 8), plan.length / 2, plan.width),
        section=section,
        front_m=car.x(plan.windshield[0]),
        rear_m=car.x(plan.rear_window[0]),
        half_width_m=foot_half_width,
        front_bow_m=0.17,
        rear_bow_m=0.03 if plan.bed else 0.09,
        bottom=type(car.top)(car.top.at, low),
        top=car.roof,
        crown_m=0.03,
        cap_rows=6,
    )


def _corners(cabin: Loft) -> tuple[float, float]:
    """Where the cabin's outline turns from the screens to the sides, as distances from its front and rear middles."""
    outline = cabin.outline.place(cabin.front_m, cabin.rear_m, cabin.half_width_m, 0, 0)
    wide = np.flatnonzero(outline[:, 1] > 0.955 * cabin.half_width_m)
    # Scaled to the outline in the middle of the stack, in which the surface coordinate is counted.
    row = cabin.section[len(cabin.section) // 2]
    middle = cabin.outline.place(
        cabin.front_m - row[2], cabin.rear_m + row[3], cabin.half_width_m - row[1], cabin.front_bow_m, cabin.rear_bow_m
    )
    arc = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(middle, axis=0), axis=1))])
    return float(arc[wide[0]]), float(arc[-1] - arc[wide[-1]])


def _wheels(car: Car) -> Iterator[Mesh]:
    plan = car.plan
    r, half = plan.wheel_radius, TIRE_WIDTH_M / 2
    rim = RIM_SHARE * r
    # Radius and offset from the tire's middle: inner side, tread, outer side, rim, hub.
    profile = [
        (0.01, -0.6 * half), (0.6 * r, -0.6 * half), (0.72 * r, -0.95 * half), (0.86 * r, -half),
        (0.95 * r, -0.96 * half), (0.99 * r, -0.82 * half), (r, -0.6 * half), (r, 0.0), (r, 0.6 * half),
        (0.99 * r, 0.82 * half), (0.95 * r, 0.96 * half), (0.86 * r, half), (0.76 * r, 0.97 * half),
        (rim + 0.004, 0.9 * half), (rim - 0.004, 0.92 * half), (rim - 0.016, 0.86 * half), (rim - 0.03, 0.68 * half),
        (0.75 * rim, 0.60 * half), (0.45 * rim, 0.62 * half), (0.24 * rim, 0.68 * half), (0.2 * rim, 0.76 * half),
        (0.01, 0.78 * half),
    ]  # fmt: skip
    for station in plan.axles:
        for outward in (1.0, -1.0):
            y = outward * car.wheel_y
            yield revolve(profile, 48, np.array([car.x(station), y, r]), outward)


def _arch_liners(car: Car, skin: Mesh, radius_m: float) -> Iterator[Mesh]:
    """Sheets over the wheels: without them one could look through an arch and below the bumper out of the car."""
    plan = car.plan
    angle = np.linspace(-np.pi / 2, np.pi / 2, 13)
    flank = skin.vertices_V3[(skin.vertices_V3[:, 1] > 0.3 * plan.width) & (skin.surface_V2[:, 1] < 0.95)]
    for station in plan.axles:
        x = car.x(station) + np.concatenate([[-radius_m], radius_m * np.sin(angle), [radius_m]])
        z = np.concatenate([[0.0], plan.wheel_radius + radius_m * np.cos(angle), [0.0]])
        z[[0, -1]] = car.bottom(x[[0, -1]])
        # The sheet ends at the skin, wherever that has its nearest vertex.
        nearest = np.hypot(flank[:, 0, None] - x, flank[:, 2, None] - z).argmin(axis=0)
        inner, outer = np.full(x.shape, plan.width / 2 - UNDERBODY_INSET_M), flank[nearest, 1] + _LINER_OVERLAP_M
        yield strip(np.column_stack([x, inner, z]), np.column_stack([x, outer, z]))
        yield strip(np.column_stack([x, -outer, z]), np.column_stack([x, -inner, z]))


def _mirrors(car: Car) -> Iterator[Mesh]:
    plan = car.plan
    station = plan.windshield[0] + 0.70 * (plan.windshield[1] - plan.windshield[0])
    x = car.x(station)
    z = float(car.top(x)) + 0.10
    for outward in (1.0, -1.0):
        yield ellipsoid(np.array([x, outward * (plan.width / 2 + 0.06), z]), np.array([0.08, 0.115, 0.075]), 3.0)
        yield ellipsoid(np.array([x, outward * (plan.width / 2 - 0.06), z - 0.05]), np.array([0.05, 0.09, 0.03]), 3.0)


def _extras(car: Car) -> Iterator[Part]:
    plan = car.plan
    half = plan.length / 2
    narrow = plan.width / 2 - UNDERBODY_INSET_M
    under = box((-half + 0.5, -narrow, plan.sill), (half - 0.5, narrow, plan.sill + 0.45), pieces=6)
    yield Part(under, Surface.UNDERBODY)
    if plan.bed:
        yield Part(_bed(car, car.x(plan.bed[1]), car.x(plan.bed[0])), Surface.BED)
    if car.style.roof_rails:
        yield from _roof_rails(car)
    if car.style.spoiler:
        x, wide = -half + 0.16, 0.78 * plan.width / 2
        z = float(car.top(x)) + 0.12
        yield Part(ellipsoid(np.array([x, 0, z]), np.array([0.13, wide, 0.02]), 5.0), Surface.PAINTED)
        for y in (-0.75 * wide, 0.75 * wide):
            yield Part(box((x - 0.05, y - 0.02, z - 0.2), (x + 0.05, y + 0.02, z)), Surface.PAINTED)


def _bed(car: Car, rear: float, front: float) -> Mesh:
    """Walls and floor of a pickup's bed, seen from inside; its rim follows the body's upper edge."""
    plan = car.plan
    wide = plan.width / 2 - BED_INSET_M
    corners = [(front, -wide), (front, wide), (rear, wide), (rear, -wide)]
    sides = [np.linspace(start, end, 8, endpoint=False) for start, end in pairwise([*corners, corners[0]])]
    x, y = np.concatenate(sides).T
    rim = np.column_stack([x, y, car.top(x) + _RIM_OVERLAP_M])
    foot = np.column_stack([x, y, np.full(x.shape, plan.sill + 0.35)])
    middle = foot * np.array([1.0, 0.0, 1.0])
    points = np.stack([rim, foot, middle])
    return grid_mesh(points, points[..., [0, 2]])


def _roof_rails(car: Car) -> Iterator[Part]:
    plan = car.plan
    x = np.linspace(car.x(plan.rear_window[1] - 0.1), car.x(plan.windshield[1] + 0.25), 17)
    # Both ends come down to the roof.
    lift = 0.075 * np.sin(np.linspace(0, np.pi, 17)) ** 0.25 - 0.02
    for outward in (1.0, -1.0):
        y = np.full(17, outward * (plan.roof_half_width - 0.10))
        yield Part(tube(np.column_stack([x, y, car.roof(x) + lift]), 0.018), Surface.TRIM)
