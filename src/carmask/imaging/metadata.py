"""What a result keeps of its photo's metadata: its density, and of its EXIF what tells of the picture alone.

Where the photo was taken, whose camera and lens it was (serial numbers, owner), previews, and what makers of cameras
and programs write in forms of their own (maker notes, XMP, comments) are never kept: only the tags below are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import IFDRational

from carmask.imaging.image_file import ImageSource, open_image

_MAIN = (Base.ImageDescription, Base.Make, Base.Model, Base.DateTime, Base.Artist, Base.Copyright)
_CAMERA = (
    *(Base.DateTimeOriginal, Base.DateTimeDigitized, Base.OffsetTime, Base.OffsetTimeOriginal),
    *(Base.ExposureTime, Base.FNumber, Base.ExposureProgram, Base.ISOSpeedRatings, Base.ExposureBiasValue),
    *(Base.MeteringMode, Base.Flash, Base.FocalLength, Base.FocalLengthIn35mmFilm, Base.WhiteBalance),
    *(Base.LensMake, Base.LensModel),
)
_LONGEST_TEXT = 1000
_MOST_DPI = 100_000


@dataclass(frozen=True)
class PictureMetadata:
    """What is stored beside the pixels.

    exif: a TIFF structure as Pillow writes it, without orientation. tiff_tags: the same by tag, without those of the
    camera, which Pillow cannot write into a compressed TIFF. dpi: horizontal, vertical.
    """

    exif: bytes | None = None
    tiff_tags: Mapping[int, Any] | None = None
    dpi: tuple[float, float] | None = None


NO_METADATA = PictureMetadata()


def read_metadata(source: ImageSource, *, name: str | None = None) -> PictureMetadata:
    """Read what a result may keep, from the picture's header; nothing where the metadata is damaged.

    Raises `UnreadableImage` if it is no picture.
    """
    with open_image(source, max_pixels=None, name=name) as image:
        return kept_metadata(image)


def kept_metadata(image: Image.Image) -> PictureMetadata:
    """Return what a result may keep of an opened picture."""
    kept, exif_bytes = Image.Exif(), None
    tags: dict[int, Any] = {}
    try:
        exif = Image.Image.getexif(image)
        # Pillow reads texts as Latin-1 and writes them as ASCII, so these are written as their bytes.
        tags = {tag: _as_bytes(value) for tag, value in _plain_tags(exif, _MAIN).items()}
        kept.update(tags)
        of_camera = _plain_tags(exif.get_ifd(IFD.Exif), _CAMERA)
        # Here bytes would get another type of EXIF than a text's, and Pillow would write other letters as "?".
        of_camera = {tag: value for tag, value in of_camera.items() if not isinstance(value, str) or value.isascii()}
        if of_camera:
            kept[IFD.Exif] = of_camera
        exif_bytes = kept.tobytes() if kept else None
    except Exception:  # noqa: BLE001 - Pillow raises almost anything for damaged metadata
        exif_bytes, tags = None, {}
    return PictureMetadata(exif_bytes, tags or None, _dpi(image.info.get("dpi")))


def _plain_tags(found: Mapping[int, Any], wanted: Sequence[int]) -> dict[int, Any]:
    return {int(tag): value for tag in wanted if _is_plain(value := found.get(tag))}


def _as_bytes(value: Any) -> Any:
    return value.encode("latin-1", "replace") if isinstance(value, str) else value


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        # Most programs write UTF-8.
        return 0 < len(value) <= _LONGEST_TEXT and _as_bytes(value).decode("utf-8", "replace").isprintable()
    if isinstance(value, IFDRational):
        return value.denominator != 0
    return isinstance(value, int)


def _dpi(value: object) -> tuple[float, float] | None:
    try:
        x, y = map(float, value)  # type: ignore[call-overload]
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if all(math.isfinite(one) and 1 <= one <= _MOST_DPI for one in (x, y)) else None
