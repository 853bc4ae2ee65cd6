"""Cut the vehicle out of a photo, by the probability of its pixels, and place it on another background.

That is nothing, a color, another picture, a studio, or the photo's own background, blurred.
"""

import difflib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageOps

from carmask.errors import CarmaskError
from carmask.imaging.color import convert_colors
from carmask.imaging.decode import IMAGE_SUFFIXES, Photo, decode_photo
from carmask.imaging.foreground import local_mean, own_colors, sure_bounds
from carmask.imaging.geometry import Size
from carmask.imaging.masks import Box, box_of, slices
from carmask.imaging.studio import draw_studio


class Background(Protocol):
    """What is behind the vehicle. Safe to call from several threads."""

    def __call__(
        self,
        image_HW3: NDArray[np.uint8],
        probability_HW: NDArray[np.float32],
        threshold: float,
        icc_profile: bytes | None = None,
        /,
        *,
        size_HW: Size | None = None,
        floor: float | None = None,
    ) -> NDArray[np.uint8]:
        """Return a new canvas in the photo's color space: uint8 RGB, or four channels of 0 if transparent.

        A photo (uint8 RGB) is given with the probability of its pixels (float32 0..1), the threshold, and its profile.
        size_HW: of the canvas; the photo's if not given. floor: where the vehicle stands, as share 0..1 of the height.
        """


# As shares of the photo's longer side: the radius of the blur, and how far colors are carried to where the vehicle was.
_BLUR_RADIUS = 1 / 48
_FILL_RADIUS = 1 / 4

_NAMES = ("transparent", "blur", "studio")
_COLORS = "give transparent, blur, studio, or a color such as white or #f0f0f0"
# Where the floor of a studio is that no vehicle stands in.
_FLOOR = 0.8

# Alpha rises from 0 to 1 within this distance of the threshold. Networks see reduced photos, so their edges are wider
# than the photo's: on Carvana this lowers the error of a composite by a quarter against alpha = probability.
_HALF_RAMP = 0.25
# The colors of the edge depend on what is around it.
EDGE_MARGIN_PX = 24


class BadBackground(CarmaskError):
    """A background that is neither transparent nor blur, a studio, a color or a picture."""


