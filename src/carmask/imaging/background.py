"""What a cut-out lies on: nothing, a color, another picture, or the photo's own background, blurred."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageOps

from carmask.errors import CarmaskError
from carmask.imaging.decode import IMAGE_SUFFIXES, decode_photo
from carmask.imaging.foreground import local_mean, sure_bounds
from carmask.imaging.geometry import Size

# Of the photo's longer side: how far the blur reaches, and how far colors are carried into where the vehicle was.
_BLUR_REACH = 1 / 48
_CARRY_REACH = 1 / 4

_COLORS = "give transparent, blur, or a color such as white or #f0f0f0"


class BadBackground(CarmaskError):
    """Something that is neither a color nor a picture, nor another of the backgrounds."""


class Background(Protocol):
    """What lies behind the vehicle. One serves any number of photos, in any thread."""

    def canvas(
        self, image_HW3: NDArray[np.uint8], probability_HW: NDArray[np.float32], threshold: float
    ) -> NDArray[np.uint8]:
        """Return a new picture of the photo's size to lay the vehicle on.

        uint8, RGB, or four channels of 0 where the background is transparent.
        """
        ...


@dataclass(frozen=True)
class Transparent:
    """Nothing behind the vehicle."""

    def canvas(self, image_HW3: NDArray[np.uint8], _: NDArray[np.float32], __: float) -> NDArray[np.uint8]:
        """Four channels of 0."""
        return np.zeros((*image_HW3.shape[:2], 4), dtype=np.uint8)


@dataclass(frozen=True)
class Color:
    """One color, RGB 0..255."""

    rgb: tuple[int, int, int]

    def canvas(self, image_HW3: NDArray[np.uint8], _: NDArray[np.float32], __: float) -> NDArray[np.uint8]:
        """The color everywhere."""
        return np.asarray(Image.new("RGB", image_HW3.shape[1::-1], self.rgb)).copy()


@dataclass(frozen=True, eq=False)
class Picture:
    """Another picture, uint8 RGB, scaled to cover the photo and cropped about its middle."""

    image_HW3: NDArray[np.uint8]

    def canvas(self, image_HW3: NDArray[np.uint8], _: NDArray[np.float32], __: float) -> NDArray[np.uint8]:
        """The part of the picture that covers the photo."""
        return self._covering(image_HW3.shape[:2]).copy()

    @cached_property
    def _covering(self) -> Callable[[Size], NDArray[np.uint8]]:
        # Photos of one folder mostly have one size, so the last few are kept, for as long as the picture is.
        return lru_cache(maxsize=4)(partial(_cover, self.image_HW3))


@dataclass(frozen=True)
class Blur:
    """The photo's own background, blurred as far out of focus, without the colors of the vehicle."""

    def canvas(
        self, image_HW3: NDArray[np.uint8], probability_HW: NDArray[np.float32], threshold: float
    ) -> NDArray[np.uint8]:
        """The blurred photo; where the vehicle was, the colors of the background around it."""
        background_to, _ = sure_bounds(threshold)
        longer_px = max(probability_HW.shape)
        radii_px = (longer_px * _BLUR_REACH, longer_px * _CARRY_REACH)
        mean_hw3 = local_mean(image_HW3, probability_HW <= background_to, radii_px, passes=3)
        blurred_HW3: NDArray[np.uint8] = cv2.resize(
            mean_hw3, probability_HW.shape[::-1], interpolation=cv2.INTER_LINEAR
        )
        return blurred_HW3


def parse_background(text: str) -> Background:
    """Read `transparent`, `blur`, a color (CSS's names, #rgb or #rrggbb) or the path of a picture, which is decoded.

    Raises:
        BadBackground: it is none of these.
        UnreadableImage: it is a file that is not a readable picture.

    """
    wanted = text.strip()
    named = _named(wanted)
    if named is not None:
        return named
    if Path(wanted).suffix.lower() in IMAGE_SUFFIXES or Path(wanted).is_file():
        return Picture(decode_photo(wanted).image_HWC)
    raise BadBackground(
        f"background {text!r}: is neither a color nor a picture{_meant(wanted)}; {_COLORS}, or the path of a picture"
    )


def named_background(text: str) -> Background:
    """Read `transparent`, `blur` or a color. No file is looked at, whatever the text says.

    Raises:
        BadBackground: it is none of these.

    """
    named = _named(text.strip())
    if named is None:
        raise BadBackground(f"background {text!r}: is no color{_meant(text.strip())}; {_COLORS}")
    return named


def _named(wanted: str) -> Background | None:
    if wanted.lower() == "transparent":
        return Transparent()
    if wanted.lower() == "blur":
        return Blur()
    if wanted.startswith("#") or wanted.lower() in ImageColor.colormap:
        return Color(_rgb(wanted))
    return None


def _meant(wanted: str) -> str:
    near = difflib.get_close_matches(wanted.lower(), ("transparent", "blur", *ImageColor.colormap), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _rgb(text: str) -> tuple[int, int, int]:
    try:
        red, green, blue, *alpha = ImageColor.getrgb(text)
    except ValueError as error:
        raise BadBackground(f"background {text!r}: is no color as #fff or #ffffff; {_COLORS}") from error
    if alpha:
        raise BadBackground(f"background {text!r}: is partly transparent; {_COLORS}")
    return red, green, blue


def _cover(image_HW3: NDArray[np.uint8], size_HW: Size) -> NDArray[np.uint8]:
    return np.asarray(ImageOps.fit(Image.fromarray(image_HW3), size_HW[::-1], Image.Resampling.LANCZOS))
