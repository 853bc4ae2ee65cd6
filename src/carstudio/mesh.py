"""Surfaces made of quads: lofted bodies, surfaces of revolution, boxes, ellipsoids.

All lengths are meters in the car's own frame: x forward, y to the car's left, z up, the origin on the ground in the
middle of the car. Corners of a quad run counter-clockwise when seen from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from carstudio.arrays import FloatArray, IntArray, unit
from carstudio.curves import Curve, Outline


@dataclass(frozen=True)
class Mesh:
    """`vertices_V3`, unit `normals_V3`, two surface coordinates per vertex `surface_V2`, corner numbers `quads_Q4`."""

    vertices_V3: FloatArray
    normals_V3: FloatArray
    surface_V2: FloatArray
    quads_Q4: IntArray


def grid_mesh(points_RC3: FloatArray, surface_RC2: FloatArray) -> Mesh:
    """A closed band: rows one above the other, columns counter-clockwise around; normals averaged over the faces."""
    rows, columns = points_RC3.shape[:2]
    number = np.arange(rows * columns).reshape(rows, columns)
    right = np.roll(number, -1, axis=1)
    quads = np.stack([number[:-1], right[:-1], right[1:], number[1:]], axis=-1).reshape(-1, 4)
    vertices = points_RC3.reshape(-1, 3)
    return Mesh(vertices, smooth_normals(vertices, quads), surface_RC2.reshape(-1, 2), quads)


def smooth_normals(vertices_V3: FloatArray, quads_Q4: IntArray) -> FloatArray:
    """Vertex normals: the sum of the touching faces' normals, weighted by area; straight up where they cancel."""
    corner = vertices_V3[quads_Q4]
    face = np.cross(corner[:, 2] - corner[:, 0], corner[:, 3] - corner[:, 1])
    total = np.zeros_like(vertices_V3)
    for axis in range(3):
        weight = np.repeat(face[:, axis], 4)
        total[:, axis] = np.bincount(quads_Q4.ravel(), weight, minlength=len(vertices_V3))
    normals = unit(total)
    normals[np.einsum("vi,vi->v", normals, normals) < 0.5] = (0, 0, 1)
    return normals


