"""Bool masks in memory: a check, the box around one, packing to one bit a pixel, and which regions are kept."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.imaging import Vehicles
from carmask.imaging.geometry import Size

# Top, left, bottom, right in pixels, bottom and right exclusive.
Box = tuple[int, int, int, int]

_FRINGE_PX = 64
_ROWS = 32
# A region with less than this share of the largest one's area is a speck, not what the photo is of.
_SPECK_SHARE = 1 / 20
_AREA = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)\s*(?P<unit>%|px)?")


@dataclass(frozen=True)
class Area:
    """An area in pixels, or as a share 0..1 of the picture."""

    px: float = 0.0
    share: float = 0.0

    @classmethod
    def parse(cls, text: str, name: str = "--min-area") -> "Area":
        """Read `400`, `400px` or `0.5%`. name: the option's name, for the error.

        Raises:
            CarmaskError: it is not an area.
        """
        match = _AREA.fullmatch(text.strip())
        number = float(match["number"]) if match else 0.0
        if match is None or math.isinf(number) or (match["unit"] == "%" and number > 100):
            raise CarmaskError(f"{name} {text}: give pixels, such as 400, or a share of the picture, such as 0.5%")
        return cls(share=number / 100) if match["unit"] == "%" else cls(px=number)

    def __str__(self) -> str:
        return f"{self.share:.6%}" if self.share else f"{self.px:.15g}px"

    def of(self, size_HW: tuple[int, int]) -> int:
        """The area in pixels of a picture of this size, rounded up."""
        return int(np.ceil(max(self.px, self.share * size_HW[0] * size_HW[1])))


def require_mask(mask_HW: NDArray[np.bool_]) -> None:
    """Raise `ValueError` for anything but a bool array (height, width), which would silently give a wrong result."""
    if mask_HW.ndim != 2 or mask_HW.dtype != np.bool_:
        raise ValueError(f"a mask is a bool array (height, width), not {mask_HW.dtype} {mask_HW.shape}")


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask in an eighth of its memory: one bit for each pixel, every row in bytes of its own."""

    bits: NDArray[np.uint8]
    size_HW: Size

    @classmethod
    def of(cls, mask_HW: NDArray[np.bool_]) -> Self:
        """Pack a bool mask (height, width)."""
        height, width = mask_HW.shape
        return cls(np.packbits(mask_HW, axis=1), (height, width))

    @property
    def mask_HW(self) -> NDArray[np.bool_]:
        """The bool mask, unpacked each time."""
        return np.unpackbits(self.bits, axis=1, count=self.size_HW[1]).view(np.bool_)


def box_of(mask_HW: NDArray[np.bool_]) -> Box | None:
    """The smallest box that holds a bool mask (height, width), or None where the mask is empty."""
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask_HW).view(np.uint8))
    return (top, left, top + height, left + width) if width else None


def slices(box_px: Box, *, margin_px: int = 0, size_HW: Size | None = None) -> tuple[slice, slice]:
    """Rows and columns of a box, widened by a margin on each side, as far as the image of `size_HW` reaches."""
    top, left, bottom, right = box_px
    height, width = size_HW if size_HW is not None else (bottom, right)
    return (
        slice(max(0, top - margin_px), min(height, bottom + margin_px)),
        slice(max(0, left - margin_px), min(width, right + margin_px)),
    )


def pixels_in_bands(mask_HW: NDArray[np.bool_]) -> Iterator[NDArray[np.intp]]:
    """Flat indices of a mask's pixels, those of some rows at a time, none of them empty.

    What is computed for each pixel of a soft edge takes a hundred bytes, and an unsure network makes all pixels soft.
    """
    height, width = mask_HW.shape
    for first in range(0, height, _ROWS):
        found = np.flatnonzero(mask_HW[first : first + _ROWS])
        if found.size:
            yield found + first * width


@dataclass(frozen=True)
class Regions:
    """Which regions of a mask are kept: none smaller than `min_area`, and of the others all, or only one.

    Pixels that touch, also at corners, form one region. "largest" keeps the one with the largest area. "center" keeps
    the one with the pixel nearest to the middle of the picture, of several the largest; regions with less than 5% of
    the largest one's area do not count. Of several equally large regions the topmost is kept.
    """

    vehicles: Vehicles = "all"
    min_area: Area = Area()

    def keep(self, probability_HW: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
        """Set all other regions of a probability (float32 0..1) to 0, together with their soft fringes.

        The mask is where the probability is at least `threshold`. A pixel below it is kept or removed with the region
        nearest to it; pixels farther than 64 px outside the box around all regions are never changed. If no region is
        kept, everything is 0. Returns `probability_HW` itself if nothing is removed, otherwise a new array.
        """
        if self == ALL_REGIONS:
            return probability_HW
        mask_HW = probability_HW >= threshold
        box_px = box_of(mask_HW)
        if box_px is None:
            return probability_HW
        part = slices(box_px, margin_px=_FRINGE_PX, size_HW=probability_HW.shape)
        mask_hw = np.ascontiguousarray(mask_HW[part])
        count, region_hw, stats, _ = cv2.connectedComponentsWithStats(mask_hw.view(np.uint8), connectivity=8)
        area_px = stats[1:, cv2.CC_STAT_AREA]
        kept = area_px >= self.min_area.of(probability_HW.shape)
        if self.vehicles == "center" and kept.any():
            among = kept & (area_px >= area_px.max() * _SPECK_SHARE)
            kept = _nearest_to_middle(region_hw, among, part, probability_HW.shape)
        if self.vehicles != "all":
            kept &= np.arange(count - 1) == np.argmax(area_px * kept)
        if kept.all():
            return probability_HW
        if not kept.any():
            return np.zeros_like(probability_HW)
        # Each pixel gets the label of the mask's pixel nearest to it, and is kept if that one's region is.
        _, nearest_hw = cv2.distanceTransformWithLabels(
            (~mask_hw).view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        core = np.flatnonzero(mask_hw)
        stays = np.zeros(core.size + 1, dtype=np.bool_)
        stays[nearest_hw.reshape(-1)[core]] = kept[region_hw.reshape(-1)[core] - 1]
        kept_HW = probability_HW.copy()
        kept_HW[part] *= stays[nearest_hw]
        return kept_HW


def _nearest_to_middle(
    region_hw: NDArray[np.int32], among: NDArray[np.bool_], part: tuple[slice, slice], size_HW: Size
) -> NDArray[np.bool_]:
    """Which regions of `among` (bool, one for each region) have the pixel nearest to the middle of the picture.

    region_hw: the number of the region that each pixel belongs to, 0 for none, in the `part` of the picture.
    """
    # Twice the distances from the middle, which may lie between pixels: integers, so that equal ones are equal.
    y_h, x_w = (2 * np.arange(side.start, side.stop) + 1 - length for side, length in zip(part, size_HW, strict=True))
    distance_hw = y_h[:, None] ** 2 + x_w**2
    distance_hw[~np.append(False, among)[region_hw]] = np.iinfo(np.int64).max
    return np.isin(np.arange(among.size) + 1, region_hw[distance_hw == distance_hw.min()])


ALL_REGIONS = Regions()
