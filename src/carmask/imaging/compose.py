"""Compose a picture as a look says: the vehicle at its place on a canvas, with a background and a shadow."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carmask.imaging.cutout import Background, VehicleLayer, cut_out, lift_vehicle
from carmask.imaging.decode import Photo
from carmask.imaging.geometry import Size
from carmask.imaging.look import Look
from carmask.imaging.masks import Box
from carmask.imaging.shadow import SHADOW_STEP, drawn_shadow, photo_shadow


@dataclass(frozen=True)
class CanvasPlacement:
    """Where a photo is on a canvas: a point (x, y) of it at (scale x + left, scale y + top), pixels being areas.

    floor: where the vehicle stands, as a share 0..1 of the canvas's height.
    """

    size_HW: Size
    scale: float
    top: float
    left: float
    floor: float


def place_vehicle(box_px: Box | None, size_HW: Size, look: Look, extent_HW: Size | None = None) -> CanvasPlacement:
    """Place the box around a vehicle as a look says.

    Args:
        box_px: Around the vehicle in the photo; None if there is none.
        size_HW: Of the photo.
        look: With a canvas, or without one, and then the photo stays where it is.
        extent_HW: The largest height and the largest width of the boxes that are to have one scale; those of `box_px`
            if not given.

    """
    top, left, bottom, right = box_px or (0, 0, *size_HW)
    if look.canvas_HW is None:
        return CanvasPlacement(size_HW, 1.0, 0.0, 0.0, bottom / size_HW[0])
    height, width = look.canvas_HW
    margin_px = look.margin_px
    base = height - margin_px if look.floor is None else look.floor * height
    tall, wide = extent_HW or (bottom - top, right - left)
    scale = min((base - margin_px) / tall, (width - 2 * margin_px) / wide)
    if look.floor is None and look.anchor == "center":
        base = (height + scale * (bottom - top)) / 2
    top_px, left_px = base - scale * bottom, (width - scale * (left + right)) / 2
    return CanvasPlacement(look.canvas_HW, scale, top_px, left_px, base / height)


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
    place = place_vehicle(box_px, photo.size_HW, look, extent_HW)
    size_HW = place.size_HW if look.canvas_HW is not None else None
    canvas_HWC = background(
        photo.image_HWC, probability_HW, threshold, photo.icc_profile, size_HW=size_HW, floor=place.floor
    )
    layer = lift_vehicle(photo.image_HWC, probability_HW, threshold, photo.alpha_HW)
    if layer is None or box_px is None:
        return canvas_HWC
    part, color_HW4 = _placed(layer, place)
    if look.shadow == "original":
        darkness_HW = photo_shadow(photo.image_HWC, probability_HW, box_px, threshold)
        darkness_HW = _placed_levels(darkness_HW, place)
        canvas_HWC = _darken(canvas_HWC, (slice(None), slice(None)), darkness_HW)
    elif look.shadow != "none":
        rows_columns, darkness_HW = drawn_shadow(color_HW4[..., 3], part, place.size_HW, wide=look.shadow == "soft")
        canvas_HWC = _darken(canvas_HWC, rows_columns, darkness_HW)
    _lay(canvas_HWC, part, color_HW4)
    if not look.crop:
        return canvas_HWC
    return np.ascontiguousarray(canvas_HWC[box_px[0] : box_px[2], box_px[1] : box_px[3]])


def _placed(layer: VehicleLayer, place: CanvasPlacement) -> tuple[tuple[slice, slice], NDArray[np.uint8]]:
    """The part of the canvas that the vehicle covers, and its pixels there: RGBA, colors multiplied by opacity."""
    level_HW = cv2.convertScaleAbs(layer.opacity_HW, alpha=255)
    color_HW3 = cv2.multiply(layer.color_HW3, cv2.merge([level_HW] * 3), scale=1 / 255)
    layer_HW4 = cv2.insertChannel(level_HW, cv2.cvtColor(color_HW3, cv2.COLOR_RGB2RGBA), 3)
    if place.scale == 1 and not place.top and not place.left:
        return layer.part, layer_HW4
    # Pillow resizes from a box of fractions of pixels, so the vehicle is where it must be, to less than a pixel.
    pad = math.ceil(1 / place.scale) + 1
    layer_HW4 = cv2.copyMakeBorder(layer_HW4, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    spans, source = [], []
    for axis, offset in ((0, place.top), (1, place.left)):
        first = layer.part[axis].start - pad
        inner = (place.scale * layer.part[axis].start + offset, place.scale * layer.part[axis].stop + offset)
        start, stop = max(0, math.floor(inner[0])), min(place.size_HW[axis], math.ceil(inner[1]))
        spans.append(slice(start, max(start, stop)))
        source.append([(edge - offset) / place.scale - first for edge in (start, stop)])
    rows, columns = spans
    if rows.start == rows.stop or columns.start == columns.stop:
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0, 4), dtype=np.uint8)
    method = Image.Resampling.HAMMING if place.scale < 1 else Image.Resampling.BICUBIC
    resized = Image.fromarray(layer_HW4, "RGBa").resize(
        (columns.stop - columns.start, rows.stop - rows.start),
        method,
        box=(source[1][0], source[0][0], source[1][1], source[0][1]),
    )
    return (rows, columns), np.array(resized)


def _placed_levels(level_hw: NDArray[np.uint8], place: CanvasPlacement) -> NDArray[np.uint8]:
    """Soft levels (uint8) of the whole photo, at a quarter of its size, on the canvas; 0 beside the photo."""
    height, width = place.size_HW
    # Pixels are areas: their centers are half a pixel in.
    scale = place.scale * SHADOW_STEP
    matrix = np.array([[scale, 0, place.left + scale / 2 - 0.5], [0, scale, place.top + scale / 2 - 0.5]])
    placed_HW: NDArray[np.uint8] = cv2.warpAffine(level_hw, matrix, (width, height), flags=cv2.INTER_LINEAR)
    return placed_HW


def _darken(
    canvas_HWC: NDArray[np.uint8], part: tuple[slice, slice], darkness_HW: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Darken a part of a canvas; of a transparent one, lay black on it. Returns the canvas, which is changed."""
    if canvas_HWC.shape[2] == 4:
        canvas_HWC[part][..., 3] = darkness_HW
    else:
        canvas_HWC[part] = cv2.multiply(canvas_HWC[part], cv2.merge([255 - darkness_HW] * 3), scale=1 / 255)
    return canvas_HWC


def _lay(canvas_HWC: NDArray[np.uint8], part: tuple[slice, slice], color_HW4: NDArray[np.uint8]) -> None:
    """Lay colors that are multiplied by their opacity onto a part of a canvas."""
    below_HWC = np.ascontiguousarray(canvas_HWC[part])
    rest_HW = 255 - color_HW4[..., 3]
    if canvas_HWC.shape[2] == 3:
        below_HWC = cv2.multiply(below_HWC, cv2.merge([rest_HW] * 3), scale=1 / 255)
        canvas_HWC[part] = cv2.add(below_HWC, cv2.cvtColor(color_HW4, cv2.COLOR_RGBA2RGB))
        return
    # What is below is black or nothing, so only its opacity counts.
    opacity_HW = cv2.add(color_HW4[..., 3], cv2.multiply(below_HWC[..., 3], rest_HW, scale=1 / 255))
    color_HW3 = cv2.divide(
        cv2.cvtColor(color_HW4, cv2.COLOR_RGBA2RGB), cv2.merge([np.maximum(opacity_HW, 1)] * 3), scale=255
    )
    canvas_HWC[part] = cv2.insertChannel(opacity_HW, cv2.cvtColor(color_HW3, cv2.COLOR_RGB2RGBA), 3)
