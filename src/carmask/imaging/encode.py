"""Encode masks, soft masks, pictures and cut-outs; the same pixels always give the same bytes."""

import io
import math
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from carmask.errors import CarmaskError
from carmask.imaging import PictureFormat
from carmask.imaging.masks import require_mask
from carmask.imaging.metadata import NO_METADATA, PictureMetadata

# For a photo or cut-out of 1918 x 1280 px, filtering each row by the one above and deflating at level 1 takes half the
# time of the filters that libpng and Pillow choose at that level, and makes files 5 % larger.
_FAST_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)
_SOFT_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)
# At this quality no difference is visible.
QUALITY = 90
# Methods above 2 take 50 % longer for files 5 % smaller.
_WEBP_METHOD = 2
# Of 0 to 10. One thread, because the bytes must not depend on how many there are.
_AVIF_SPEED = 9
_MAX_SIDE_PX: dict[PictureFormat, int] = {"webp": 16383, "jpg": 65_500, "avif": 65_536}

# PNG's signature and the chunk IHDR.
_HEADER_BYTES = 33
# JPEG's first marker and the segment APP0 of JFIF, where in it the density is, the most that a segment APP2 holds of a
# profile, and the most of these segments, which are numbered in a byte (ICC.1:2022, B.4).
_JFIF_BYTES, _DENSITY = 20, slice(13, 18)
_ICC_PART_BYTES, _MOST_ICC_PARTS = 65_519, 255

_TO_BGR = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}


def encode_mask(mask_HW: NDArray[np.bool_]) -> bytes:
    """Encode a bool mask (height, width) as 1-bit PNG, foreground white."""
    require_mask(mask_HW)
    buffer = io.BytesIO()
    Image.fromarray(mask_HW).save(buffer, format="PNG")
    return buffer.getvalue()


def encode_soft(probability_HW: NDArray[np.float32]) -> bytes:
    """Encode a probability (height, width), 0..1, as 8-bit gray PNG: 255 times the probability, rounded."""
    if probability_HW.ndim != 2 or not np.issubdtype(probability_HW.dtype, np.floating):
        raise ValueError(
            f"a probability is a float array (height, width), not {probability_HW.dtype} {probability_HW.shape}"
        )
    level_HW: NDArray[np.uint8] = cv2.convertScaleAbs(np.clip(probability_HW, 0.0, 1.0), alpha=255.0)
    return _png(level_HW[..., None], _SOFT_PNG)


def encode_png(image_HWC: NDArray[np.uint8]) -> bytes:
    """Encode a uint8 picture (height, width, 1, 3 or 4 channels) as PNG."""
    return encode_picture(image_HWC, "png")


def encode_picture(
    image_HWC: NDArray[np.uint8],
    picture_format: PictureFormat,
    icc_profile: bytes | None = None,
    *,
    quality: int = QUALITY,
    metadata: PictureMetadata = NO_METADATA,
) -> bytes:
    """Encode a uint8 picture: 1 channel (gray), 3 (RGB) or 4 (RGBA, cut-outs).

    PNG, TIFF and the alpha of WebP are lossless; JPEG has no alpha. icc_profile: a color profile to store in the
    file. It is left out if it is made for other channels, such as that of a gray photo for its cut-out in RGBA.
    quality: of JPEG, WebP and AVIF, 1..100.

    Raises:
        CarmaskError: a side is longer, or the color profile larger, than the format allows, or this Pillow cannot write
            AVIF.
    """
    channels = image_HWC.shape[2] if image_HWC.ndim == 3 else 0
    if channels not in (1, 3, 4) or image_HWC.dtype != np.uint8:
        raise ValueError(f"an image is uint8 (height, width, 1, 3 or 4), not {image_HWC.dtype} {image_HWC.shape}")
    if channels == 4 and picture_format == "jpg":
        raise ValueError("JPEG has no transparency")
    height, width = image_HWC.shape[:2]
    if max(height, width) > _MAX_SIDE_PX.get(picture_format, height + width):
        most = _MAX_SIDE_PX[picture_format]
        raise CarmaskError(
            f"its result is {height} x {width} px, and {picture_format} allows at most {most} px per side; choose png"
        )
    space = b"GRAY" if channels == 1 else b"RGB "
    profile = icc_profile if icc_profile is not None and icc_profile[16:20] == space else None
    if picture_format == "png":
        return _png(image_HWC, _FAST_PNG, profile, metadata)
    if picture_format == "jpg":
        return _jpeg(image_HWC, quality, profile, metadata)
    # WebP and AVIF have no gray mode: their pixels are RGB, and a gray profile does not describe them.
    if channels == 1 and picture_format in ("webp", "avif"):
        image_HWC, profile = np.repeat(image_HWC, 3, axis=2), None
    image = Image.fromarray(image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC)
    buffer = io.BytesIO()
    stored: dict[str, Any] = {"icc_profile": profile, "exif": metadata.exif}
    if metadata.dpi is not None and picture_format == "tiff":
        stored["dpi"] = metadata.dpi
    if picture_format == "webp":
        stored |= {"quality": quality, "method": _WEBP_METHOD}
    elif picture_format == "tiff":
        stored |= {"compression": "tiff_adobe_deflate", "exif": metadata.tiff_tags}
    elif not features.check("avif"):
        raise CarmaskError("this Pillow cannot write AVIF; install pillow 11.3 or later, or choose another format")
    else:
        stored |= {"quality": quality, "speed": _AVIF_SPEED, "max_threads": 1}
    given = {name: value for name, value in stored.items() if value is not None}
    image.save(buffer, format=picture_format, **given)
    return buffer.getvalue()


