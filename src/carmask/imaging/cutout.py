"""Cut the vehicle out of a photo, by the probability of its pixels, and place it on another background."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.imaging.background import Background, BackgroundInput
from carmask.imaging.foreground import own_colors
from carmask.imaging.geometry import Size
from carmask.imaging.masks import Box, box_of, pixels_in_bands, slices

# Alpha rises from 0 to 1 within this distance of the threshold. Networks see reduced photos, so their edges are wider
# than the photo's: on Carvana this lowers the error of a composite by a quarter against alpha = probability.
_HALF_RAMP = 0.25
# The colors of the edge depend on what is around it.
EDGE_MARGIN_PX = 24
# Specks have less than the first share of the largest part's area, or outside its box less than the second one. They
# are looked for at a quarter of the photo's size.
_SPECK_SHARES, _SPECK_STEP = (1 / 300, 1 / 20), 4


@dataclass(frozen=True, eq=False)
class VehicleLayer:
    """The vehicle alone: its colors, uint8 RGB, and its opacity, float32 0..1, both of the `part` of the photo."""

    part: tuple[slice, slice]
    color_HW3: NDArray[np.uint8]
    opacity_HW: NDArray[np.float32]


def cut_out(
    image_HWC: NDArray[np.uint8],
    probability_HW: NDArray[np.float32],
    background: Background,
    *,
    crop_px: Box | None = None,
    threshold: float = 0.5,
    icc_profile: bytes | None = None,
    alpha_HW: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Cut the vehicle out of a photo: uint8 RGBA on a transparent background, RGB on any other.

    The colors of the old background are removed along the edge. Where alpha is 0 pixels are black, so that the file is
    smaller and nothing of the background can be recovered from it.

    image_HWC: uint8, RGB or gray (1 channel). probability_HW: float32 0..1, of the same height and width. crop_px: the
    part (top, left, bottom, right) of the result to return. threshold: the probability at which alpha is one half, in
    0..1, both excluded. icc_profile: of the photo, and so of the result; colors and pictures behind it are converted.
    alpha_HW: opacity of a photo that was flattened on white; no pixel of the vehicle becomes more opaque.
    """
    if image_HWC.shape[:2] != probability_HW.shape or image_HWC.shape[2:] not in ((1,), (3,)):
        raise ValueError(f"image {image_HWC.shape} and probability {probability_HW.shape} do not fit together")
    if not 0 < threshold < 1:
        raise ValueError(f"threshold {threshold}: must lie between 0 and 1, both excluded")
    image_HW3 = image_HWC if image_HWC.shape[2] == 3 else cv2.cvtColor(image_HWC, cv2.COLOR_GRAY2RGB)
    canvas_HWC = background(BackgroundInput(image_HW3, probability_HW, threshold, icc_profile))
    layer = lift_vehicle(image_HW3, probability_HW, threshold, alpha_HW)
    if layer is not None:
        canvas_HWC[layer.part] = _composite(canvas_HWC[layer.part], layer.color_HW3, layer.opacity_HW)
    return canvas_HWC if crop_px is None else np.ascontiguousarray(canvas_HWC[slices(crop_px)])


def lift_vehicle(
    image_HW3: NDArray[np.uint8],
    probability_HW: NDArray[np.float32],
    threshold: float,
    alpha_HW: NDArray[np.uint8] | None = None,
    visible_px: Box | None = None,
) -> VehicleLayer | None:
    """Return the vehicle without the colors of the background around it; None if there is none. See `cut_out`.

    visible_px: a box around all pixels that are not transparent in a cut-out, which is found if it is not given.
    """
    ramp = _half_ramp(threshold)
    visible_px = visible_px or box_of(probability_HW > threshold - ramp)
    if visible_px is None:
        return None
    part = slices(visible_px, margin_px=EDGE_MARGIN_PX, size_HW=probability_HW.shape)
    probability_HW = np.ascontiguousarray(probability_HW[part])
    color_HW3 = own_colors(np.ascontiguousarray(image_HW3[part]), probability_HW, threshold)
    opacity_HW = probability_HW - np.float32(threshold)
    # Thresholds next to 0 or 1 have almost no ramp.
    opacity_HW /= max(2 * ramp, 1e-6)
    opacity_HW += 0.5
    np.clip(opacity_HW, 0, 1, out=opacity_HW)
    if alpha_HW is not None:
        alpha_HW = np.ascontiguousarray(alpha_HW[part])
        color_HW3 = _without_white(color_HW3, alpha_HW)
        np.minimum(opacity_HW, alpha_HW.astype(np.float32) / 255, out=opacity_HW)
    return VehicleLayer(part, color_HW3, opacity_HW)


