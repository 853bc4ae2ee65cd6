"""Outlines of a mask as LabelMe writes them, one polygon for each region.

LabelMe's polygons run through pixels, and the pixels they pass belong to the mask: its reader cuts off fractions and
fills with Pillow, outline included. Points are written at the middle of their pixel, (0.5, 0.5) for the first, so that
LabelMe also draws them there. Its polygons have no holes: the outline of a hole is reached from another outline to the
left of it over a bridge, walked there and back, that runs over pixels of the mask only and so changes nothing.

Without simplification LabelMe's own reader gives back the mask exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.imaging.masks import require_mask
from carmask.imaging.polygons import DEFAULT_TOLERANCE_PX

# The version of LabelMe whose form this is; LabelMe itself never compares it.
_VERSION = "6.3.1"

Point = tuple[int, int]


@dataclass
class _Outline:
    """An outline through pixels of the mask (points, 2), x and y, and the holes that are reached from it.

    start: number of the point at which it is entered. holes: by the number of the point from which they are reached.
    """

    points_xy: NDArray[np.intp]
    start: int = 0
    holes: dict[int, list["_Outline"]] = field(default_factory=dict)


def labelme(mask_HW: NDArray[np.bool_], photo: str, *, tolerance_px: float = DEFAULT_TOLERANCE_PX) -> dict[str, Any]:
    """Outlines of a bool mask (height, width) as the content of a LabelMe file, to be written as JSON.

    photo: path of the photo from the folder of the file, as LabelMe finds it. tolerance_px: how far a simplified
    outline may lie from the exact one; 0 keeps it exact.
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
        for outline in _outlines(mask_HW)
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


def _outlines(mask_HW: NDArray[np.bool_]) -> Iterator[_Outline]:
    """The outer outline of each region, its holes hung to it and to each other."""
    contours, hierarchy = cv2.findContours(
        np.ascontiguousarray(mask_HW).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    rings = [contour[:, 0].astype(np.intp) for contour in contours]
    parents = hierarchy[0, :, 3] if rings else []
    for exterior, parent in enumerate(parents):
        if parent == -1:
            outer = _Outline(rings[exterior])
            _hang(outer, [rings[hole] for hole, around in enumerate(parents) if around == exterior], mask_HW)
            yield outer


def _hang(outer: _Outline, holes: list[NDArray[np.intp]], mask_HW: NDArray[np.bool_]) -> None:
    """Hang each hole to the outline that is met going left from the hole's leftmost point."""
    met: dict[Point, tuple[_Outline, int]] = {}
    _note(met, outer)
    # What is met going left lies further to the left, so it was noted before.
    for points_xy in sorted(holes, key=lambda points_xy: int(points_xy[:, 0].min())):
        start = int(np.argmin(points_xy[:, 0]))
        x, y = points_xy[start].tolist()
        outside = np.flatnonzero(~mask_HW[y, :x])
        end_x = int(outside[-1]) + 1 if outside.size else 0
        reached_from, number = met[end_x, y]
        hole = _Outline(points_xy, start)
        reached_from.holes.setdefault(number, []).append(hole)
        _note(met, hole)


def _note(met: dict[Point, tuple[_Outline, int]], outline: _Outline) -> None:
    for number, (x, y) in enumerate(outline.points_xy.tolist()):
        met.setdefault((x, y), (outline, number))


def _polygon(outline: _Outline, tolerance_px: float) -> list[Point]:
    points = _walk(outline, tolerance_px)[:-1]
    # LabelMe refuses polygons of fewer than three points, which a region of one or two pixels has.
    return (points * 3)[:3] if len(points) < 3 else points


def _walk(outline: _Outline, tolerance_px: float) -> list[Point]:
    """The points from the outline's start all around to its start again, through all that hangs on it."""
    count = len(outline.points_xy)
    points_xy = np.roll(outline.points_xy, -outline.start, axis=0)[[*range(count), 0]]
    hung = {(number - outline.start) % count: holes for number, holes in outline.holes.items()}
    path: list[Point] = [_point(points_xy[0])]
    for first, last in pairwise(sorted({0, count, *hung})):
        for hole in hung.get(first, ()):
            path += [*_walk(hole, tolerance_px), _point(points_xy[first])]
        path += [_point(point_xy) for point_xy in _simplified(points_xy[first : last + 1], tolerance_px)[1:]]
    return path


def _simplified(points_xy: NDArray[np.intp], tolerance_px: float) -> NDArray[np.intp]:
    """A piece of an outline with fewer points, its ends kept."""
    distance = np.square(points_xy - points_xy[0]).sum(axis=1)
    if distance[-1] == 0:
        # OpenCV would draw a piece that ends where it begins together to nothing, so it is halved.
        if len(points_xy) <= 3:
            return points_xy
        middle = max(1, int(np.argmax(distance)))
        halves = _simplified(points_xy[: middle + 1], tolerance_px), _simplified(points_xy[middle:], tolerance_px)
        return np.concatenate([halves[0], halves[1][1:]])
    # At a tolerance of 0 it still leaves out what lies on a straight line.
    fewer_xy: NDArray[np.intp] = cv2.approxPolyDP(points_xy.astype(np.int32), tolerance_px, closed=False)[:, 0]
    return fewer_xy


def _point(point_xy: NDArray[np.integer[Any]]) -> Point:
    x, y = point_xy.tolist()
    return x, y
