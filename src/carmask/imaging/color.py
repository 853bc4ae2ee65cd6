"""Colors of another space: photos with a color profile of their own, as networks see them and before a background."""

import io
import struct
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

# Profiles that store colors up to so many levels differently are taken for one: most photos carry sRGB's own.
_SAME_LEVELS = 2
_SOME_LEVELS = np.linspace(0, 255, 6).astype(np.uint8)

# The code point of Display P3 in ISO/IEC 23091-2 (SMPTE EG 432-1).
DISPLAY_P3_PRIMARIES = 12
# Its red, green and blue (SMPTE EG 432-1) adapted to the white of profiles, D50 (Bradford), and that white; XYZ.
_P3_XYZ = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.15710, 0.06657, 0.78407),
    b"wtpt": (0.96420, 1.0, 0.82491),
}
# IEC 61966-2-1: exponent, and the coefficients of the ICC's function type 3.
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def to_srgb(image_HWC: NDArray[np.uint8], profile: bytes | None) -> NDArray[np.uint8]:
    """Colors as networks learn them: sRGB. Grays stay as they are."""
    return image_HWC if profile is None or image_HWC.shape[2] != 3 else convert_colors(image_HWC, profile, None)


@lru_cache(maxsize=1)
def display_p3() -> bytes:
    """An ICC profile (ICC.1:2022) of Display P3, for photos that name this space by its number alone."""

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    def text(words: str) -> bytes:
        encoded = words.encode("utf-16-be")
        return b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(encoded), 28) + encoded

    data = {tag: b"XYZ " + bytes(4) + fixed(*xyz) for tag, xyz in _P3_XYZ.items()}
    data |= {b"desc": text("Display P3"), b"cprt": text("CC0")}
    data |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"para" + struct.pack(">IHH", 0, 3, 0) + fixed(*_SRGB_CURVE))
    table, body = struct.pack(">I", len(data)), b""
    for tag, value in data.items():
        offset = 128 + 4 + 12 * len(data) + len(body)
        table += tag + struct.pack(">II", offset, len(value))
        body += value + bytes(-len(value) % 4)
    header = struct.pack(">I4sI4s4s4s", 132 + len(table) - 4 + len(body), b"", 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(*_P3_XYZ[b"wtpt"])
    return header.ljust(128, b"\0") + table + body


def convert_colors(image_HW3: NDArray[np.uint8], profile: bytes | None, to_profile: bytes | None) -> NDArray[np.uint8]:
    """Convert uint8 RGB from one ICC profile to another, None being sRGB, with relative colorimetric intent.

    Returns `image_HW3` itself if both are the same space, or if a profile is damaged or only describes a device that
    reads colors.
    """
    transform = None if profile == to_profile else _transform(profile, to_profile)
    return image_HW3 if transform is None else _applied(transform, image_HW3)


@lru_cache(maxsize=8)
def _transform(profile: bytes | None, to_profile: bytes | None) -> ImageCms.ImageCmsTransform | None:
    try:
        source, target = _open(profile), _open(to_profile)
        transform = ImageCms.buildTransform(source, target, "RGB", "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
    except (ImageCms.PyCMSError, OSError):
        return None
    levels_N13 = np.stack(np.meshgrid(*[_SOME_LEVELS] * 3), axis=-1).reshape(-1, 1, 3)
    difference_N13 = _applied(transform, levels_N13).astype(np.int16) - levels_N13
    return transform if np.abs(difference_N13).max() > _SAME_LEVELS else None


def _open(profile: bytes | None) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB") if profile is None else io.BytesIO(profile))


def _applied(transform: ImageCms.ImageCmsTransform, image_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.array(transform.apply(Image.fromarray(np.ascontiguousarray(image_HW3))))