def _without_white(color_HW3: NDArray[np.uint8], alpha_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The colors that give these when they are laid on white with this opacity."""
    own_HW3 = color_HW3.copy()
    own_N3, alpha_N = own_HW3.reshape(-1, 3), alpha_HW.reshape(-1)
    for partly in pixels_in_bands(alpha_HW < 255):
        alpha_N1 = np.maximum(alpha_N[partly], 1).astype(np.float32)[:, None] / 255
        white_taken_N3 = 255 - (255 - own_N3[partly].astype(np.float32)) / alpha_N1
        own_N3[partly] = np.clip(np.rint(white_taken_N3), 0, 255)
    return own_HW3


@dataclass(frozen=True, eq=False)
class WholeVehicle:
    """A vehicle without the specks that lie apart from it.

    probability_HW: float32 0..1. box_px: around its mask, None if that is empty. visible_px: around all pixels that are
    not transparent in a cut-out, and up to three pixels wider; None if there are none.
    """

    probability_HW: NDArray[np.float32]
    box_px: Box | None
    visible_px: Box | None


def without_specks(probability_HW: NDArray[np.float32], threshold: float, box_px: Box | None) -> WholeVehicle:
    """Set the specks apart from the vehicle to 0: they would make it small on a canvas, or let it float.

    Of what is visible in a cut-out, a speck is a part with less than a 300th of the largest part's area, or a 20th if
    it lies beside, above or below that one. box_px: around the mask, with the specks. `probability_HW` is not changed.
    """
    visible_hw = _visible_in_squares(probability_HW, threshold)
    visible_px = _box_in_pixels(box_of(visible_hw), probability_HW.shape)
    # Contours are found much faster than parts are labeled, and most photos have one part.
    contours, inside = cv2.findContours(visible_hw.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if len(contours) <= 1 or np.count_nonzero(inside[0, :, 3] < 0) <= 1:
        return WholeVehicle(probability_HW, box_px, visible_px)
    _, part_hw, stats, _ = cv2.connectedComponentsWithStats(visible_hw.view(np.uint8), connectivity=8)
    left, top, wide, tall, area = stats.T
    largest = 1 + int(np.argmax(area[1:]))
    is_outside = (left + wide <= left[largest]) | (left >= left[largest] + wide[largest])
    is_outside |= (top + tall <= top[largest]) | (top >= top[largest] + tall[largest])
    is_speck = area < np.where(is_outside, _SPECK_SHARES[1], _SPECK_SHARES[0]) * area[largest]
    is_speck[0] = False
    if not is_speck.any():
        return WholeVehicle(probability_HW, box_px, visible_px)
    speck_hw = is_speck[part_hw]
    height, width = probability_HW.shape
    speck_HW = speck_hw.repeat(_SPECK_STEP, axis=0)[:height].repeat(_SPECK_STEP, axis=1)[:, :width]
    kept_HW = np.where(speck_HW, np.float32(0), probability_HW)
    visible_px = _box_in_pixels(box_of(visible_hw & ~speck_hw), kept_HW.shape)
    return WholeVehicle(kept_HW, box_of(kept_HW >= threshold), visible_px)


def _visible_in_squares(probability_HW: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Whether a cut-out shows any pixel of each square of four by four; those at the right and lower border are cut."""
    height, width = probability_HW.shape
    visible_HW = np.zeros((height + -height % _SPECK_STEP, width + -width % _SPECK_STEP), dtype=np.bool_)
    np.greater(probability_HW, threshold - _half_ramp(threshold), out=visible_HW[:height, :width])
    # Four pixels of a row at once.
    rows_HW = visible_HW.view(np.uint32).reshape(-1, _SPECK_STEP, visible_HW.shape[1] // _SPECK_STEP)
    squares_hw: NDArray[np.bool_] = np.bitwise_or.reduce(rows_HW, axis=1) != 0
    return squares_hw


def _box_in_pixels(box_hw: Box | None, size_HW: Size) -> Box | None:
    """The box, found among squares of four by four pixels, in pixels."""
    if box_hw is None:
        return None
    top, left, bottom, right = (_SPECK_STEP * edge for edge in box_hw)
    return top, left, min(bottom, size_HW[0]), min(right, size_HW[1])


def _half_ramp(threshold: float) -> float:
    return min(_HALF_RAMP, threshold, 1 - threshold)


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
