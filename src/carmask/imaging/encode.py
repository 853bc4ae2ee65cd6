"""Encode masks, soft masks, pictures and cut-outs; the same pixels always give the same bytes."""

import io
import struct
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carmask.imaging import PictureFormat
from carmask.imaging.masks import require_mask

# For a photo or cut-out of 1918 x 1280 px, filtering each row by the one above and deflating at level 1 takes half the
# time of the filters that libpng and Pillow choose at that level, and makes files 5 % larger.
_FAST_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)
_SOFT_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)
# At this quality no difference is visible. Methods above 2 take 50 % longer for files 5 % smaller.
_WEBP_QUALITY = 90
_WEBP_METHOD = 2

# PNG's signature and the chunk IHDR.
_HEADER_BYTES = 33

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
    return _png(level_HW[..., None], _SOFT_PNG, None)


def encode_png(image_HWC: NDArray[np.uint8]) -> bytes:
    """Encode a uint8 picture (height, width, 1, 3 or 4 channels) as PNG."""
    return encode_picture(image_HWC, "png")


def encode_picture(
    image_HWC: NDArray[np.uint8], picture_format: PictureFormat, icc_profile: bytes | None = None
) -> bytes:
    """Encode a uint8 picture: 1 channel (gray), 3 (RGB) or 4 (RGBA, cut-outs), as PNG or WebP.

    PNG and the alpha of WebP are lossless, the colors of WebP are not. icc_profile: a color profile to store in the
    file. It is left out if it is made for other channels, such as that of a gray photo for its cut-out in RGBA.
    """
    channels = image_HWC.shape[2] if image_HWC.ndim == 3 else 0
    if channels not in (1, 3, 4) or image_HWC.dtype != np.uint8:
        raise ValueError(f"an image is uint8 (height, width, 1, 3 or 4), not {image_HWC.dtype} {image_HWC.shape}")
    space = b"GRAY" if channels == 1 else b"RGB "
    profile = icc_profile if icc_profile is not None and icc_profile[16:20] == space else None
    if picture_format == "png":
        return _png(image_HWC, _FAST_PNG, profile)
    # WebP has no gray mode: its pixels are RGB, and a gray profile does not describe them.
    if channels == 1:
        image_HWC, profile = np.repeat(image_HWC, 3, axis=2), None
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(
        buffer, format="WEBP", quality=_WEBP_QUALITY, method=_WEBP_METHOD, icc_profile=profile
    )
    return buffer.getvalue()


def _png(image_HWC: NDArray[np.uint8], settings: tuple[int, ...], icc_profile: bytes | None) -> bytes:
    to_bgr = _TO_BGR.get(image_HWC.shape[2])
    bgr_HWC = np.ascontiguousarray(image_HWC) if to_bgr is None else cv2.cvtColor(image_HWC, to_bgr)
    is_encoded, data = cv2.imencode(".png", bgr_HWC, settings)
    if not is_encoded:
        raise ValueError(f"a picture of {image_HWC.shape} cannot be encoded as PNG")
    return _with_profile(bytes(data), icc_profile) if icc_profile is not None else bytes(data)


def _with_profile(png: bytes, icc_profile: bytes) -> bytes:
    """Insert a color profile after the header (PNG specification, 11.3.2.3).

    OpenCV can store one with libpng, but writes no file if the profile breaks a rule, as those of some photos do.
    """
    chunk = b"iCCP" + b"ICC Profile\0" + b"\0" + zlib.compress(icc_profile)
    framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return png[:_HEADER_BYTES] + framed + png[_HEADER_BYTES:]
