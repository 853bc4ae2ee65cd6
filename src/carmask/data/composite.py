"""Composites: cut-out vehicles pasted onto photos that have none.

A network that has seen only single vehicles in the middle of a photo learns that there is one. Composites teach it
the rest: any number of vehicles, at any size and place, in front of each other and cut off by the photo's border, on
grounds of all kinds. (Dwibedi, Misra and Hebert, "Cut, Paste and Learn", ICCV 2017.)

All randomness comes from the generator that the caller seeds for each image. Images are uint8 RGB (height, width, 3),
soft masks uint8 (height, width), 255 where all of a pixel belongs to a vehicle.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from carmask.imaging.masks import box_of, slices

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

# A cut-out narrower than this is a few gray pixels, from which nothing can be learned.
_LEAST_SIDE_PX = 8
# Share of a vehicle's height and width that may lie beyond the photo's border.
_BEYOND = 0.4
_LEAST_BLUR_PX = 0.3


class CompositeSettings(BaseModel):
    """How cut-out vehicles are pasted onto photos without a vehicle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    probability: float = Field(default=0.0, ge=0, le=1, description="share of such photos that get vehicles")
    count: tuple[int, int] = Field(default=(1, 6), description="fewest and most vehicles on one photo")
    width: tuple[float, float] = Field(
        default=(0.05, 1.1), description="smallest and largest width of a vehicle, as a share of the photo's width"
    )
    light: float = Field(
        default=0.5, ge=0, le=1, description="how much a vehicle's light may be matched to the background"
    )
    shadow: float = Field(default=0.5, ge=0, le=1, description="probability that a vehicle darkens the ground below it")
    blur_px: float = Field(default=1.0, ge=0, le=8, description="largest blur of a vehicle, a Gaussian's sigma")

    @model_validator(mode="after")
    def _check_order(self) -> "CompositeSettings":
        if not 1 <= self.count[0] <= self.count[1] or not 0 < self.width[0] <= self.width[1] <= 4:
            raise ValueError(
                "composite: count and width need a minimum and a maximum, in this order; count at least 1, width above "
                "0 and at most 4"
            )
        return self


@dataclass(frozen=True, eq=False)
class Cutout:
    """A vehicle's pixels (uint8, height x width x 3) and its soft mask (uint8, height x width), cropped to the mask."""

    image_HWC: Bytes
    soft_HW: Bytes

    @classmethod
    def of(cls, image_HWC: Bytes, soft_HW: Bytes) -> "Cutout | None":
        """Cut a vehicle out; None where the mask is empty.

        Only the inner half of a soft edge is kept: the outer half shows more of the old ground than of the vehicle.
        """
        soft_HW = cv2.subtract(soft_HW, cv2.bitwise_not(soft_HW))
        box_px = box_of(soft_HW > 0)
        return None if box_px is None else cls(image_HWC[slices(box_px)], soft_HW[slices(box_px)])

    def resized(self, height_px: int, width_px: int, *, mirrored: bool) -> "Cutout":
        """The vehicle at another size."""
        interpolation = cv2.INTER_AREA if width_px < self.soft_HW.shape[1] else cv2.INTER_LINEAR
        soft_HW = cv2.resize(self.soft_HW, (width_px, height_px), interpolation=interpolation)
        image_HWC = cv2.resize(self.image_HWC, (width_px, height_px), interpolation=interpolation)
        # OpenCV drops the only channel of a gray image.
        image_HWC = image_HWC.reshape(height_px, width_px, -1)
        return Cutout(image_HWC[:, ::-1], soft_HW[:, ::-1]) if mirrored else Cutout(image_HWC, soft_HW)


def draw_widths_px(rng: np.random.Generator, photo_width_px: int, settings: CompositeSettings) -> list[int]:
    """Draw how many vehicles are pasted onto a photo, and their widths, the smallest first.

    Even on a logarithmic scale: as many from 5 % to 10 % of the photo's width as from 50 % to 100 %.
    """
    count = int(rng.integers(settings.count[0], settings.count[1], endpoint=True))
    least, most = map(math.log, settings.width)
    shares = np.exp(rng.uniform(least, most, size=count))
    return [round(share * photo_width_px) for share in sorted(shares)]


