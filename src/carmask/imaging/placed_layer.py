"""Where a vehicle is on a canvas, and its pixels there."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.imaging.cutout import EDGE_MARGIN_PX, VehicleLayer, WholeVehicle, lift_vehicle
from carmask.imaging.decode import Photo
from carmask.imaging.geometry import P, Size, resize
from carmask.imaging.look import Look
from carmask.imaging.masks import Box, pixels_in_bands, slices

# Below this scale, areas are averaged; above it, cubic interpolation leaves out nothing.
_AREAS_BELOW = 0.75
# Cubic interpolation overshoots at corners, which would be as wide as a pixel from this scale on.
_LINEAR_FROM = 4.0
# What is placed may be wider than the vehicle by so many pixels of the canvas, and by at least so many of the photo.
# Interpolation reads so many pixels of the photo beyond the canvas.
_CHOICES_PX, _CHOICES, _REACH_PX = 16, 4, 2


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


@dataclass(frozen=True, eq=False)
class PlacedLayer:
    """The vehicle on a canvas: its opacity, uint8, and its colors multiplied by it, both of the `part` it covers."""

    part: tuple[slice, slice]
    color_HW3: NDArray[np.uint8]
    level_HW: NDArray[np.uint8]

    @classmethod
    def of(cls, layer: VehicleLayer) -> "PlacedLayer":
        """Multiply the colors of a layer, which stays at its place, by its opacity."""
        level_HW = cv2.convertScaleAbs(layer.opacity_HW, alpha=255)
        color_HW3 = cv2.bitwise_and(layer.color_HW3, layer.color_HW3, mask=level_HW)
        # Few pixels are partly opaque, and only these need to be multiplied.
        colors_N3 = color_HW3.reshape(-1, 3)
        for partly in partly_opaque(level_HW):
            colors_N3[partly] = times_level(np.take(colors_N3, partly, axis=0), np.take(level_HW, partly))
        return cls(layer.part, color_HW3, level_HW)


def lift_to_canvas(photo: Photo, vehicle: WholeVehicle, threshold: float, place: CanvasPlacement) -> PlacedLayer | None:
    """Lift the vehicle out of a photo and bring it to its size and place on the canvas; None if nothing is on it.

    A vehicle that gets much smaller is scaled first, because then lifting it is faster. See `lift_vehicle`.
    """
    if place.scale < _AREAS_BELOW:
        return _scale_and_lift(photo, vehicle, threshold, place)
    layer = lift_vehicle(photo.image_HWC, vehicle.probability_HW, threshold, photo.alpha_HW, vehicle.visible_px)
    if layer is None:
        return None
    lifted = PlacedLayer.of(layer)
    if place.scale == 1 and not place.top and not place.left:
        return lifted
    frame = _frame(layer.part, place)
    if frame is None:
        return None
    origin = (layer.part[0].start, layer.part[1].start)
    method = cv2.INTER_CUBIC if place.scale < _LINEAR_FROM else cv2.INTER_LINEAR
    color_HW3, level_HW = (
        cv2.resize(_window(pixels, frame, origin), frame.size_HW[::-1], interpolation=method)
        for pixels in (lifted.color_HW3, lifted.level_HW)
    )
    return _clipped(PlacedLayer(frame.part, color_HW3, level_HW), place.size_HW)


def _scale_and_lift(
    photo: Photo, vehicle: WholeVehicle, threshold: float, place: CanvasPlacement
) -> PlacedLayer | None:
    if vehicle.visible_px is None:
        return None
    margin_px = math.ceil(EDGE_MARGIN_PX / place.scale)
    around = slices(vehicle.visible_px, margin_px=margin_px, size_HW=vehicle.probability_HW.shape)
    frame = _frame(around, place)
    if frame is None:
        return None
    # Beside the photo are the colors of its border, but nothing of the vehicle.
    image_HW3 = resize(_window(photo.image_HWC, frame, border=cv2.BORDER_REPLICATE), frame.size_HW)
    probability_HW = resize(_window(vehicle.probability_HW, frame), frame.size_HW)
    alpha_HW = None if photo.alpha_HW is None else resize(_window(photo.alpha_HW, frame), frame.size_HW)
    layer = lift_vehicle(image_HW3, probability_HW, threshold, alpha_HW)
    if layer is None:
        return None
    lifted = PlacedLayer.of(layer)
    rows, columns = (
        slice(of_frame.start + of_layer.start, of_frame.start + of_layer.stop)
        for of_frame, of_layer in zip(frame.part, layer.part, strict=True)
    )
    return _clipped(PlacedLayer((rows, columns), lifted.color_HW3, lifted.level_HW), place.size_HW)


@dataclass(frozen=True)
class _Frame:
    """A part of a photo in whole pixels (also beside it), and the part of the canvas in whole pixels that it fills."""

    source: tuple[slice, slice]
    part: tuple[slice, slice]

    @property
    def size_HW(self) -> Size:
        height, width = (span.stop - span.start for span in self.part)
        return height, width


def _frame(part: tuple[slice, slice], place: CanvasPlacement) -> _Frame | None:
    """Widen a part of a photo so that its sides lie between pixels on the canvas too, as nearly as can be.

    What the canvas does not show is left out. None if nothing is left.
    """
    source, target = [], []
    for span, length, offset in zip(part, place.size_HW, (place.top, place.left), strict=True):
        first = max(span.start, math.floor(-offset / place.scale) - _REACH_PX)
        last = min(span.stop, math.ceil((length - offset) / place.scale) + _REACH_PX)
        choices = max(_CHOICES, math.ceil(_CHOICES_PX / place.scale))
        edges = [
            min((edge + step * wider for wider in range(choices)), key=lambda at: _off_grid(place.scale * at + offset))
            for edge, step in ((first, -1), (last, 1))
        ]
        on_canvas = [round(place.scale * at + offset) for at in edges]
        if first >= last or on_canvas[0] >= on_canvas[1]:
            return None
        source.append(slice(*edges))
        target.append(slice(*on_canvas))
    return _Frame((source[0], source[1]), (target[0], target[1]))


def _off_grid(position: float) -> float:
    return abs(position - round(position))


def _window(pixels: P, frame: _Frame, origin: tuple[int, int] = (0, 0), border: int = cv2.BORDER_CONSTANT) -> P:
    """The pixels of a frame's source; `pixels` begin at `origin` of the photo. Pixels that are not there are 0."""
    (top, bottom), (left, right) = (
        (span.start - first, span.stop - first) for span, first in zip(frame.source, origin, strict=True)
    )
    height, width = pixels.shape[:2]
    inside = pixels[max(0, top) : bottom, max(0, left) : right]
    beside = max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width)
    if not any(beside):
        return inside
    window: P = cv2.copyMakeBorder(inside, *beside, border)
    return window


def _clipped(layer: PlacedLayer, size_HW: Size) -> PlacedLayer | None:
    """Leave out what lies beside the canvas."""
    spans = [
        slice(max(0, span.start), min(length, span.stop)) for span, length in zip(layer.part, size_HW, strict=True)
    ]
    if any(span.start >= span.stop for span in spans):
        return None
    inside = tuple(
        slice(span.start - whole.start, span.stop - whole.start) for span, whole in zip(spans, layer.part, strict=True)
    )
    color_HW3, level_HW = (np.ascontiguousarray(pixels[inside]) for pixels in (layer.color_HW3, layer.level_HW))
    return PlacedLayer((spans[0], spans[1]), color_HW3, level_HW)


def partly_opaque(level_HW: NDArray[np.uint8]) -> Iterator[NDArray[np.intp]]:
    """Flat indices of the pixels that are neither transparent nor opaque, some rows at a time."""
    return pixels_in_bands(cv2.inRange(level_HW, 1, 254) != 0)


def times_level(color_N3: NDArray[np.uint8], level_N: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Colors times levels / 255, rounded."""
    times_N3: NDArray[np.uint16] = (color_N3 * level_N[:, None].astype(np.uint16) + np.uint16(127)) // np.uint16(255)
    return times_N3
