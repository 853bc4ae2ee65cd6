"""HEIF (HEIC) and AVIF: pictures in ISO media files, which say in boxes how they are turned and what their colors mean.

An EXIF orientation in such a file only repeats those boxes (ISO/IEC 23008-12, 6.5.10) and is never applied a second
time.
"""

import re
from typing import IO

from PIL import ImageFile
from PIL.AvifImagePlugin import AvifImageFile

from carmask.imaging.color import DISPLAY_P3_PRIMARIES, display_p3

# `colr` boxes of type nclx (ISO/IEC 23091-2): the code point of the primaries follows. They are near the file's start.
_NCLX = re.compile(rb"colrnclx(..)", re.DOTALL)
_META_BYTES = 1 << 16


def open_heif(stream: IO[bytes]) -> ImageFile.ImageFile:
    """Open a HEIF file; libheif turns its main picture, and leaves out depth maps, gain maps and thumbnails.

    More than 8 bits a channel become 8.
    """
    # It takes a while to import, and most photos are JPEGs.
    from pi_heif import HeifImageFile

    image: ImageFile.ImageFile = HeifImageFile(stream)
    if image.info.get("nclx_profile", {}).get("color_primaries") == DISPLAY_P3_PRIMARIES:
        image.info.setdefault("icc_profile", display_p3())
    return image


def open_avif(stream: IO[bytes]) -> ImageFile.ImageFile:
    """Open an AVIF file. Its turn is in the EXIF orientation, where Pillow writes what the boxes say."""
    head = stream.read(_META_BYTES)
    stream.seek(0)
    image = AvifImageFile(stream)
    # Pillow looks for an orientation there if EXIF has none.
    image.info.pop("xmp", None)
    primaries = {int.from_bytes(found, "big") for found in _NCLX.findall(head)}
    if primaries == {DISPLAY_P3_PRIMARIES}:
        image.info.setdefault("icc_profile", display_p3())
    return image
