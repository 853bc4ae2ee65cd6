"""From surfaces to pixels: a pinhole camera, and which face each sample of the picture sees.

Faces of one part are drawn from far to near with OpenCV's polygon filling, which writes face numbers; where parts
overlap, the nearer of the two samples wins. Attributes are then interpolated per sample, perspective-correct.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from carstudio.arrays import BoolArray, FloatArray, IntArray, unit
from carstudio.body import BED_INSET_M, Shape, Surface

_SUBPIXEL_BITS = 4
_NEAREST_M = 0.2
_CHUNK = 1 << 14  # samples at a time


@dataclass(frozen=True)
class PinholeCamera:
    """A pinhole camera in the studio: x to its right, y into the studio, z up, origin in the turntable's middle."""

    distance_m: float
    height_m: float
    pitch_rad: float  # downwards
    pan_rad: float  # to the right
    focal_px: float
    size_HW: tuple[int, int]

    def scaled(self, factor: float) -> PinholeCamera:
        """The same view with `factor` times as many pixels each way."""
        height, width = self.size_HW
        size_HW = (round(height * factor), round(width * factor))
        return PinholeCamera(
            self.distance_m, self.height_m, self.pitch_rad, self.pan_rad, self.focal_px * factor, size_HW
        )

    @property
    def position(self) -> FloatArray:
        """Where it stands, meters."""
        return np.array([0.0, -self.distance_m, self.height_m])

    @property
    def axes(self) -> FloatArray:
        """Rows: right, up, forward as unit vectors of the studio."""
        cos_pan, sin_pan = np.cos(self.pan_rad), np.sin(self.pan_rad)
        cos_pitch, sin_pitch = np.cos(self.pitch_rad), np.sin(self.pitch_rad)
        right = np.array([cos_pan, -sin_pan, 0])
        forward = np.array([sin_pan * cos_pitch, cos_pan * cos_pitch, -sin_pitch])
        return np.stack([right, np.cross(right, forward), forward])

    def project(self, points_N3: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Pixel positions (N, 2) as (column, row), centers of pixels at whole numbers, and depths (N,) in meters."""
        seen = (points_N3 - self.position) @ self.axes.T
        depth = np.maximum(seen[:, 2], _NEAREST_M)
        height, width = self.size_HW
        column = self.focal_px * seen[:, 0] / depth + (width - 1) / 2
        row = -self.focal_px * seen[:, 1] / depth + (height - 1) / 2
        return np.stack([column, row], axis=1), depth

    def rays(self) -> FloatArray:
        """Unit viewing directions (H, W, 3), float32."""
        height, width = self.size_HW
        column = ((np.arange(width) - (width - 1) / 2) / self.focal_px).astype(np.float32)
        row = (-(np.arange(height) - (height - 1) / 2) / self.focal_px).astype(np.float32)
        right, up, forward = self.axes.astype(np.float32)
        return unit(forward + row[:, None, None] * up + column[None, :, None] * right)


@dataclass(frozen=True)
class Samples:
    """What the covered samples see, N of them, all in the car's own frame."""

    corner: tuple[int, int]  # row and column of the window's upper left corner in the sampled picture
    window_HW: tuple[int, int]
    index_N: IntArray  # places in the flattened window
    surface_N: IntArray
    position_N3: FloatArray
    normal_N3: FloatArray
    surface_N2: FloatArray


@dataclass(frozen=True)
class _Faces:
    """All faces of a car as the camera sees them: two triangles per quad, as affine weights over the picture."""

    vertex_F3: IntArray
    weight_F6: FloatArray  # (a, b, c) of the second and of the third corner's weight a * column + b * row + c
    inverse_depth_F3: FloatArray


def sample_car(shape: Shape, to_world: FloatArray, camera: PinholeCamera, *, mirrored: bool = False) -> Samples | None:
    """Everything of the car that `camera` sees, or None if it sees nothing of it.

    `to_world` is a 3x4 matrix from the car's frame to the studio's; `mirrored` turns the car upside down below the
    floor, as a polished floor shows it.
    """
    attributes, quads, kinds, starts = _gather(shape)
    position = attributes[:, :3]
    world = position @ to_world[:, :3].T + to_world[:, 3]
    if mirrored:
        world = world * np.array([1.0, 1.0, -1.0])
        quads = quads[:, ::-1]
    pixel, depth = camera.project(world)
    low = np.floor(pixel.min(axis=0)).astype(int) - 1
    high = np.ceil(pixel.max(axis=0)).astype(int) + 2
    low = np.maximum(low, 0)
    high = np.minimum(high, [camera.size_HW[1], camera.size_HW[0]])
    if np.any(high <= low):
        return None
    pixel = pixel - low
    window_HW = (int(high[1] - low[1]), int(high[0] - low[0]))
    faces = _prepare_faces(quads, pixel, depth)
    winner, weights = _resolve(shape, faces, quads, kinds, starts, pixel, depth, position, window_HW)
    index = np.flatnonzero(winner >= 0)
    if index.size == 0:
        return None
    face = winner[index]
    blended = _blend(attributes, faces, face, weights[index])
    return Samples(
        corner=(int(low[1]), int(low[0])),
        window_HW=window_HW,
        index_N=index,
        surface_N=kinds[face // 2],
        position_N3=blended[:, :3],
        normal_N3=blended[:, 3:6],
        surface_N2=blended[:, 6:],
    )


def _gather(shape: Shape) -> tuple[FloatArray, IntArray, IntArray, list[int]]:
    """All parts in one set of arrays, and the number of the first quad of each part.

    A vertex has eight attributes: position, normal, surface coordinates.
    """
    meshes = [part.mesh for part in shape.parts]
    first_vertex = np.cumsum([0] + [len(mesh.vertices_V3) for mesh in meshes])
    starts = np.cumsum([0] + [len(mesh.quads_Q4) for mesh in meshes]).tolist()
    return (
        np.concatenate([np.hstack([mesh.vertices_V3, mesh.normals_V3, mesh.surface_V2]) for mesh in meshes]).astype(
            np.float32
        ),
        np.concatenate([mesh.quads_Q4 + start for mesh, start in zip(meshes, first_vertex, strict=False)]),
        np.repeat([int(part.surface) for part in shape.parts], np.diff(starts)).astype(np.int32),
        starts,
    )


def _prepare_faces(quads_Q4: IntArray, pixel_V2: FloatArray, depth_V: FloatArray) -> _Faces:
    vertex = quads_Q4[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)
    corner = pixel_V2[vertex]
    origin, edge1, edge2 = corner[:, 0], corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    scale = np.where(np.abs(area) > 1e-6, 1 / np.where(area == 0, 1, area), 0)
    a1, b1 = edge2[:, 1] * scale, -edge2[:, 0] * scale
    a2, b2 = -edge1[:, 1] * scale, edge1[:, 0] * scale
    c1 = -(a1 * origin[:, 0] + b1 * origin[:, 1])
    c2 = -(a2 * origin[:, 0] + b2 * origin[:, 1])
    weight = np.stack([a1, b1, c1, a2, b2, c2], axis=1).astype(np.float32)
    return _Faces(vertex, weight, (1 / depth_V[vertex]).astype(np.float32))


def _resolve(
    shape: Shape,
    faces: _Faces,
    quads: IntArray,
    kinds: IntArray,
    starts: list[int],
    pixel: FloatArray,
    depth: FloatArray,
    position: FloatArray,
    window_HW: tuple[int, int],
) -> tuple[IntArray, FloatArray]:
    """Per sample of the window: the visible triangle (-1: none) and its three perspective-correct weights."""
    winner = np.full(window_HW[0] * window_HW[1], -1, dtype=np.int32)
    nearness = np.zeros(winner.size, dtype=np.float32)
    weights = np.zeros((winner.size, 3), dtype=np.float32)
    fixed = np.round(pixel * 2**_SUBPIXEL_BITS).astype(np.int32)[quads]
    quad_depth = depth[quads].mean(axis=1)
    diagonal1, diagonal2 = fixed[:, 2] - fixed[:, 0], fixed[:, 3] - fixed[:, 1]
    # Rows count downwards, so a face seen from outside turns clockwise on the picture's axes.
    cross = diagonal1[:, 0].astype(np.int64) * diagonal2[:, 1] - diagonal1[:, 1].astype(np.int64) * diagonal2[:, 0]
    facing = cross < 0
    for start, end in pairwise(starts):
        numbers = start + np.flatnonzero(facing[start:end])
        if numbers.size == 0:
            continue
        numbers = numbers[np.argsort(-quad_depth[numbers], kind="stable")]
        index, quad = _draw(fixed, numbers, window_HW)
        face, weight, near = _locate(faces, quad, index, window_HW[1])
        keep = near > nearness[index]
        if kinds[start] == Surface.BODY:
            keep &= ~_cut_away(shape, _blend(position, faces, face, weight))
        index = index[keep]
        winner[index], nearness[index], weights[index] = face[keep], near[keep], weight[keep]
    return winner, weights


def _draw(fixed_Q42: IntArray, numbers: IntArray, window_HW: tuple[int, int]) -> tuple[IntArray, IntArray]:
    """Fill the quads `numbers` in this order; returns the covered samples and the quad last drawn on each."""
    corners = fixed_Q42[numbers]
    scale = 2**_SUBPIXEL_BITS
    low = np.maximum(corners.min(axis=(0, 1)) // scale - 1, 0)
    high = np.minimum(corners.max(axis=(0, 1)) // scale + 2, [window_HW[1], window_HW[0]])
    canvas = np.zeros((max(high[1] - low[1], 1), max(high[0] - low[0], 1)), dtype=np.int32)
    corners = np.ascontiguousarray(corners - low * scale)
    for order, corner in enumerate(corners, start=1):
        cv2.fillConvexPoly(canvas, corner, order, cv2.LINE_8, _SUBPIXEL_BITS)
    inside = np.flatnonzero(canvas)
    row, column = np.divmod(inside, canvas.shape[1])
    return (row + low[1]) * window_HW[1] + column + low[0], numbers[canvas.ravel()[inside] - 1]


def _locate(
    faces: _Faces, quad_N: IntArray, index_N: IntArray, window_width: int
) -> tuple[IntArray, FloatArray, FloatArray]:
    """For samples known to lie in a quad: the triangle of the two, corner weights (N, 3), and 1 / depth."""
    face = np.empty(len(quad_N), dtype=np.int32)
    weight = np.empty((len(quad_N), 3), dtype=np.float32)
    near = np.empty(len(quad_N), dtype=np.float32)
    for chunk in _chunks(len(quad_N)):
        quad = quad_N[chunk]
        row, column = np.divmod(index_N[chunk], window_width)
        row, column = row.astype(np.float32), column.astype(np.float32)
        first = faces.weight_F6[2 * quad]
        # The first triangle is (0, 1, 2): beyond its edge 0-2 the weight of corner 1 is negative.
        face[chunk] = 2 * quad + (first[:, 0] * column + first[:, 1] * row + first[:, 2] < 0)
        plane = faces.weight_F6[face[chunk]]
        w1 = np.clip(plane[:, 0] * column + plane[:, 1] * row + plane[:, 2], 0, 1)
        w2 = np.clip(plane[:, 3] * column + plane[:, 4] * row + plane[:, 5], 0, 1 - w1)
        depth_weight = np.stack([1 - w1 - w2, w1, w2], axis=1) * faces.inverse_depth_F3[face[chunk]]
        near[chunk] = depth_weight.sum(axis=1)
        weight[chunk] = depth_weight / near[chunk, None]
    return face, weight, near


def _blend(values_VK: FloatArray, faces: _Faces, face_N: IntArray, weight_N3: FloatArray) -> FloatArray:
    """Vertex values (V, K) interpolated at samples: (N, K)."""
    values_VK = np.ascontiguousarray(values_VK)
    blended = np.empty((len(face_N), values_VK.shape[1]), dtype=np.float32)
    for chunk in _chunks(len(face_N)):
        vertex = faces.vertex_F3[face_N[chunk]]
        weight = weight_N3[chunk, :, None]
        total = values_VK[vertex[:, 0]] * weight[:, 0]
        total += values_VK[vertex[:, 1]] * weight[:, 1]
        total += values_VK[vertex[:, 2]] * weight[:, 2]
        blended[chunk] = total
    return blended


def _chunks(count: int) -> Iterator[slice]:
    """Pieces small enough for the processor's cache."""
    for first in range(0, count, _CHUNK):
        yield slice(first, min(first + _CHUNK, count))


def _cut_away(shape: Shape, position_N3: FloatArray) -> BoolArray:
    """Samples of the body's skin that are holes: wheel arches, a pickup's bed."""
    hole = shape.in_wheel_arch(position_N3)
    bed = shape.car.plan.bed
    if bed is not None:
        x, y, z = position_N3.T
        in_bed = (
            (x < shape.car.x(bed[0])) & (x > shape.car.x(bed[1])) & (np.abs(y) < shape.car.plan.width / 2 - BED_INSET_M)
        )
        hole |= in_bed & (z > shape.car.top(x) - 0.05)
    return hole
