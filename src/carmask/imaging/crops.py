"""Crops along the outline of a mask, in which a second network refines it at the photo's full size.

A photo is divided into square cells. Cells that the outline passes are cut out, each with a margin as context, with the
first network's probability as a fourth channel; the refined probability replaces that of the cell. Only a few percent
of a photo lie near an outline, so this costs a fraction of a network for the whole photo (Kirillov et al., "PointRend:
Image Segmentation as Rendering", CVPR 2020, chooses single points in the same way).

All sizes and positions are in pixels of the photo, reduced to `LONGEST_PX` if it is larger.
"""

from collections.abc import Iterable, Sequence

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


def outline_cells(probability_HW: NDArray[np.float32], crop_px: int, offset_HW: Size = (0, 0)) -> list[Cell]:
    """Return the cells that the outline of the mask passes, row by row; all are whole cells of one grid.

    Args:
        probability_HW: Float32 0..1; the mask begins at 0.5.
        crop_px: Side of a crop, a multiple of 8; that of a cell is 3/4 of it.
        offset_HW: Where the first cell of the grid begins. The last ones may end beyond the photo.

    """
    cell_px = crop_px - 2 * (crop_px // _MARGIN)
    mask_HW = (probability_HW[offset_HW[0] :, offset_HW[1] :] >= 0.5).view(np.uint8)
    kernel = np.ones((2 * _REACH_PX + 1,) * 2, np.uint8)
    is_near_HW = cv2.dilate(mask_HW, kernel) != cv2.erode(mask_HW, kernel)
    rows, columns = (-(-side // cell_px) for side in mask_HW.shape)
    padded_HW = np.zeros((rows * cell_px, columns * cell_px), np.bool_)
    padded_HW[: mask_HW.shape[0], : mask_HW.shape[1]] = is_near_HW
    is_chosen = padded_HW.reshape(rows, cell_px, columns, cell_px).any(axis=(1, 3))
    top, left = offset_HW
    return [(top + row * cell_px, left + column * cell_px) for row, column in np.argwhere(is_chosen).tolist()]


def with_probability(image_HWC: NDArray[np.uint8], probability_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a photo (uint8 RGB) with the probability (float32 0..1, of the same size) times 255 as fourth channel."""
    return np.dstack((image_HWC, cv2.convertScaleAbs(probability_HW, alpha=255.0)))


def cut_crops(pixels_HWC: NDArray[np.uint8], cells: Sequence[Cell], crop_px: int) -> NDArray[np.uint8]:
    """Cut cells with their margins out of a picture: uint8 N x crop x crop x C. Beyond the picture its edge repeats."""
    margin_px = crop_px // _MARGIN
    sides_px = margin_px, crop_px, margin_px, crop_px
    padded_HWC = np.atleast_3d(cv2.copyMakeBorder(pixels_HWC, *sides_px, cv2.BORDER_REPLICATE))
    crops = [padded_HWC[top : top + crop_px, left : left + crop_px] for top, left in cells]
    return np.stack(crops) if crops else np.empty((0, crop_px, crop_px, padded_HWC.shape[2]), np.uint8)


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
