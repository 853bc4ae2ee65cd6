"""The mask of one photo, and the pictures that are made with it."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carmask.errors import CarmaskError
from carmask.imaging.decode import ImageSource, Photo, decode_photo, photo_of_pixels
from carmask.imaging.encode import encode_picture
from carmask.imaging.geometry import Size
from carmask.imaging.look import Look, load_look
from carmask.imaging.masks import Box, box_of
from carmask.imaging.metadata import NO_METADATA, kept_metadata, read_metadata
from carmask.models.dice_calibration import DiceCalibration, certainty

# A path, the bytes of a picture file, or a picture that is decoded already.
PhotoSource = ImageSource | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Result:
    """The mask of one photo. `probability` is float32 0..1, (height, width) of the photo as it is shown.

    Results of networks come from `Segmenter.result`, which adds the calibrations of the networks.
    """

    probability: NDArray[np.float32]
    threshold: float
    source: PhotoSource | None = field(default=None, repr=False)
    calibrations: tuple[DiceCalibration, ...] = field(default=(), repr=False)
    remark: str = ""

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

    @cached_property
    def expected_dice(self) -> float | None:
        """The Dice that this mask will have with the true one, 0..1, as far as the probability tells: low is doubtful.

        For an empty mask, how likely it is that the photo shows no vehicle. None if a network is not calibrated. With
        several networks, the mean of their values.
        """
        if not self.calibrations:
            return None
        certain = certainty(self.probability, self.threshold)
        expected = [dice for one in self.calibrations if (dice := one(certain)) is not None]
        return round(fmean(expected), 4) if len(expected) == len(self.calibrations) else None

    @property
    def score(self) -> float:
        """The expected Dice, or without a calibration the network's certainty of the mask, 0..1: low is doubtful."""
        return certainty(self.probability, self.threshold).score if self.expected_dice is None else self.expected_dice

    def cutout(self, background: str = "transparent", *, crop: bool = False) -> Image.Image:
        """The vehicle on another background, as a Pillow image: RGBA if that is transparent, else RGB.

        The photo is read again, at its full size. Its color profile is kept in `info["icc_profile"]`.

        Args:
            background: transparent, a CSS color name or #rrggbb, blur, studio, or the path of a picture.
            crop: Keep only the box around the mask; the whole picture if no vehicle was found.

        Raises:
            CarmaskError: there is no such background, or the photo cannot be read any more.
        """
        image_HWC, photo = self._composed(Look(background=background, crop=crop), None)
        image = Image.fromarray(image_HWC)
        if photo.icc_profile is not None:
            image.info["icc_profile"] = photo.icc_profile
        return image

    def compose(self, look: Look | str | Path = "showroom", *, extent_HW: Size | None = None) -> bytes:
        """The bytes of the picture that `carmask predict --look` writes; the photo is read again, at its full size.

        Args:
            look: cutout, showroom, marketplace, the path of a YAML file, or a `carmask.imaging.look.Look`.
            extent_HW: With the scale same-car, the largest height and width of the car's boxes in all its photos.

        Raises:
            CarmaskError: there is no such look, or the photo cannot be read any more.
        """
        look = look if isinstance(look, Look) else load_look(look)
        look.require_opaque_jpeg()
        image_HWC, photo = self._composed(look, extent_HW)
        metadata = NO_METADATA
        if isinstance(self.source, str | Path | bytes) and not look.strip:
            metadata = read_metadata(self.source)
        elif isinstance(self.source, Image.Image) and not look.strip:
            metadata = kept_metadata(self.source)
        return encode_picture(image_HWC, look.format, photo.icc_profile, quality=look.quality, metadata=metadata)

    def _composed(self, look: Look, extent_HW: Size | None) -> tuple[NDArray[np.uint8], Photo]:
        # Their tables take a while to build, and masks do not need them.
        from carmask.imaging.background import parse_background
        from carmask.imaging.compose import compose

        if self.source is None:
            raise CarmaskError("this result does not know its photo; cut out with carmask.imaging.cutout.cut_out")
        photo = decode_source(self.source, channels=3)
        if photo.size_HW != self.probability.shape:
            raise CarmaskError("the photo has another size now; compute its mask again")
        background = parse_background(look.background)
        composed_HWC = compose(
            photo, self.probability, self.box_px, look, background, threshold=self.threshold, extent_HW=extent_HW
        )
        return composed_HWC, photo


def decode_source(source: PhotoSource, *, channels: int, at_least_HW: Size | None = None) -> Photo:
    """Decode a file or its bytes, or convert a decoded picture; see `decode_photo` and `photo_of_pixels`."""
    if isinstance(source, str | Path | bytes):
        return decode_photo(source, channels=channels, at_least_HW=at_least_HW)
    return photo_of_pixels(source, channels=channels)
