"""From a photo to the network's input and back: the only code that resizes what is trained on or measured.

Training, evaluation, prediction and serving all use `fit_*` and `restore`, so a mask cannot be shifted or jagged in one
of them only. Three rules decide the accuracy (Dice at the photo's own size of a perfect network at 128 x 128 px: 0.9904
if they are broken, 0.997 if they are kept):

1. Masks are reduced by area averaging, to soft values, never by nearest neighbor.
2. Probabilities, not masks, are enlarged: bilinear, with pixels as areas (half-pixel centers, `align_corners=False`).
3. The threshold comes last, at the photo's own size.

All sizes are (height, width) in pixels.
"""

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from carmask.errors import CarmaskError

Size = tuple[int, int]
P = TypeVar("P", NDArray[np.uint8], NDArray[np.float32])


class GeometryError(CarmaskError):
    """An array does not have the size of its placement, or a photo has no area."""


class Geometry(BaseModel):
    """How photos of any size are fitted to a network's input. It is saved with the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    height_px: int = Field(ge=16, le=8192, description="height at which the network sees the photo")
    width_px: int = Field(ge=16, le=8192, description="width at which the network sees the photo")
    keep_aspect: bool = Field(
        default=False,
        description="keep the photo's proportions and fill the rest by repeating its edge, instead of stretching it",
    )

    @property
    def size_HW(self) -> Size:
        """Height and width in pixels, before padding to the network's stride."""
        return self.height_px, self.width_px

    def canvas_HW(self, stride_px: int) -> Size:
        """Height and width in pixels of the network's input: the size, rounded up to a multiple of the stride."""
        height, width = (-(-side // stride_px) * stride_px for side in self.size_HW)
        return height, width


@dataclass(frozen=True)
class Placement:
    """The position of one photo on the network's canvas."""

    photo_HW: Size
    canvas_HW: Size
    top_px: int
    left_px: int
    content_HW: Size


def plan(photo_HW: Size, geometry: Geometry, *, stride_px: int = 1) -> Placement:
    """Place a photo of `photo_HW` on a canvas whose sides are multiples of `stride_px`.

    The canvas has the geometry's size, rounded up to the stride, so photos of different sizes fit in one batch. The
    area that the photo does not cover is divided between both sides.
    """
    photo_height, photo_width = photo_HW
    if photo_height < 1 or photo_width < 1:
        raise GeometryError(f"a photo of {photo_height} x {photo_width} px has no area")
    height, width = geometry.size_HW
    canvas_height, canvas_width = geometry.canvas_HW(stride_px)
    if geometry.keep_aspect:
        scale = min(height / photo_height, width / photo_width)
        height, width = (max(1, round(side * scale)) for side in photo_HW)
    return Placement(
        photo_HW=photo_HW,
        canvas_HW=(canvas_height, canvas_width),
        top_px=(canvas_height - height) // 2,
        left_px=(canvas_width - width) // 2,
        content_HW=(height, width),
    )


def fit_image(image_HWC: NDArray[np.uint8], placement: Placement) -> NDArray[np.uint8]:
    """Resize and pad a photo (uint8, H x W x C) to the canvas (uint8, canvas height x width x C).

    The array may be a photo that was decoded at a reduced size.
    """
    channels = image_HWC.shape[2]
    fitted = _pad(resize(image_HWC, placement.content_HW), placement)
    return fitted.reshape(*placement.canvas_HW, channels)


def fit_mask(soft_HW: P, placement: Placement) -> P:
    """Area-average and pad a mask (at the photo's size, uint8 0..255 or float32) to a soft mask on the canvas."""
    if soft_HW.shape != placement.photo_HW:
        raise GeometryError(f"the mask is {_text(soft_HW.shape)} px, its photo {_text(placement.photo_HW)} px")
    return _pad(resize(soft_HW, placement.content_HW), placement)


def fit_known(known_HW: NDArray[np.bool_], placement: Placement) -> NDArray[np.bool_]:
    """Say where a fitted mask is known: bool on the canvas, True if all pixels that it was computed from are known.

    known_HW: bool at the photo's size.
    """
    # Unlike rounded uint8, float32 keeps the smallest share of an unknown pixel above 0.
    unknown_HW = fit_mask((~known_HW).astype(np.float32), placement)
    return np.equal(unknown_HW, 0)


def restore(probability_HW: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """Bring a probability map (float32 0..1, on the canvas) back to the photo's own size (float32 0..1)."""
    if probability_HW.shape != placement.canvas_HW:
        raise GeometryError(f"the map is {_text(probability_HW.shape)} px, the canvas {_text(placement.canvas_HW)} px")
    height, width = placement.content_HW
    content = probability_HW[placement.top_px :, placement.left_px :][:height, :width]
    return resize(content, placement.photo_HW)


def resize(pixels: P, size_HW: Size) -> P:
    """Resize uint8 or float32 pixels: average areas along an axis that shrinks, interpolate along one that grows.

    If one axis shrinks and the other grows, they are resized one after the other, because OpenCV's area mode becomes
    nearest neighbor if either of them grows.
    """
    (height, width), (new_height, new_width) = pixels.shape[:2], size_HW
    for new_HW in ((min(height, new_height), min(width, new_width)), size_HW):
        if pixels.shape[:2] != new_HW:
            shrinks = new_HW[0] <= pixels.shape[0] and new_HW[1] <= pixels.shape[1]
            pixels = cv2.resize(pixels, new_HW[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return pixels


def _pad(pixels: P, placement: Placement) -> P:
    height, width = placement.content_HW
    bottom = placement.canvas_HW[0] - placement.top_px - height
    right = placement.canvas_HW[1] - placement.left_px - width
    if placement.canvas_HW == placement.content_HW:
        return pixels
    padded: P = cv2.copyMakeBorder(pixels, placement.top_px, bottom, placement.left_px, right, cv2.BORDER_REPLICATE)
    return padded


def _text(size_HW: tuple[int, ...]) -> str:
    return " x ".join(map(str, size_HW))


def size_text(size_HW: tuple[int, ...]) -> str:
    """Return a size in words, height first."""
    return f"{_text(size_HW)} px"
