"""Colors of another space: a background as it must be stored behind a photo that has a color profile of its own."""

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

# Profiles that store colors up to so many levels differently are taken for one: most photos carry sRGB's own.
_SAME_LEVELS = 2
_SOME_LEVELS = np.linspace(0, 255, 6).astype(np.uint8)


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
