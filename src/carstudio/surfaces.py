"""Color of every sample of the car: its material with all details, lit by the studio."""

from __future__ import annotations

import numpy as np

from carstudio.arrays import FloatArray, IntArray, smoothstep, unit
from carstudio.body import Shape, Surface
from carstudio.details.cabin import paint_cabin
from carstudio.details.lower import paint_lower_body
from carstudio.details.wheel import paint_wheel
from carstudio.light import Material, shade
from carstudio.raster import PinholeCamera, Samples

_CHUNK = 1 << 15  # samples at a time: the working arrays stay in the processor's cache
_LACQUER_GLOSS = 1.2  # polished for the photo
_DETAIL_SOFTNESS = 1.4  # width of a painted edge in samples
_PLAIN: dict[int, tuple[tuple[float, float, float], float, float]] = {
    Surface.UNDERBODY: ((0.01, 0.01, 0.011), 0.05, 0.0),
    Surface.BED: ((0.05, 0.05, 0.052), 0.3, 0.0),
    Surface.TRIM: ((0.30, 0.31, 0.32), 1.2, 0.7),
}


def color_samples(shape: Shape, samples: Samples, to_world: FloatArray, camera: PinholeCamera) -> FloatArray:
    """Radiance (N, 3), float32, of all samples toward the camera."""
    colors = np.empty((len(samples.index_N), 3), dtype=np.float32)
    order = np.argsort(samples.surface_N, kind="stable")
    kinds, starts = np.unique(samples.surface_N[order], return_index=True)
    for kind, start, end in zip(kinds, starts, [*starts[1:], len(order)], strict=True):
        for first in range(start, end, _CHUNK):
            chosen = order[first : min(first + _CHUNK, end)]
            colors[chosen] = _color_chunk(shape, samples, chosen, int(kind), to_world, camera)
    return colors


def _color_chunk(
    shape: Shape, samples: Samples, chosen: IntArray, kind: int, to_world: FloatArray, camera: PinholeCamera
) -> FloatArray:
    position = samples.position_N3[chosen]
    surface = samples.surface_N2[chosen]
    rotation = to_world[:, :3].astype(np.float32)
    normal = unit(samples.normal_N3[chosen] @ rotation.T)
    sight = position @ rotation.T + (to_world[:, 3] - camera.position).astype(np.float32)
    view = unit(sight)
    # The car is seen from much further than it is long: one width for all painted edges will do.
    softness_m = _DETAIL_SOFTNESS * camera.distance_m / camera.focal_px
    material = _lacquer(shape, len(chosen))
    glass = None
    if kind == Surface.BODY:
        paint_lower_body(shape, material, position, surface, softness_m)
    elif kind == Surface.CABIN:
        glass = paint_cabin(shape, material, position, surface, view @ rotation, softness_m)
    elif kind == Surface.WHEEL:
        paint_wheel(shape, material, position, surface, softness_m)
    elif kind == Surface.MIRROR and shape.car.style.dark_trim:
        material.cover((surface[:, 1] < -0.3).astype(np.float32), (0.02, 0.02, 0.02), 0.4)
    elif kind in _PLAIN:
        color, gloss, flake = _PLAIN[kind]
        material.cover(np.ones(len(chosen), dtype=np.float32), color, gloss, flake)
    open_N = _openness(shape, kind, position)
    result = shade(material, normal, view, open_N)
    if glass is not None:
        # What lies behind glass is lit by the room as it is, not as the pane's own slope would light it.
        result[glass] += 0.25 * material.color_N3[glass]
    return result


def _lacquer(shape: Shape, count: int) -> Material:
    return Material(
        np.tile(np.array(shape.car.paint_rgb, dtype=np.float32), (count, 1)),
        np.full(count, _LACQUER_GLOSS, dtype=np.float32),
        np.full(count, shape.car.flake, dtype=np.float32),
    )


def _openness(shape: Shape, kind: int, position_N3: FloatArray) -> FloatArray:
    """How much of the room a sample sees: little under the sills, in the arches and deep in a bed."""
    plan = shape.car.plan
    z = position_N3[:, 2]
    if kind == Surface.BED:
        return smoothstep(plan.sill + 0.1, float(shape.car.top(-1.5)) + 0.25, z)
    if kind == Surface.WHEEL:
        middle = shape.car.wheel_y
        depth = np.abs(position_N3[:, 1]) - middle
        return smoothstep(-0.16, 0.1, depth) * (1.0 - 0.55 * smoothstep(1.1, 2.05, z / plan.wheel_radius))
    return 0.45 + 0.55 * smoothstep(plan.sill - 0.05, plan.sill + 0.45, z)
