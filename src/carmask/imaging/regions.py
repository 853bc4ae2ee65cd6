"""Regions of a mask: the box around it, and which of its connected parts are kept."""

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.imaging.geometry import Size

# Top, left, bottom, right in pixels, bottom and right exclusive.
Box = tuple[int, int, int, int]

_FRINGE_PX = 64


def box_of(mask_HW: NDArray[np.bool_]) -> Box | None:
    """The smallest box that holds a bool mask (height, width), or None where the mask is empty."""
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask_HW).view(np.uint8))
    return (top, left, top + height, left + width) if width else None


def slices(box_px: Box, *, margin_px: int = 0, size_HW: Size | None = None) -> tuple[slice, slice]:
    """Rows and columns of a box; with a margin around it as far as the picture of `size_HW` reaches."""
    top, left, bottom, right = box_px
    height, width = size_HW if size_HW is not None else (bottom, right)
    return (
        slice(max(0, top - margin_px), min(height, bottom + margin_px)),
        slice(max(0, left - margin_px), min(width, right + margin_px)),
    )


def keep_regions(
    probability_HW: NDArray[np.float32], threshold: float, *, largest_only: bool = False, min_area_px: float = 0
) -> NDArray[np.float32]:
    """Set to 0 the regions of a probability (float32 0..1) that are not wanted, with their soft fringes.

    Pixels from `threshold` on that touch, also at corners, are one region. With `largest_only` all but the largest go
    (of several as large, the topmost stays), and those of fewer than `min_area_px` pixels go in any case. A pixel below
    the threshold belongs to the region nearest to it, and goes with it; what is farther than 64 px outside the box
    around all regions belongs to none, and stays. With no region left all is 0.

    Returns `probability_HW` itself where nothing has to go, otherwise a new array.
    """
    mask_HW = probability_HW >= threshold
    box_px = box_of(mask_HW)
    if box_px is None:
        return probability_HW
    part = slices(box_px, margin_px=_FRINGE_PX, size_HW=probability_HW.shape)
    mask_hw = np.ascontiguousarray(mask_HW[part])
    count, region_hw, stats, _ = cv2.connectedComponentsWithStats(mask_hw.view(np.uint8), connectivity=8)
    area_px = stats[1:, cv2.CC_STAT_AREA]
    kept = area_px >= min_area_px
    if largest_only:
        kept &= np.arange(count - 1) == np.argmax(area_px)
    if kept.all():
        return probability_HW
    if not kept.any():
        return np.zeros_like(probability_HW)
    # Each pixel is given the number of the mask's pixel nearest to it, and by that one's region it stays or goes.
    _, nearest_hw = cv2.distanceTransformWithLabels(
        (~mask_hw).view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    core = np.flatnonzero(mask_hw)
    stays = np.zeros(core.size + 1, dtype=np.bool_)
    stays[nearest_hw.reshape(-1)[core]] = kept[region_hw.reshape(-1)[core] - 1]
    kept_HW = probability_HW.copy()
    kept_HW[part] *= stays[nearest_hw]
    return kept_HW
