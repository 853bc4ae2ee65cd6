"""Outlines of a mask as polygons with holes, and as GeoJSON.

Coordinates are in pixels, x to the right and y down. Pixels are areas: a photo's top left corner is (0, 0), the center
of its first pixel (0.5, 0.5), its bottom right corner (width, height). Outlines run between the mask's pixels and
others and cut corners by half a pixel, so that no two of them touch. A pixel is in the mask if its center is inside:
filled in this way, outlines that are not simplified give exactly the mask.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.imaging.geometry import Size
from carmask.imaging.masks import box_of, require_mask

# Simplified this much, the outlines of Carvana's masks keep a Dice of 0.9998 (0.9994 at a quarter of their size) and
# half of their points: 10 KB of JSON.
DEFAULT_TOLERANCE_PX = 0.5

# No picture is this large.
_FARTHEST_PX = 1e7
# A hundred outlines of a car, each through every row of pixels of a large photo, stay below.
_MOST_CROSSINGS = 20_000_000

# Of a ring's points. Fewer make more blocks to choose from, more make each slower to look through.
_MOST_IN_BLOCK = 1000

# The steps to a pixel's eight neighbors, counterclockwise as seen: right, right and up, up, ... And their numbers in
# this list, by the step down and the step to the right, each plus 1.
_NEIGHBORS_XY = np.array([(1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1)])
_NEIGHBOR_NUMBER = np.array([(3, 2, 1), (4, 0, 0), (5, 6, 7)])
_UP = 2


class OutlineError(CarmaskError):
    """An outline that cannot be filled."""


# One region of a mask: its exterior, then its holes. Each ring is float64 (points, 2), x and y in pixels; its first
# point is not repeated. The exterior has a positive signed area (it looks clockwise, since y points down), holes have a
# negative one.
Polygon = list[NDArray[np.float64]]


def find_polygons(mask_HW: NDArray[np.bool_], *, tolerance_px: float = DEFAULT_TOLERANCE_PX) -> list[Polygon]:
    """Outlines of a bool mask (height, width), one polygon for each region. Pixels that touch at a corner connect.

    tolerance_px: how far a simplified outline may lie from the exact one (Douglas and Peucker, 1973); 0 keeps it exact.
    OpenCV then leaves out points that lie almost on a line, so some parts are up to 1.7 times as far.
    """
    require_mask(mask_HW)
    if tolerance_px < 0:
        raise ValueError(f"a tolerance must not be negative, and {tolerance_px} px is")
    box_px = box_of(mask_HW)
    if box_px is None:
        return []
    top, left, bottom, right = box_px
    inner_HW = np.pad(mask_HW[top:bottom, left:right], 1)
    _, region_HW = cv2.connectedComponents(inner_HW.view(np.uint8), connectivity=8)
    polygons: dict[int, Polygon] = {}
    for exterior_xy, holes_xy in trace_outlines(inner_HW):
        holes = sorted(map(_between_pixels, holes_xy), key=lambda ring_xy: (ring_xy[0, 1], ring_xy[0, 0]))
        x, y = exterior_xy[0]
        polygons[int(region_HW[y, x])] = [
            _simplified(ring_xy, tolerance_px) + np.array([left - 1, top - 1])
            for ring_xy in (_between_pixels(exterior_xy), *holes)
        ]
    return [polygons[region] for region in sorted(polygons)]


def trace_outlines(mask_HW: NDArray[np.bool_]) -> list[tuple[NDArray[np.intp], list[NDArray[np.intp]]]]:
    """The outer outline of each region of a mask, with the outlines of its holes, as OpenCV traces them.

    An outline is the border pixels (points, 2), x and y, in the order of a walk with the mask on the left. Regions
    connect at corners.
    """
    contours, hierarchy = cv2.findContours(
        np.ascontiguousarray(mask_HW).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    outlines_xy = [contour[:, 0].astype(np.intp) for contour in contours]
    parents = hierarchy[0, :, 3].tolist() if outlines_xy else []
    holes_of: dict[int, list[NDArray[np.intp]]] = {index: [] for index, parent in enumerate(parents) if parent == -1}
    for outline_xy, parent in zip(outlines_xy, parents, strict=True):
        if parent != -1:
            holes_of[parent].append(outline_xy)
    return [(outlines_xy[index], holes_xy) for index, holes_xy in holes_of.items()]


def fill_rings(rings_xy: Sequence[NDArray[np.float64]], mask_HW: NDArray[np.bool_]) -> None:
    """Add to a bool mask the pixels whose centers lie inside an odd number of these rings (points, 2), x and y.

    The rings may reach out of the picture.

    Raises:
        OutlineError: a coordinate is no finite number, or the outline is too intricate to be one of an object.
    """
    ends_xy = np.concatenate([np.roll(ring_xy, -1, axis=0) for ring_xy in rings_xy])
    starts_xy = np.concatenate(rings_xy)
    if not np.isfinite(starts_xy).all() or np.abs(starts_xy).max(initial=0) > _FARTHEST_PX:
        raise OutlineError(f"an outline has a coordinate that is not a number up to {_FARTHEST_PX:.0g}")
    height, width = mask_HW.shape
    # The rows whose centers an edge passes, from `first` up to, but not including `last`.
    y = np.stack([starts_xy[:, 1], ends_xy[:, 1]])
    first, last = (np.clip(np.ceil(side - 0.5), 0, height).astype(np.intp) for side in (y.min(axis=0), y.max(axis=0)))
    passed = last - first
    total = int(passed.sum())
    if total > _MOST_CROSSINGS:
        raise OutlineError(f"an outline crosses rows of pixels {total} times, too often for an object")
    if not total:
        return
    edge = np.repeat(np.arange(len(passed)), passed)
    row = np.arange(total) - np.repeat(np.cumsum(passed) - passed, passed) + first[edge]
    (x, y0), step_xy = starts_xy[edge].T, (ends_xy - starts_xy)[edge]
    crossing_x = x + (row + 0.5 - y0) * step_xy[:, 0] / step_xy[:, 1]
    # The first pixel of the row whose center is not left of the crossing.
    column = np.clip(np.ceil(crossing_x - 0.5), 0, width).astype(np.intp)
    top, left = int(row.min()), int(column.min())
    rows, columns = int(row.max()) + 1 - top, int(column.max()) + 1 - left
    crossings = np.zeros((rows, columns), np.uint8)
    # Counts beyond 255 begin at 0 again, which keeps them even or odd.
    np.add.at(crossings.reshape(-1), (row - top) * columns + column - left, np.uint8(1))
    inside_HW = np.bitwise_xor.accumulate(crossings & 1, axis=1)[:, : width - left]
    mask_HW[top : top + rows, left : left + columns] |= inside_HW.view(np.bool_)


def joined(polygon: Polygon) -> NDArray[np.float64]:
    """One ring for a polygon with holes, for formats without them: a line leads to each hole and back.

    By the rule of `fill_rings` a line without width changes nothing. A line starts from the nearest point of the ring
    with the holes before, of several as near from the first.
    """
    exterior_xy, *holes = polygon
    ring = _GrowingRing(exterior_xy)
    for hole_xy in holes:
        ring.insert_hole(hole_xy)
    return ring.points_xy


class _GrowingRing:
    """A ring into which holes are inserted, in blocks of consecutive points with bounding boxes.

    The boxes rule out nearly all blocks when the nearest point is searched for: masks of noise have tens of thousands
    of holes.
    """

    def __init__(self, ring_xy: NDArray[np.float64]) -> None:
        self._blocks = _in_blocks(ring_xy)
        self._low_xy, self._high_xy = _bounds(self._blocks)

    @property
    def points_xy(self) -> NDArray[np.float64]:
        return np.concatenate(self._blocks)

    def insert_hole(self, hole_xy: NDArray[np.float64]) -> None:
        """Insert a line from the nearest point to the hole's first point, the hole, and the way back."""
        block, at = self._nearest(hole_xy[0])
        ring_xy = self._blocks[block]
        parts = _in_blocks(np.concatenate([ring_xy[: at + 1], hole_xy, hole_xy[:1], ring_xy[at:]]))
        self._blocks[block : block + 1] = parts
        low_xy, high_xy = _bounds(parts)
        if len(parts) == 1:
            self._low_xy[block], self._high_xy[block] = low_xy[0], high_xy[0]
        else:
            self._low_xy = np.concatenate([self._low_xy[:block], low_xy, self._low_xy[block + 1 :]])
            self._high_xy = np.concatenate([self._high_xy[:block], high_xy, self._high_xy[block + 1 :]])

    def _nearest(self, xy: NDArray[np.float64]) -> tuple[int, int]:
        """The block of the nearest point, and its index there; of several as near the first."""
        # No point of a block is nearer than its box.
        bound = np.square(np.clip(xy, self._low_xy, self._high_xy) - xy).sum(axis=1)
        nearest = np.inf, -1, -1
        for block in np.argsort(bound).tolist():
            if bound[block] > nearest[0]:
                break
            distance = np.square(self._blocks[block] - xy).sum(axis=1)
            at = int(distance.argmin())
            nearest = min(nearest, (float(distance[at]), block, at))
        return nearest[1:]