@dataclass(frozen=True)
class Loft:
    """A body as a stack of outlines.

    Each row of `section` is (height 0..1, inset of the sides, inset of the front, inset of the rear), insets in meters.
    Heights run from `bottom(x)` to `top(x)`. The stack is closed by a cap that rises by `crown_m` toward the middle.
    """

    outline: Outline
    section: Sequence[tuple[float, float, float, float]]
    front_m: float
    rear_m: float
    half_width_m: float
    front_bow_m: float
    rear_bow_m: float
    bottom: Curve
    top: Curve
    crown_m: float
    cap_rows: int = 8

    def mesh(self) -> Mesh:
        """Surface coordinates: distance along the outline from the front's middle (m), and height 0..1 (cap: 1..2)."""
        rings = [self._ring(*row) for row in self.section]
        edge = rings[-1]
        spine_front = self.front_m - self.section[-1][2] - 0.35 * self.half_width_m
        spine_rear = self.rear_m + self.section[-1][3] + 0.35 * self.half_width_m
        spine_x = np.clip(edge[:, 0], spine_rear, spine_front)
        for t in np.linspace(0, 1, self.cap_rows + 1)[1:]:
            x = edge[:, 0] + t * (spine_x - edge[:, 0])
            z = self.top(x) + self.crown_m * (1 - (1 - t) ** 2)
            rings.append(np.stack([x, edge[:, 1] * (1 - t), z], axis=1))
        middle = rings[len(self.section) // 2]
        arc = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(middle[:, :2], axis=0), axis=1))])
        level = np.concatenate(
            [[row[0] for row in self.section], 1 + np.linspace(0, 1, self.cap_rows + 1)[1:]],
        )
        points = np.stack([_mirrored(ring) for ring in rings])
        around = np.concatenate([arc, arc[-2:0:-1]])
        surface = np.stack(np.broadcast_arrays(around[None, :], level[:, None]), axis=-1)
        return grid_mesh(points, surface)

    def arc_length_m(self) -> float:
        """Length of the half outline in the middle of the stack."""
        middle = self._ring(*self.section[len(self.section) // 2])
        return float(np.linalg.norm(np.diff(middle[:, :2], axis=0), axis=1).sum())

    def _ring(self, height: float, side: float, front: float, rear: float) -> FloatArray:
        xy = self.outline.place(
            self.front_m - front,
            self.rear_m + rear,
            self.half_width_m - side,
            self.front_bow_m,
            self.rear_bow_m,
        )
        low, high = self.bottom(xy[:, 0]), self.top(xy[:, 0])
        return np.column_stack([xy, low + height * (high - low)])


def _mirrored(half_N3: FloatArray) -> FloatArray:
    """The left half outline and its mirror image as one closed ring, counter-clockwise from the front."""
    other = half_N3[-2:0:-1] * np.array([1.0, -1.0, 1.0])
    return np.concatenate([half_N3, other])


def revolve(profile_P2: Sequence[tuple[float, float]], columns: int, center: FloatArray, outward: float) -> Mesh:
    """A wheel: (radius, offset) turned about the axle, offsets counted outwards (`outward` is +1 left, -1 right).

    Surface coordinates: the vertex's offsets from the axle forwards and upwards, in meters.
    """
    radius, offset = np.array(profile_P2, dtype=np.float64).T
    angle = np.linspace(0, 2 * np.pi, columns, endpoint=False) * outward
    dx = radius[:, None] * np.sin(angle)
    dz = radius[:, None] * np.cos(angle)
    dy = np.broadcast_to(offset[:, None] * outward, dx.shape)
    points = np.stack([dx, dy, dz], axis=-1) + center
    return grid_mesh(points, np.stack([dx, dz], axis=-1))


def ellipsoid(center: FloatArray, half_size: FloatArray, power: float = 2.5) -> Mesh:
    """A superellipsoid; its surface coordinates are forward and upward offsets from the center, in half sizes."""
    latitude = np.linspace(-np.pi / 2, np.pi / 2, 11)[:, None]
    longitude = np.linspace(0, 2 * np.pi, 20, endpoint=False)[None, :]

    def bend(value: FloatArray) -> FloatArray:
        return np.sign(value) * np.abs(value) ** (2 / power)

    ball = np.stack(
        np.broadcast_arrays(
            bend(np.cos(latitude)) * bend(np.cos(longitude)),
            bend(np.cos(latitude)) * bend(np.sin(longitude)),
            bend(np.sin(latitude)),
        ),
        axis=-1,
    )
    return grid_mesh(center + ball * half_size, ball[..., [0, 2]])


_BOX_FACES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))


def box(low: Sequence[float], high: Sequence[float], *, pieces: int = 1) -> Mesh:
    """An upright box; `pieces` divides it along x, so that long boxes sort well by depth."""
    edges = np.linspace(low[0], high[0], pieces + 1)
    vertices: list[FloatArray] = []
    quads: list[IntArray] = []
    for left, right in pairwise(edges):
        corner = np.array([(x, y, z) for x in (left, right) for y in (low[1], high[1]) for z in (low[2], high[2])])
        for number, face in enumerate(_BOX_FACES):
            if (number == 0 and left > low[0]) or (number == 1 and right < high[0]):
                continue
            quads.append(np.arange(4) + 4 * len(quads))
            vertices.append(corner[list(face)])
    vertices_V3, quads_Q4 = np.concatenate(vertices), np.stack(quads)
    return Mesh(vertices_V3, smooth_normals(vertices_V3, quads_Q4), vertices_V3[:, [0, 2]], quads_Q4)


def tube(path_N3: FloatArray, radius_m: float) -> Mesh:
    """A round bar along a path that runs mainly forwards; its surface coordinates are x and height."""
    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    ring = np.column_stack([np.zeros(8), np.cos(angle), np.sin(angle)]) * radius_m
    points = path_N3[:, None, :] + ring[None, :, :]
    return grid_mesh(points, points[..., [0, 2]])


def strip(one_N3: FloatArray, other_N3: FloatArray) -> Mesh:
    """A sheet between two lines that faces up where both run forwards and the second lies to the right of the first."""
    vertices = np.concatenate([one_N3, other_N3])
    count = len(one_N3)
    start = np.arange(count - 1)
    quads = np.stack([start, start + count, start + count + 1, start + 1], axis=1)
    return Mesh(vertices, smooth_normals(vertices, quads), vertices[:, [0, 2]], quads)
