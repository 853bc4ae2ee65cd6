"""Cut the vehicle out of a photo, by the probability of its pixels, and place it on another background."""

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.imaging.background import Background
from carmask.imaging.foreground import own_colors
from carmask.imaging.masks import Box, box_of, slices

# Alpha rises from 0 to 1 within this distance of the threshold. Networks see reduced photos, so their edges are wider
# than the photo's: on Carvana this lowers the error of a composite by a quarter against alpha = probability.
_HALF_RAMP = 0.25
# The colors of the edge depend on what is around it.
_MARGIN_PX = 24


def cut_out(
    image_HWC: NDArray[np.uint8],
    probability_HW: NDArray[np.float32],
    background: Background,
    *,
    crop_px: Box | None = None,
    threshold: float = 0.5,
) -> NDArray[np.uint8]:
    """Cut the vehicle out of a photo: uint8 RGBA on a transparent background, RGB on any other.

    The colors of the old background are removed along the edge. Where alpha is 0 pixels are black, so that the file is
    smaller and nothing of the background can be recovered from it.

    image_HWC: uint8, RGB or gray (1 channel). probability_HW: float32 0..1, of the same height and width. crop_px: the
    part (top, left, bottom, right) of the result to return. threshold: the probability at which alpha is one half, in
    0..1, both excluded.
    """
    if image_HWC.shape[:2] != probability_HW.shape or image_HWC.shape[2:] not in ((1,), (3,)):
        raise ValueError(f"image {image_HWC.shape} and probability {probability_HW.shape} do not fit together")
    if not 0 < threshold < 1:
        raise ValueError(f"threshold {threshold}: must lie between 0 and 1, both excluded")
    image_HW3 = image_HWC if image_HWC.shape[2] == 3 else cv2.cvtColor(image_HWC, cv2.COLOR_GRAY2RGB)
    canvas_HWC = background(image_HW3, probability_HW, threshold)
    ramp = min(_HALF_RAMP, threshold, 1 - threshold)
    box_px = box_of(probability_HW > threshold - ramp)
    if box_px is not None:
        part = slices(box_px, margin_px=_MARGIN_PX, size_HW=probability_HW.shape)
        alpha_HW = np.clip((probability_HW[part] - threshold) / (2 * ramp) + 0.5, 0, 1)
        color_HW3 = own_colors(np.ascontiguousarray(image_HW3[part]), probability_HW[part], threshold)
        canvas_HWC[part] = _composite(canvas_HWC[part], color_HW3, alpha_HW)
    return canvas_HWC if crop_px is None else np.ascontiguousarray(canvas_HWC[slices(crop_px)])


def _composite(
    canvas_HWC: NDArray[np.uint8], color_HW3: NDArray[np.uint8], alpha_HW: NDArray[np.float32]
) -> NDArray[np.uint8]:
    composite_HWC: NDArray[np.uint8]
    if canvas_HWC.shape[2] == 3:
        composite_HWC = cv2.blendLinear(color_HW3, np.ascontiguousarray(canvas_HWC), alpha_HW, 1 - alpha_HW)
        return composite_HWC
    level_HW = cv2.convertScaleAbs(alpha_HW, alpha=255)
    color_HW4 = cv2.insertChannel(level_HW, cv2.cvtColor(color_HW3, cv2.COLOR_RGB2RGBA), 3)
    composite_HWC = cv2.bitwise_and(color_HW4, color_HW4, mask=level_HW)
    return composite_HWC
