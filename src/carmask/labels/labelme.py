"""LabelMe's files: outlines of a mask, one polygon for each region; and the labels that people draw.

LabelMe's polygons run through pixels, and these pixels belong to the mask: its reader truncates coordinates and fills
with Pillow, outline included. Points are written at the center of their pixel, (0.5, 0.5) for the first, where LabelMe
also draws them. Its polygons have no holes: the outline of a hole is connected to another outline on its left by a
bridge, walked there and back, that runs over pixels of the mask only and so changes nothing.

Without simplification LabelMe's own reader gives exactly the mask.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, FiniteFloat

from carmask.imaging.masks import require_mask
from carmask.imaging.polygons import DEFAULT_TOLERANCE_PX, trace_outlines
from carmask.labels.shapes import (
    LabeledShape,
    LabelError,
    PhotoLabels,
    Pixels,
    box,
    draw_picture,
    draw_through_pixels,
    from_base64,
    known_size,
    named_errors,
    polygon,
    validate,
)

# The version of LabelMe with this format. LabelMe itself never checks it.
_VERSION = "6.3.1"


@dataclass
class _Outline:
    """An outline through pixels of the mask (points, 2), x and y, and the holes that are connected to it.

    start: number of the point at which it is entered. holes: by the number of the point where their bridge begins.
    """

    points_xy: NDArray[np.intp]
    start: int = 0
    holes: dict[int, list["_Outline"]] = field(default_factory=dict)


def labelme(mask_HW: NDArray[np.bool_], photo: str, *, tolerance_px: float = DEFAULT_TOLERANCE_PX) -> dict[str, Any]:
    """Outlines of a bool mask (height, width) as the content of a LabelMe file, to be saved as JSON.

    photo: path of the photo relative to the file's folder. tolerance_px: largest distance of a simplified outline from
    the exact one; 0 keeps it exact.
    """
    require_mask(mask_HW)
    height, width = mask_HW.shape
    shapes: list[dict[str, Any]] = [
        {
            "label": "vehicle",
            "points": [[x + 0.5, y + 0.5] for x, y in _polygon(outline, tolerance_px)],
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for outline in (_joined(*outlines_xy, mask_HW) for outlines_xy in trace_outlines(mask_HW))
    ]
    return {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": photo,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


class _LabelmeShape(BaseModel):
    label: str
    points: list[tuple[FiniteFloat, FiniteFloat]] = []
    shape_type: str | None = "polygon"
    mask: str | None = None


class _LabelmeFile(BaseModel):
    shapes: list[_LabelmeShape]
    imagePath: str
    imageHeight: Pixels | None = None
    imageWidth: Pixels | None = None


def read_labelme(path: Path, document: Any, digest: str) -> PhotoLabels:
    """Read a file of LabelMe, one photo's. Its `imagePath` starts from the file's folder.

    Polygons, circles and masks are shapes, rectangles boxes; lines and points, which have no area, are left out.

    Raises:
        LabelError: names the place and the cause.
    """
    found = validate(_LabelmeFile, document, path)
    size = known_size(found.imageHeight, found.imageWidth)
    shapes = []
    for number, shape in enumerate(found.shapes):
        with named_errors(f"{path}: shapes.{number}, {shape.label}"):
            shapes += _read_shape(shape)
    return PhotoLabels(path, found.imagePath.replace("\\", "/"), "LabelMe", digest, size, tuple(shapes))


def _read_shape(shape: _LabelmeShape) -> list[LabeledShape]:
    points_xy = np.array(shape.points, np.float64).reshape(-1, 2)
    match shape.shape_type or "polygon":
        case "polygon":
            if len(points_xy) < 3:
                raise LabelError(f"a polygon of {len(points_xy)} points")
            return [LabeledShape(shape.label, partial(draw_through_pixels, (points_xy,)))]
        case "circle" if len(points_xy) == 2:
            radius_px = float(np.hypot(*(points_xy[1] - points_xy[0])))
            angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
            return [polygon(shape.label, points_xy[0] + radius_px * np.stack([np.cos(angle), np.sin(angle)], axis=1))]
        case "rectangle" if len(points_xy) >= 2:
            return [box(shape.label, *points_xy.min(axis=0).tolist(), *points_xy.max(axis=0).tolist())]
        case "mask" | "ai_mask" if shape.mask and len(points_xy) >= 1:
            left, top = points_xy[0].astype(int).tolist()
            return [LabeledShape(shape.label, partial(draw_picture, from_base64(shape.mask), (left, top), None))]
        case "line" | "linestrip" | "point" | "points":
            return []
        case other:
            raise LabelError(f"a shape of type {other!r} with {len(points_xy)} points, which cannot be read")


def _joined(exterior_xy: NDArray[np.intp], holes_xy: list[NDArray[np.intp]], mask_HW: NDArray[np.bool_]) -> _Outline:
    """The outer outline of a region, with each hole connected to the next outline on the left of its leftmost point."""
    exterior = _Outline(exterior_xy)
    outline_at: dict[tuple[int, int], tuple[_Outline, int]] = {}

    def note(outline: _Outline) -> None:
        for number, (x, y) in enumerate(outline.points_xy.tolist()):
            outline_at.setdefault((x, y), (outline, number))

    note(exterior)
    # The outline on the left of a hole has a point farther to the left, so it was noted already.
    for points_xy in sorted(holes_xy, key=lambda points_xy: int(points_xy[:, 0].min())):
        start = int(np.argmin(points_xy[:, 0]))
        x, y = points_xy[start].tolist()
        outside = np.flatnonzero(~mask_HW[y, :x])
        end_x = int(outside[-1]) + 1 if outside.size else 0
        other, number = outline_at[end_x, y]
        hole = _Outline(points_xy, start)
        other.holes.setdefault(number, []).append(hole)
        note(hole)
    return exterior


def _polygon(outline: _Outline, tolerance_px: float) -> list[list[int]]:
    points = _walk(outline, tolerance_px)[:-1]
    # LabelMe refuses polygons of fewer than three points, which a region of one or two pixels has.
    return (points * 3)[:3] if len(points) < 3 else points


def _walk(outline: _Outline, tolerance_px: float) -> list[list[int]]:
    """The points of the outline from its start all the way around to its start, with detours around its holes."""
    path: list[list[int]] = []
    # No recursion: in a noisy mask thousands of holes hang on each other.
    open_steps = [_steps(outline, tolerance_px)]
    while open_steps:
        step = next(open_steps[-1], None)
        if step is None:
            open_steps.pop()
        elif isinstance(step, _Outline):
            open_steps.append(_steps(step, tolerance_px))
        else:
            path += step
    return path


def _steps(outline: _Outline, tolerance_px: float) -> Iterator[list[list[int]] | _Outline]:
    """The way around one outline: pieces of it, and the holes to walk around between them."""
    count = len(outline.points_xy)
    points_xy = np.roll(outline.points_xy, -outline.start, axis=0)[[*range(count), 0]]
    holes_at = {(number - outline.start) % count: holes for number, holes in outline.holes.items()}
    yield [points_xy[0].tolist()]
    for first, last in pairwise(sorted({0, count, *holes_at})):
        for hole in holes_at.get(first, ()):
            yield hole
            yield [points_xy[first].tolist()]
        yield _simplified(points_xy[first : last + 1], tolerance_px)[1:].tolist()


def _simplified(points_xy: NDArray[np.intp], tolerance_px: float) -> NDArray[np.intp]:
    """A piece of an outline with fewer points; its ends are kept."""
    distance = np.square(points_xy - points_xy[0]).sum(axis=1)
    if distance[-1] == 0:
        # OpenCV would reduce a piece that ends where it begins to nothing, so each half is simplified.
        if len(points_xy) <= 3:
            return points_xy
        middle = max(1, int(np.argmax(distance)))
        halves = _simplified(points_xy[: middle + 1], tolerance_px), _simplified(points_xy[middle:], tolerance_px)
        return np.concatenate([halves[0], halves[1][1:]])
    # At a tolerance of 0 this still removes points on straight lines.
    fewer_xy: NDArray[np.intp] = cv2.approxPolyDP(points_xy.astype(np.int32), tolerance_px, closed=False)[:, 0]
    return fewer_xy
