"""Foreground estimation: the vehicle's own colors along its edge, where a photo shows them mixed with the background.

A pixel of the edge is a mixture I = k F + (1 - k) B of the vehicle's color F and the background's color B. F is the
mean color around the nearest pixel that is surely vehicle, B the mean color of the sure background nearby, and k the
distance of I from B in units of the distance of F from B. The background's part is replaced: I + (1 - k) (F - B). So a
pixel that is all vehicle keeps its color, even if the network is unsure of it, and one that is all background takes the
vehicle's.

This is the method of Forte and Pitie, "Approximate Fast Foreground Color Estimation" (ICIP 2021), but k comes from the
colors and not from alpha: a network's probability is wider than the photo's edge, and where it is wrong the photo is
right. `carmask.data.copy_paste` does the same for training batches, with exact masks and as tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.imaging.masks import pixels_in_bands

# Colors are averaged at 1 / _STEP of the photo's size, within these radii. A larger radius has so small a weight that
# it counts only where the smaller one finds nothing.
_STEP = 4
_RADII_PX = (5, 16, 60)
_NEXT_WEIGHT = 1e-3
# Sure pixels of the vehicle are looked up in every second row and column, and averaged over 3 x 3 of these.
_EVERY = 2
_MEAN_SIDE = 3
# The vehicle's colors count fully up to this many times the median distance of the edge from the sure vehicle, and not
# at all one median distance farther.
_REACH = 2.0
# A pixel nine tenths of the way from background to vehicle counts as vehicle; color differences up to the noise as
# none.
_WHOLE_FROM = 0.9
_NOISE = 8.0


def sure_bounds(threshold: float) -> tuple[float, float]:
    """Two probabilities: up to the first a pixel is surely background, from the second on surely vehicle."""
    return threshold / 5, 1 - (1 - threshold) / 5


def own_colors(
    image_HW3: NDArray[np.uint8], probability_HW: NDArray[np.float32], threshold: float
) -> NDArray[np.uint8]:
    """The photo (uint8 RGB) without the colors of the background in the pixels of the vehicle's edge.

    probability_HW: float32 0..1, of the same size. Returns `image_HW3` itself if there is no edge.
    """
    background_to, vehicle_from = sure_bounds(threshold)
    is_vehicle_HW, is_background_HW = probability_HW >= vehicle_from, probability_HW <= background_to
    is_edge_HW = is_vehicle_HW == is_background_HW
    if not is_edge_HW.any() or not is_vehicle_HW[::_EVERY, ::_EVERY].any() or not is_background_HW.any():
        return image_HW3
    vehicle = _SureVehicle.of(image_HW3, is_vehicle_HW)
    distances_px = np.concatenate([vehicle.distance_px(edge) for edge in pixels_in_bands(is_edge_HW)])
    reach_px = _REACH * max(1.0, float(np.median(distances_px, overwrite_input=True)))
    del distances_px, is_vehicle_HW
    mean_HW3 = cv2.resize(
        local_mean(image_HW3, is_background_HW, _RADII_PX), probability_HW.shape[::-1], interpolation=cv2.INTER_LINEAR
    )
    del is_background_HW
    # Where the network is nearly sure, its probability counts too: some parts of a vehicle look like the background.
    trusted_from = (threshold + vehicle_from) / 2
    corrected = image_HW3.copy()
    for edge in pixels_in_bands(is_edge_HW):
        # Planes are faster than pixels: all below is (3, N) for N pixels of the edge.
        seen, behind = _planes(image_HW3, edge), _planes(mean_HW3, edge)
        contrast = vehicle.colors(edge) - behind
        share = _length(seen - behind) / (_WHOLE_FROM * _length(contrast) + _NOISE)
        trust = (probability_HW.reshape(-1)[edge] - trusted_from) / (vehicle_from - trusted_from)
        # Far from the vehicle, where the network is unsure, nothing says whose color it is.
        near = np.clip(2 - vehicle.distance_px(edge) / reach_px, 0, 1)
        replaced = near * np.clip(1 - np.maximum(share, trust), 0, 1)
        corrected.reshape(-1, 3)[edge] = cv2.convertScaleAbs(np.maximum(seen + replaced * contrast, 0)).T
    return corrected


def local_mean(
    image_HW3: NDArray[np.uint8], where_HW: NDArray[np.bool_], radii_px: Sequence[float], *, passes: int = 1
) -> NDArray[np.uint8]:
    """Mean color of the marked pixels around each pixel, uint8 RGB at a quarter of the photo's size.

    It is taken within the first radius that contains a marked pixel; where none does, it is black. passes: number of
    box filters in a row; three fall off smoothly, much like a Gaussian.
    """
    height, width = (side - side % _STEP if side > _STEP else side for side in where_HW.shape)
    size_WH = (-(-width // _STEP), -(-height // _STEP))
    # Without the last few rows and columns the reduction is by a whole number, which is three times as fast.
    image_HW3, marks_HW = image_HW3[:height, :width], where_HW[:height, :width].view(np.uint8)
    marked_HW3 = cv2.bitwise_and(image_HW3, image_HW3, mask=marks_HW)
    color_hw3 = cv2.resize(marked_HW3, size_WH, interpolation=cv2.INTER_AREA)
    share_hw = cv2.resize(marks_HW * np.uint8(255), size_WH, interpolation=cv2.INTER_AREA)
    sum_hw4 = cv2.merge([*cv2.split(color_hw3), share_hw]).astype(np.float32)
    total_hw4 = np.zeros_like(sum_hw4)
    for order, radius_px in enumerate(radii_px):
        side = 2 * max(1, round(radius_px / _STEP)) + 1
        mean_hw4 = sum_hw4
        for _ in range(passes):
            mean_hw4 = cv2.blur(mean_hw4, (side, side))
        total_hw4 += _NEXT_WEIGHT**order * mean_hw4
    # Planes are divided faster than pixels.
    *total_hw, count_hw = cv2.split(total_hw4)
    count_hw = np.maximum(count_hw, 1e-9)
    mean_hw3: NDArray[np.uint8] = cv2.merge([cv2.convertScaleAbs(255 * one_hw / count_hw) for one_hw in total_hw])
    return mean_hw3


@dataclass(frozen=True, eq=False)
class _SureVehicle:
    """The pixels that are surely vehicle, in every second row and column, and which is the nearest to any pixel.

    width_px: of the photo. label_hw: number of the nearest one, from 1, row by row, and distance_hw its distance. at:
    flat index by number. sum_hw3, count_hw: of the colors around each, and of how many.
    """

    width_px: int
    distance_hw: NDArray[np.float32]
    label_hw: NDArray[np.int32]
    at: NDArray[np.intp]
    sum_hw3: NDArray[np.uint16]
    count_hw: NDArray[np.uint16]

    @classmethod
    def of(cls, image_HW3: NDArray[np.uint8], is_vehicle_HW: NDArray[np.bool_]) -> Self:
        vehicle_hw = np.ascontiguousarray(is_vehicle_HW[::_EVERY, ::_EVERY])
        distance_hw, label_hw = cv2.distanceTransformWithLabels(
            (~vehicle_hw).view(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
        )
        marks_hw = vehicle_hw.view(np.uint8)
        # Whole pixels are copied faster than their colors one by one.
        coarse_hw3 = np.ascontiguousarray(image_HW3.view("V3")[::_EVERY, ::_EVERY]).view(np.uint8)
        color_hw3 = cv2.bitwise_and(coarse_hw3, coarse_hw3, mask=marks_hw)
        sum_hw3, count_hw = (
            cv2.boxFilter(pixels, cv2.CV_16U, (_MEAN_SIDE, _MEAN_SIDE), normalize=False, borderType=cv2.BORDER_CONSTANT)
            for pixels in (color_hw3, marks_hw)
        )
        return cls(is_vehicle_HW.shape[1], distance_hw, label_hw, np.flatnonzero(vehicle_hw), sum_hw3, count_hw)

    def colors(self, edge: NDArray[np.intp]) -> NDArray[np.float32]:
        """Mean color (3, N) of the vehicle at its pixel nearest to each of N pixels, which are flat indices."""
        nearest = self.at[self.label_hw.reshape(-1)[self._coarse(edge)] - 1]
        count = np.take(self.count_hw, nearest).astype(np.float32)
        mean: NDArray[np.float32] = np.divide(_planes(self.sum_hw3, nearest), count)
        return mean

    def distance_px(self, edge: NDArray[np.intp]) -> NDArray[np.float32]:
        """Distance (N,) of N pixels from the nearest pixel of the vehicle, in pixels."""
        return _EVERY * self.distance_hw.reshape(-1)[self._coarse(edge)]

    def _coarse(self, edge: NDArray[np.intp]) -> NDArray[np.intp]:
        row, column = np.divmod(edge, self.width_px)
        coarse: NDArray[np.intp] = row // _EVERY * self.distance_hw.shape[1] + column // _EVERY
        return coarse


def _planes(image_HW3: NDArray[Any], at: NDArray[np.intp]) -> NDArray[np.float32]:
    """Colors (3, N) at flat indices (N,)."""
    return np.ascontiguousarray(np.take(image_HW3.reshape(-1, 3), at, axis=0).T, dtype=np.float32)


def _length(color: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each of N colors (3, N)."""
    red, green, blue = color
    length: NDArray[np.float32] = np.sqrt(red * red + green * green + blue * blue)
    return length
