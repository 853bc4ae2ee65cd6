"""What is behind a vehicle that was cut out: nothing, a color, a picture, a studio, or its photo, blurred."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from os.path import isfile
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageOps

from carmask.errors import CarmaskError
from carmask.imaging.color import convert_colors
from carmask.imaging.decode import IMAGE_SUFFIXES, Photo, decode_photo
from carmask.imaging.foreground import local_mean, sure_bounds
from carmask.imaging.geometry import Size
from carmask.imaging.studio import draw_studio

# As shares of the photo's longer side: the radius of the blur, and how far colors are carried to where the vehicle was.
_BLUR_RADIUS = 1 / 48
_FILL_RADIUS = 1 / 4

_NAMES = ("transparent", "blur", "studio")
_COLORS = "give transparent, blur, studio, or a color such as white or #f0f0f0"
# Where the floor of a studio is that no vehicle stands in.
_FLOOR = 0.8


@dataclass(frozen=True, eq=False)
class BackgroundInput:
    """The photo that a background is for, and the canvas on which its vehicle is placed.

    image_HW3: uint8 RGB. probability_HW: float32 0..1. icc_profile: of the photo. canvas_HW: size of the canvas; None
    for the photo's own. floor: where the vehicle stands, as a share 0..1 of the canvas's height.
    """

    image_HW3: NDArray[np.uint8]
    probability_HW: NDArray[np.float32]
    threshold: float
    icc_profile: bytes | None = None
    canvas_HW: Size | None = None
    floor: float | None = None

    @property
    def size_HW(self) -> Size:
        """Height and width of the background."""
        return self.canvas_HW or (self.image_HW3.shape[0], self.image_HW3.shape[1])


# Returns a new canvas in the photo's color space: uint8 RGB, or four channels of 0 if transparent. In any thread.
Background: TypeAlias = Callable[[BackgroundInput], NDArray[np.uint8]]


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
        return lambda given: _filled(given.size_HW, rgb, given.icc_profile)
    if may_be_picture and (Path(wanted).suffix.lower() in IMAGE_SUFFIXES or isfile(wanted)):  # noqa: PTH113 - unlike is_file it never raises
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

    return lambda given: cover(given.size_HW, given.icc_profile).copy()


def _transparent(given: BackgroundInput) -> NDArray[np.uint8]:
    return np.zeros((*given.size_HW, 4), dtype=np.uint8)


def _blurred(given: BackgroundInput) -> NDArray[np.uint8]:
    """The photo, blurred; where the vehicle was, the colors of the background around it."""
    background_to, _sure = sure_bounds(given.threshold)
    longer_px = max(given.probability_HW.shape)
    radii_px = (longer_px * _BLUR_RADIUS, longer_px * _FILL_RADIUS)
    mean_hw3 = local_mean(given.image_HW3, given.probability_HW <= background_to, radii_px, passes=3)
    if given.canvas_HW is not None:
        return np.array(ImageOps.fit(Image.fromarray(mean_hw3), given.canvas_HW[::-1], Image.Resampling.BILINEAR))
    blurred_HW3: NDArray[np.uint8] = cv2.resize(
        mean_hw3, given.probability_HW.shape[::-1], interpolation=cv2.INTER_LINEAR
    )
    return blurred_HW3


def _studio(given: BackgroundInput) -> NDArray[np.uint8]:
    return _studio_of(given.size_HW, _FLOOR if given.floor is None else given.floor, given.icc_profile).copy()


# Most photos of one folder give one size, and vehicles on it stand at one height.
@lru_cache(maxsize=1)
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
