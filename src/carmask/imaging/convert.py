"""Conversions of opened pictures that Pillow's own `convert` gets wrong or does not have: deep grays and turns."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Turn and mirror a stored picture so that it stands as EXIF orientation 1..8 says it is to be shown."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def is_deep(image: Image.Image) -> bool:
    """Whether the picture is gray with more than 8 bits (Pillow's modes I, I;16.., F), which `convert` would clip."""
    return image.mode == "F" or image.mode.startswith("I")


def deep_values(image: Image.Image) -> tuple[NDArray[np.float32], float]:
    """Gray values (height, width) of a deep picture as float32, and the value that means white.

    16-bit grays are white at 65535 (a TIFF of 9 to 15 bits at its own 2^bits - 1). 32-bit integers and floats have no
    agreed white: it is the smallest of 1 (floats only), 255 and 65535 that holds the brightest pixel, else that pixel.
    What is not a finite number counts as 0.
    """
    value_HW = np.nan_to_num(np.asarray(image).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    if image.mode.startswith("I;16"):
        bits = int(image.tag_v2.get(258, (16,))[0]) if isinstance(image, TiffImageFile) else 16
        return value_HW, float(2**bits - 1)
    brightest = float(value_HW.max(initial=0.0))
    usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    return value_HW, next((white for white in usual if brightest <= white), brightest)


def deep_to_uint8(value_HW: NDArray[np.float32], white: float) -> NDArray[np.uint8]:
    """Scale 0..white to 0..255, rounded; values outside are set to the nearer end."""
    level_HW: NDArray[np.float32] = np.rint(np.clip(value_HW / white, 0.0, 1.0) * 255.0)
    return level_HW.astype(np.uint8)