def paste_cutout(
    image_HWC: Bytes,
    soft_HW: Bytes,
    cutout: Cutout,
    width_px: int,
    rng: np.random.Generator,
    settings: CompositeSettings,
) -> None:
    """Paste a vehicle of this width into an image and its mask, in place, at a random position."""
    own_height, own_width = cutout.soft_HW.shape
    height_px = round(own_height * width_px / own_width * rng.uniform(0.9, 1.1))
    is_mirrored = bool(rng.random() < 0.5)
    if min(height_px, width_px) < _LEAST_SIDE_PX:
        return
    cutout = cutout.resized(height_px, width_px, mirrored=is_mirrored)
    top, left = (_draw_start(rng, side, own) for side, own in zip(soft_HW.shape, (height_px, width_px), strict=True))
    if rng.random() < settings.shadow:
        _darken(image_HWC, top + height_px, left + width_px / 2, width_px, rng)
    rows, columns = (
        slice(max(start, 0), min(start + own, side))
        for start, own, side in zip((top, left), (height_px, width_px), soft_HW.shape, strict=True)
    )
    inside = np.s_[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    ground_HWC = image_HWC[rows, columns].astype(np.float32)
    vehicle_HWC = _match_light(cutout.image_HWC[inside], cutout.soft_HW[inside], ground_HWC, rng, settings.light)
    alpha_HW = cutout.soft_HW[inside].astype(np.float32) / 255
    if (sigma_px := rng.uniform(0, settings.blur_px)) > _LEAST_BLUR_PX:
        alpha_HW = cv2.GaussianBlur(alpha_HW, (0, 0), sigma_px)
        vehicle_HWC = cv2.GaussianBlur(vehicle_HWC, (0, 0), sigma_px).reshape(vehicle_HWC.shape)
    image_HWC[rows, columns] = np.rint(ground_HWC + alpha_HW[..., None] * (vehicle_HWC - ground_HWC)).clip(0, 255)
    below_HW = soft_HW[rows, columns].astype(np.float32)
    soft_HW[rows, columns] = np.rint(below_HW + alpha_HW * (255 - below_HW))


def _draw_start(rng: np.random.Generator, side: int, own: int) -> int:
    """Top or left of a vehicle, up to `_BEYOND` of which may lie outside, at either end."""
    first = round(-_BEYOND * own)
    return int(rng.integers(first, max(side - round((1 - _BEYOND) * own), first), endpoint=True))


def _match_light(
    vehicle_HWC: Bytes, soft_HW: Bytes, ground_HWC: Floats, rng: np.random.Generator, most: float
) -> Floats:
    """Bring a vehicle's brightness toward its ground's by a random share, up to `most`."""
    own, ground = sum(cv2.mean(vehicle_HWC, soft_HW)), sum(cv2.mean(ground_HWC))
    share = rng.uniform(0, most)
    gain = ((1 - share) * own + share * ground) / max(own, 1.0)
    lit_HWC: Floats = np.minimum(vehicle_HWC * np.float32(min(gain, 2.0)), np.float32(255))
    return lit_HWC


def _darken(image_HWC: Bytes, bottom: int, middle: float, width: int, rng: np.random.Generator) -> None:
    """A soft dark ellipse where wheels would stand, in place: else a missing shadow would show what was pasted."""
    half_height, half_width = max(2.0, width * rng.uniform(0.04, 0.12)), width * rng.uniform(0.45, 0.6)
    strength = rng.uniform(0.2, 0.7)
    height, image_width = image_HWC.shape[:2]
    rows = slice(max(int(bottom - half_height), 0), min(int(bottom + half_height) + 1, height))
    columns = slice(max(int(middle - half_width), 0), min(int(middle + half_width) + 1, image_width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    y_H1 = ((np.arange(rows.start, rows.stop, dtype=np.float32) - bottom) / half_height)[:, None]
    x_1W = ((np.arange(columns.start, columns.stop, dtype=np.float32) - middle) / half_width)[None]
    shade_HW = strength * (1 - x_1W**2 - y_H1**2).clip(min=0)
    image_HWC[rows, columns] = np.rint(image_HWC[rows, columns] * (1 - shade_HW[..., None]))