def _png(
    image_HWC: NDArray[np.uint8],
    settings: tuple[int, ...],
    icc_profile: bytes | None = None,
    metadata: PictureMetadata = NO_METADATA,
) -> bytes:
    encoded = _encode_pixels(".png", image_HWC, settings)
    # OpenCV can store a profile with libpng, but writes no file if it breaks a rule, as those of some photos do.
    chunks = b""
    if icc_profile is not None:
        chunks += _png_chunk(b"iCCP", b"ICC Profile\0" + b"\0" + zlib.compress(icc_profile))
    if metadata.dpi is not None:
        per_meter = [math.floor(one / 0.0254 + 0.5) for one in metadata.dpi]
        chunks += _png_chunk(b"pHYs", struct.pack(">IIB", *per_meter, 1))
    if metadata.exif is not None:
        chunks += _png_chunk(b"eXIf", metadata.exif.removeprefix(b"Exif\0\0"))
    return encoded[:_HEADER_BYTES] + chunks + encoded[_HEADER_BYTES:] if chunks else encoded


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk to be inserted after the header (PNG specification, 5.3)."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _jpeg(image_HWC: NDArray[np.uint8], quality: int, icc_profile: bytes | None, metadata: PictureMetadata) -> bytes:
    """The bytes that Pillow would write: both use libjpeg-turbo, and OpenCV takes a third less time."""
    encoded = _encode_pixels(".jpg", image_HWC, (cv2.IMWRITE_JPEG_QUALITY, quality))
    header = bytearray(encoded[:_JFIF_BYTES])
    if metadata.dpi is not None:
        header[_DENSITY] = struct.pack(">BHH", 1, *(min(round(one), 0xFFFF) for one in metadata.dpi))
    if metadata.exif is not None:
        header += _jpeg_segment(0xE1, metadata.exif)
    profile = icc_profile or b""
    if len(profile) > _MOST_ICC_PARTS * _ICC_PART_BYTES:
        raise CarmaskError(f"its color profile has {len(profile):,} bytes, more than a JPEG can hold; choose png")
    parts = [profile[start : start + _ICC_PART_BYTES] for start in range(0, len(profile), _ICC_PART_BYTES)]
    for number, part in enumerate(parts, start=1):
        header += _jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes((number, len(parts))) + part)
    return bytes(header) + encoded[_JFIF_BYTES:]


def _jpeg_segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _encode_pixels(ending: str, image_HWC: NDArray[np.uint8], settings: tuple[int, ...]) -> bytes:
    to_bgr = _TO_BGR.get(image_HWC.shape[2])
    bgr_HWC = np.ascontiguousarray(image_HWC) if to_bgr is None else cv2.cvtColor(image_HWC, to_bgr)
    is_encoded, data = cv2.imencode(ending, bgr_HWC, settings)
    if not is_encoded:
        raise ValueError(f"a picture of {image_HWC.shape} cannot be encoded as {ending}")
    return bytes(data)