def parse_background(text: str, *, may_be_picture: bool = True) -> Background:
    """Read `transparent`, `blur`, `studio`, a color (a CSS name, #rgb, #rrggbb) or a picture's path; it is decoded.

    may_be_picture: if False, no file is opened, whatever the text says.

    Raises:
        BadBackground: it is none of these.
        UnreadableImage: it is a file that is not a readable picture.

    """
    wanted = text.strip()
    if wanted.lower() == "transparent":
        return _transparent
    if wanted.lower() == "blur":
        return _blurred
    if wanted.lower() == "studio":
        return _studio
    if wanted.startswith("#") or wanted.lower() in ImageColor.colormap:
        rgb = _rgb(wanted)
        return (
            lambda image_HW3, _, __, icc_profile=None, /, *, size_HW=None, floor=None: _filled(  # noqa: ARG005
                size_HW or image_HW3.shape[:2], rgb, icc_profile
            )
        )
    if may_be_picture and (Path(wanted).suffix.lower() in IMAGE_SUFFIXES or Path(wanted).is_file()):
        return picture_background(decode_photo(wanted))
    near = difflib.get_close_matches(wanted.lower(), (*_NAMES, *ImageColor.colormap), n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    or_picture = ", or the path of a picture" if may_be_picture else ""
    raise BadBackground(f"background {text!r}: not a background{hint}; {_COLORS}{or_picture}")


def picture_background(picture: Photo) -> Background:
    """A picture (RGB), scaled to cover the photo and cropped around its center."""

    # Most photos of one folder have one size, and one profile or none.
    @lru_cache(maxsize=4)
    def cover(size_HW: Size, icc_profile: bytes | None) -> NDArray[np.uint8]:
        fitted = ImageOps.fit(Image.fromarray(picture.image_HWC), size_HW[::-1], Image.Resampling.LANCZOS)
        return convert_colors(np.asarray(fitted), picture.icc_profile, icc_profile)

    return (
        lambda image_HW3, _, __, icc_profile=None, /, *, size_HW=None, floor=None: cover(  # noqa: ARG005
            size_HW or image_HW3.shape[:2], icc_profile
        ).copy()
    )


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
    canvas_HWC = background(image_HW3, probability_HW, threshold, icc_profile)
    layer = lift_vehicle(image_HW3, probability_HW, threshold, alpha_HW)
    if layer is not None:
        canvas_HWC[layer.part] = _composite(canvas_HWC[layer.part], layer.color_HW3, layer.opacity_HW)
    return canvas_HWC if crop_px is None else np.ascontiguousarray(canvas_HWC[slices(crop_px)])


def lift_vehicle(
    image_HW3: NDArray[np.uint8],
    probability_HW: NDArray[np.float32],
    threshold: float,
    alpha_HW: NDArray[np.uint8] | None = None,
) -> VehicleLayer | None:
    """Return the vehicle without the colors of the background around it; None if there is none. See `cut_out`."""
    box_px = vehicle_box(probability_HW, threshold)
    if box_px is None:
        return None
    ramp = _half_ramp(threshold)
    part = slices(box_px, margin_px=EDGE_MARGIN_PX, size_HW=probability_HW.shape)
    probability_HW = np.ascontiguousarray(probability_HW[part])
    opacity_HW = probability_HW - np.float32(threshold)
    opacity_HW /= 2 * ramp
    opacity_HW += 0.5
    np.clip(opacity_HW, 0, 1, out=opacity_HW)
    color_HW3 = own_colors(np.ascontiguousarray(image_HW3[part]), probability_HW, threshold)
    if alpha_HW is not None:
        of_photo_HW = np.maximum(alpha_HW[part], 1).astype(np.float32) / 255
        white_taken_HW3 = 255 - (255 - color_HW3.astype(np.float32)) / of_photo_HW[..., None]
        color_HW3 = np.clip(np.rint(white_taken_HW3), 0, 255).astype(np.uint8)
        opacity_HW = np.minimum(opacity_HW, alpha_HW[part].astype(np.float32) / 255)
    return VehicleLayer(part, color_HW3, opacity_HW)


def vehicle_box(probability_HW: NDArray[np.float32], threshold: float) -> Box | None:
    """Return the box around all pixels that are not transparent in a cut-out; None if there are none."""
    return box_of(probability_HW > threshold - _half_ramp(threshold))


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


def _transparent(
    image_HW3: NDArray[np.uint8],
    _: NDArray[np.float32],
    __: float,
    ___: bytes | None = None,
    /,
    *,
    size_HW: Size | None = None,
    floor: float | None = None,  # noqa: ARG001 - as of `Background`
) -> NDArray[np.uint8]:
    return np.zeros((*(size_HW or image_HW3.shape[:2]), 4), dtype=np.uint8)


def _blurred(
    image_HW3: NDArray[np.uint8],
    probability_HW: NDArray[np.float32],
    threshold: float,
    _: bytes | None = None,
    /,
    *,
    size_HW: Size | None = None,
    floor: float | None = None,  # noqa: ARG001 - as of `Background`
) -> NDArray[np.uint8]:
    """The photo, blurred; where the vehicle was, the colors of the background around it."""
    background_to, _sure = sure_bounds(threshold)
    longer_px = max(probability_HW.shape)
    radii_px = (longer_px * _BLUR_RADIUS, longer_px * _FILL_RADIUS)
    mean_hw3 = local_mean(image_HW3, probability_HW <= background_to, radii_px, passes=3)
    if size_HW is not None:
        return np.array(ImageOps.fit(Image.fromarray(mean_hw3), size_HW[::-1], Image.Resampling.BILINEAR))
    blurred_HW3: NDArray[np.uint8] = cv2.resize(mean_hw3, probability_HW.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return blurred_HW3


def _studio(
    image_HW3: NDArray[np.uint8],
    _: NDArray[np.float32],
    __: float,
    icc_profile: bytes | None = None,
    /,
    *,
    size_HW: Size | None = None,
    floor: float | None = None,
) -> NDArray[np.uint8]:
    size_HW = size_HW or (image_HW3.shape[0], image_HW3.shape[1])
    return _studio_of(size_HW, _FLOOR if floor is None else floor, icc_profile).copy()


# Most photos of one folder give one size, and vehicles on it stand at one height.
@lru_cache(maxsize=4)
def _studio_of(size_HW: Size, floor: float, icc_profile: bytes | None) -> NDArray[np.uint8]:
    return convert_colors(draw_studio(size_HW, floor), None, icc_profile)


def _filled(size_HW: Size, rgb: tuple[int, int, int], icc_profile: bytes | None) -> NDArray[np.uint8]:
    red, green, blue = convert_colors(np.array([[rgb]], dtype=np.uint8), None, icc_profile)[0, 0].tolist()
    # Pillow fills three channels faster than NumPy, and a copy is faster than np.array.
    return np.asarray(Image.new("RGB", size_HW[::-1], (red, green, blue))).copy()


def _rgb(text: str) -> tuple[int, int, int]:
    try:
        red, green, blue, *alpha = ImageColor.getrgb(text)
    except ValueError as error:
        raise BadBackground(f"background {text!r}: not a color like #fff or #ffffff; {_COLORS}") from error
    if alpha:
        raise BadBackground(f"background {text!r}: partly transparent; {_COLORS}")
    return red, green, blue
