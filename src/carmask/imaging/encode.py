"""Results as files: masks, soft masks and cut-outs as PNG, the same bytes for the same pixels every time."""

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encode_mask(mask_HW: NDArray[np.bool_]) -> bytes:
    """Encode a bool mask (height, width) as 1-bit PNG, foreground white."""
    if mask_HW.ndim != 2 or mask_HW.dtype != np.bool_:
        raise ValueError(f"a mask is a bool array (height, width), not {mask_HW.dtype} {mask_HW.shape}")
    return _png(Image.fromarray(mask_HW))


def encode_soft(probability_HW: NDArray[np.float32]) -> bytes:
    """Encode a probability (height, width), 0..1, as 8-bit grey PNG: 255 times the probability, rounded."""
    return _png(Image.fromarray(_alpha(probability_HW)))


def encode_cutout(
    image_HWC: NDArray[np.uint8], probability_HW: NDArray[np.float32], icc_profile: bytes | None = None
) -> bytes:
    """Encode a photo with the probability of foreground as its alpha, as RGBA PNG.

    image_HWC: uint8, 1 or 3 channels. probability_HW: 0..1, of the same height and width. icc_profile: the photo's
    colour profile, kept in the file. Pixels that are wholly transparent are made black: the file is smaller, and
    nothing of the background can be brought back from it.
    """
    if image_HWC.shape[:2] != probability_HW.shape or image_HWC.shape[2:] not in ((1,), (3,)):
        raise ValueError(f"image {image_HWC.shape} and probability {probability_HW.shape} do not fit together")
    alpha_HW = _alpha(probability_HW)
    to_rgba = cv2.COLOR_RGB2RGBA if image_HWC.shape[2] == 3 else cv2.COLOR_GRAY2RGBA
    rgba_HW4 = cv2.insertChannel(alpha_HW, cv2.cvtColor(image_HWC, to_rgba), 3)
    rgba_HW4 = cv2.bitwise_and(rgba_HW4, rgba_HW4, mask=alpha_HW)
    # A profile for greys does not describe RGBA pixels.
    profile = icc_profile if icc_profile is not None and icc_profile[16:20] == b"RGB " else None
    # On a photo level 1 takes half the time of the default level and makes a file a seventh larger.
    return _png(Image.fromarray(rgba_HW4), compress_level=1, icc_profile=profile)


def encode_png(image_HWC: NDArray[np.uint8]) -> bytes:
    """Encode a uint8 picture (height, width, 1 or 3 channels) as PNG."""
    if image_HWC.ndim != 3 or image_HWC.shape[2] not in (1, 3) or image_HWC.dtype != np.uint8:
        raise ValueError(f"an image is uint8 (height, width, 1 or 3), not {image_HWC.dtype} {image_HWC.shape}")
    return _png(Image.fromarray(image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC), compress_level=3)


def _alpha(probability_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    if probability_HW.ndim != 2 or not np.issubdtype(probability_HW.dtype, np.floating):
        raise ValueError(
            f"a probability is a float array (height, width), not {probability_HW.dtype} {probability_HW.shape}"
        )
    alpha_HW: NDArray[np.uint8] = cv2.convertScaleAbs(np.clip(probability_HW, 0.0, 1.0), alpha=255.0)
    return alpha_HW


def _png(image: Image.Image, *, compress_level: int = 6, icc_profile: bytes | None = None) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=compress_level, icc_profile=icc_profile)
    return buffer.getvalue()
