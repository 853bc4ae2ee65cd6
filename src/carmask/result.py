"""The mask of one photo."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carmask.errors import CarmaskError
from carmask.imaging.decode import ImageSource, Photo, decode_photo, photo_of_pixels
from carmask.imaging.geometry import Size
from carmask.imaging.masks import Box, box_of

__all__ = ["Box", "PhotoSource", "Result", "decode_any"]

# A path, the bytes of a picture file, or a picture that is decoded already.
PhotoSource = ImageSource | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Result:
    """The mask of one photo. `probability` is float32 0..1, (height, width) of the photo as it is shown."""

    probability: NDArray[np.float32]
    threshold: float
    source: PhotoSource | None = field(default=None, repr=False)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Bool (height, width), at the photo's own size."""
        return self.probability >= self.threshold

    @cached_property
    def coverage(self) -> float:
        """Share of the photo that the mask covers, 0..1."""
        return float(np.count_nonzero(self.mask) / self.mask.size)

    @cached_property
    def box_px(self) -> Box | None:
        """Top, left, bottom, right in pixels, bottom and right exclusive; None if no vehicle was found."""
        return box_of(self.mask)

    def cutout(self, background: str = "transparent", *, crop: bool = False) -> Image.Image:
        """The vehicle on another background, as a Pillow image: RGBA if that is transparent, else RGB.

        The photo is read again, at its full size. Its color profile is kept in `info["icc_profile"]`.

        Args:
            background: transparent, a CSS color name or #rrggbb, blur, or the path of a picture.
            crop: Keep only the box around the mask; the whole picture if no vehicle was found.

        Raises:
            CarmaskError: there is no such background, or the photo cannot be read any more.

        """
        # Its tables take a while to build, and masks do not need them.
        from carmask.imaging.background import parse_background
        from carmask.imaging.cutout import cut_out

        if self.source is None:
            raise CarmaskError("this result does not know its photo; cut out with carmask.imaging.cutout.cut_out")
        photo = decode_any(self.source, channels=3)
        if photo.size_HW != self.probability.shape:
            raise CarmaskError("the photo has another size now; compute its mask again")
        image_HWC = cut_out(
            photo.image_HWC,
            self.probability,
            parse_background(background),
            crop_px=self.box_px if crop else None,
            threshold=self.threshold,
        )
        image = Image.fromarray(image_HWC)
        if photo.icc_profile is not None:
            image.info["icc_profile"] = photo.icc_profile
        return image


def decode_any(source: PhotoSource, *, channels: int, at_least_HW: Size | None = None) -> Photo:
    """Decode a file or its bytes, or convert a decoded picture; see `decode_photo` and `photo_of_pixels`.

    Raises:
        UnreadableImage: not a readable picture.

    """
    if isinstance(source, str | Path | bytes):
        return decode_photo(source, channels=channels, at_least_HW=at_least_HW)
    return photo_of_pixels(source, channels=channels)
