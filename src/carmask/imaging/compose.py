"""Compose a picture as a look says: the vehicle at its place on a canvas, with a background and a shadow."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.imaging.background import Background, BackgroundInput
from carmask.imaging.cutout import cut_out, without_specks
from carmask.imaging.decode import Photo
from carmask.imaging.geometry import Size
from carmask.imaging.look import Look
from carmask.imaging.masks import Box, box_of
from carmask.imaging.placed_layer import (
    CanvasPlacement,
    PlacedLayer,
    lift_to_canvas,
    partly_opaque,
    place_vehicle,
    times_level,
)
from carmask.imaging.shadow import SHADOW_STEP, drawn_shadow, photo_shadow

_NOTHING = (slice(0, 0), slice(0, 0)), np.zeros((0, 0), dtype=np.uint8)


def compose(
    photo: Photo,
    probability_HW: NDArray[np.float32],
    box_px: Box | None,
    look: Look,
    background: Background,
    *,
    threshold: float = 0.5,
    extent_HW: Size | None = None,
) -> NDArray[np.uint8]:
    """Cut the vehicle out of a photo and compose it as a look says: uint8 RGBA on a transparent background, else RGB.

    photo: at its full size, RGB. probability_HW: float32 0..1, of the photo's size. box_px: around the mask, None if
    it is empty. background: the one that the look names. threshold, see `cut_out`; extent_HW, see `place_vehicle`.
    """
    if look.canvas_HW is None and look.shadow == "none":
        return cut_out(
            photo.image_HWC,
            probability_HW,
            background,
            crop_px=box_px if look.crop else None,
            threshold=threshold,
            icc_profile=photo.icc_profile,
            alpha_HW=photo.alpha_HW,
        )
    vehicle = without_specks(probability_HW, threshold, box_px)
    probability_HW, box_px = vehicle.probability_HW, vehicle.box_px
    place = place_vehicle(box_px, photo.size_HW, look, extent_HW)
    given = BackgroundInput(
        photo.image_HWC,
        probability_HW,
        threshold,
        photo.icc_profile,
        canvas_HW=place.size_HW if look.canvas_HW is not None else None,
        floor=place.floor,
    )
    canvas_HWC = background(given)
    layer = lift_to_canvas(photo, vehicle, threshold, place)
    if layer is None or box_px is None:
        return canvas_HWC
    if look.shadow == "original":
        darkness_HW = photo_shadow(photo.image_HWC, probability_HW, box_px, threshold)
        _darken(canvas_HWC, *_placed_levels(darkness_HW, place))
    elif look.shadow != "none":
        _darken(canvas_HWC, *drawn_shadow(layer.level_HW, layer.part, place.size_HW, wide=look.shadow == "soft"))
    _lay(canvas_HWC, layer)
    if not look.crop:
        return canvas_HWC
    return np.ascontiguousarray(canvas_HWC[box_px[0] : box_px[2], box_px[1] : box_px[3]])


def _placed_levels(
    level_hw: NDArray[np.uint8], place: CanvasPlacement
) -> tuple[tuple[slice, slice], NDArray[np.uint8]]:
    """Where on the canvas soft levels (uint8) of the whole photo are, at a quarter of its size, and these there."""
    # Pixels are areas: their centers are half a pixel in.
    scale = place.scale * SHADOW_STEP
    box_px = box_of(level_hw > 0)
    if box_px is None:
        return _NOTHING
    spans = [
        slice(
            max(0, math.floor(scale * (box_px[axis] - 1) + offset)),
            min(place.size_HW[axis], math.ceil(scale * (box_px[axis + 2] + 1) + offset)),
        )
        for axis, offset in ((0, place.top), (1, place.left))
    ]
    rows, columns = spans
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return _NOTHING
    left, top = place.left - columns.start, place.top - rows.start
    matrix = np.array([[scale, 0, left + scale / 2 - 0.5], [0, scale, top + scale / 2 - 0.5]])
    size_WH = (columns.stop - columns.start, rows.stop - rows.start)
    return (rows, columns), cv2.warpAffine(level_hw, matrix, size_WH, flags=cv2.INTER_LINEAR)


def _darken(canvas_HWC: NDArray[np.uint8], part: tuple[slice, slice], darkness_HW: NDArray[np.uint8]) -> None:
    """Darken a part of a canvas; on a transparent one, lay black on it."""
    if not darkness_HW.size:
        return
    if canvas_HWC.shape[2] == 4:
        canvas_HWC[part][..., 3] = darkness_HW
        return
    light_HW3 = cv2.cvtColor(cv2.bitwise_not(darkness_HW), cv2.COLOR_GRAY2RGB)
    canvas_HWC[part] = cv2.multiply(canvas_HWC[part], light_HW3, scale=1 / 255)


def _lay(canvas_HWC: NDArray[np.uint8], layer: PlacedLayer) -> None:
    """Lay a vehicle onto a canvas."""
    color_HW3, level_HW = layer.color_HW3, layer.level_HW
    below_HWC = canvas_HWC[layer.part]
    if canvas_HWC.shape[2] == 3:
        for partly in partly_opaque(level_HW):
            row, column = np.divmod(partly, level_HW.shape[1])
            rest_N3 = times_level(below_HWC[row, column], 255 - np.take(level_HW, partly))
            below_HWC[row, column] = np.minimum(rest_N3 + np.take(color_HW3.reshape(-1, 3), partly, axis=0), 255)
        cv2.copyTo(color_HW3, cv2.inRange(level_HW, 255, 255), below_HWC)
        return
    # What is below is black or nothing, so only its opacity counts.
    opacity_HW = cv2.add(level_HW, cv2.multiply(np.ascontiguousarray(below_HWC[..., 3]), 255 - level_HW, scale=1 / 255))
    color_HW3 = cv2.divide(color_HW3, cv2.cvtColor(np.maximum(opacity_HW, 1), cv2.COLOR_GRAY2RGB), scale=255)
    canvas_HWC[layer.part] = cv2.insertChannel(opacity_HW, cv2.cvtColor(color_HW3, cv2.COLOR_RGB2RGBA), 3)
