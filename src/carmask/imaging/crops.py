"""Crops along the outline of a mask, in which a second network refines it at the photo's full size.

The outline is covered with square cells. Each is cut out with a margin as context, and with the first network's
probability as a fourth channel; the refined probability replaces that of the cell. Only a few percent of a photo lie
near an outline, so this costs a fraction of a network for the whole photo (Kirillov et al., "PointRend: Image
Segmentation as Rendering", CVPR 2020, chooses single points in the same way).

All sizes and positions are in pixels of the photo, reduced to `LONGEST_PX` if it is larger.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.imaging.geometry import Size

Cell = tuple[int, int]  # top and left

# Larger photos are refined at this length of their longer side, and their masks enlarged.
LONGEST_PX = 2048

# A cell is refined if the outline passes it, or is this near: so far the first network is often off.
_REACH_PX = 4

# Margin on each side of a cell, as a share of the crop.
_MARGIN = 8


def refined_size(photo_HW: Size) -> Size:
    """Return the height and width at which a photo is refined."""
    scale = min(1.0, LONGEST_PX / max(photo_HW))
    height, width = (max(1, round(side * scale)) for side in photo_HW)
    return height, width


def outline_cells(probability_HW: NDArray[np.float32], crop_px: int) -> list[Cell]:
    """Return cells that cover the outline of the mask; none overlap, and few are needed.

    The photo is divided into columns as wide as a cell, from where the outline begins. In each, a cell is laid over the
    topmost part of the outline that is not covered yet, with the part in its middle if there is room.

    Args:
        probability_HW: Float32 0..1; the mask begins at 0.5.
        crop_px: Side of a crop, a multiple of 8; that of a cell is 3/4 of it. The last cells may end beyond the photo.
    """
    cell_px = crop_px - 2 * (crop_px // _MARGIN)
    mask_HW = (probability_HW >= 0.5).view(np.uint8)
    kernel = np.ones((2 * _REACH_PX + 1,) * 2, np.uint8)
    is_near_HW = cv2.dilate(mask_HW, kernel) - cv2.erode(mask_HW, kernel)
    is_near_WH = cv2.transpose(is_near_HW)
    return [
        (top, left)
        for left in _starts(_any_row(is_near_HW), cell_px)
        for top in _starts(_any_row(is_near_WH[left : left + cell_px]), cell_px, centered=True)
    ]


def _any_row(is_true_HW: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the columns with a true pixel in any row."""
    return np.flatnonzero(cv2.reduce(is_true_HW, 0, cv2.REDUCE_MAX))


def _starts(places: NDArray[np.intp], length_px: int, *, centered: bool = False) -> list[int]:
    """Return starts of intervals of this length that do not overlap and cover these ascending places."""
    starts: list[int] = []
    end = 0
    while (first_index := int(np.searchsorted(places, end))) < len(places):
        start = first = int(places[first_index])
        if centered:
            last = int(places[np.searchsorted(places, first + length_px) - 1])
            start = max(end, (first + last + 1 - length_px) // 2)
        starts.append(start)
        end = start + length_px
    return starts


def cut_crops(pixels_HWC: NDArray[Any], cells: Sequence[Cell], crop_px: int) -> NDArray[Any]:
    """Cut cells with their margins out of a picture of H x W or H x W x C: N x crop x crop, with C channels if it has.

    Beyond the picture its edge repeats.
    """
    sides = pixels_HWC.shape[:2]
    crops = np.empty((len(cells), crop_px, crop_px, *pixels_HWC.shape[2:]), pixels_HWC.dtype)
    for crop, cell in zip(crops, cells, strict=True):
        starts = [start - crop_px // _MARGIN for start in cell]
        inside = pixels_HWC[tuple(slice(max(0, start), start + crop_px) for start in starts)]
        if inside.shape != crop.shape:
            beyond = [
                (max(0, -start), max(0, start + crop_px - side)) for start, side in zip(starts, sides, strict=True)
            ]
            inside = np.pad(inside, [*beyond, *[(0, 0)] * (crop.ndim - 2)], "edge")
        crop[:] = inside
    return crops


def cut_inputs(
    image_HWC: NDArray[np.uint8], probability_HW: NDArray[np.float32], cells: Sequence[Cell], crop_px: int
) -> NDArray[np.uint8]:
    """Cut what a refiner sees: N x crop x crop x 4, RGB and the probability (float32 0..1) times 255, all uint8."""
    alpha_HW = cv2.convertScaleAbs(probability_HW, alpha=255.0)
    return np.concatenate([cut_crops(one, cells, crop_px) for one in (image_HWC, alpha_HW[..., None])], axis=-1)


def paste_crops(
    probability_HW: NDArray[np.float32], cells: Sequence[Cell], refined: Iterable[NDArray[np.float32]], crop_px: int
) -> NDArray[np.float32]:
    """Return a copy of the probability with that of all cells replaced; refined: float32 crop x crop, of each cell."""
    result_HW = probability_HW.copy()
    margin_px = crop_px // _MARGIN
    for (top, left), crop_HW in zip(cells, refined, strict=True):
        cell_HW = crop_HW[margin_px:-margin_px, margin_px:-margin_px]
        target_HW = result_HW[top : top + cell_HW.shape[0], left : left + cell_HW.shape[1]]
        target_HW[:] = cell_HW[: target_HW.shape[0], : target_HW.shape[1]]
    return result_HW