def _in_blocks(points_xy: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Split consecutive points, unless they are few enough for one block."""
    if len(points_xy) <= _MOST_IN_BLOCK:
        return [points_xy]
    return np.array_split(points_xy, 2 * len(points_xy) // _MOST_IN_BLOCK)


def _bounds(blocks: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lowest and the highest x and y of each block, two arrays (blocks, 2)."""
    low_xy, high_xy = (np.stack([limit(block, axis=0) for block in blocks]) for limit in (np.min, np.max))
    return low_xy, high_xy


def geojson(polygons: Sequence[Polygon], size_HW: Size, photo: str) -> dict[str, Any]:
    """The polygons of one photo as a GeoJSON FeatureCollection of one MultiPolygon, in pixels instead of degrees.

    Its properties are the photo's name, `height_px`, `width_px` and the `coverage` 0..1 by the polygons. As RFC 7946
    says, rings end where they begin, exteriors have a positive and holes a negative signed area. Without a vehicle the
    MultiPolygon is empty.
    """
    height, width = size_HW
    area_px = sum(signed_area(ring) for polygon in polygons for ring in polygon)
    coordinates = [[_closed(ring) for ring in polygon] for polygon in polygons]
    feature = {
        "type": "Feature",
        "properties": {
            "photo": photo,
            "height_px": height,
            "width_px": width,
            "coverage": area_px / (height * width),
        },
        "geometry": {"type": "MultiPolygon", "coordinates": coordinates},
    }
    return {"type": "FeatureCollection", "features": [feature]}


def signed_area(ring_xy: NDArray[np.float64]) -> float:
    """Area of a ring (points, 2), positive where it turns from x toward y; by the shoelace formula."""
    x, y = ring_xy.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _closed(ring_xy: NDArray[np.float64]) -> list[list[float]]:
    points: list[list[float]] = ring_xy.tolist()
    return [*points, points[0]]


def _between_pixels(outline_xy: NDArray[np.intp]) -> NDArray[np.float64]:
    """Turn an outline through border pixels into a ring through the middles of the edges between them and the outside.

    On the way from the previous to the next pixel of the outline, counterclockwise around a pixel, all neighbors are
    outside the mask. Those that share an edge with the pixel give a point each. The ring has the mask on the right, and
    begins at the first edge, row by row, that has the mask below it.
    """
    steps_xy = np.roll(outline_xy, -1, axis=0) - outline_xy
    after = _NEIGHBOR_NUMBER[steps_xy[:, 1] + 1, steps_xy[:, 0] + 1]
    before = np.roll(after + 4, 1) % 8
    # One to eight eighths of a turn; a lone pixel is walked around and has its first neighbor twice.
    turn = (after - before - 1) % 8 + 1 if len(outline_xy) > 1 else np.array([9])
    eighths = np.arange(1, 9)
    neighbor = (before[:, None] + eighths) % 8
    index, eighth = np.nonzero((eighths < turn[:, None]) & (neighbor % 2 == 0))
    pixel_xy, neighbor = outline_xy[index][::-1], neighbor[index, eighth][::-1]
    has_mask_below = np.flatnonzero(neighbor == _UP)
    first = has_mask_below[np.lexsort(pixel_xy[has_mask_below].T)[0]]
    return np.roll(pixel_xy + 0.5 + _NEIGHBORS_XY[neighbor] / 2, -first, axis=0)


def _simplified(ring_xy: NDArray[np.float64], tolerance_px: float) -> NDArray[np.float64]:
    before, after = ring_xy - np.roll(ring_xy, 1, axis=0), np.roll(ring_xy, -1, axis=0) - ring_xy
    corners_xy: NDArray[np.float64] = ring_xy[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    if tolerance_px == 0:
        return corners_xy
    fewer_xy: NDArray[np.float64] = cv2.approxPolyDP(corners_xy.astype(np.float32), tolerance_px, closed=True)[
        :, 0
    ].astype(np.float64)
    # A ring no larger than the tolerance would collapse into a line and be lost.
    return fewer_xy if len(fewer_xy) > 2 else corners_xy
