"""A cache of the tiny data set, and what has to be in it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from carmask.data.cache import Cache, CacheKey
from carmask.data.pairs import Pair, find_pairs
from carmask.imaging.decode import decode_photo
from carmask.imaging.geometry import Geometry, fit_image, fit_mask, plan

KEY = CacheKey(geometry=Geometry(height_px=30, width_px=50), channels=3, stride_px=4)


def pairs_of(data: Path) -> tuple[Pair, ...]:
    return find_pairs(data).pairs


def by_hand(pair: Pair, key: CacheKey = KEY) -> tuple[np.ndarray, np.ndarray]:
    assert isinstance(pair.mask, Path)
    mask_HW = np.array(Image.open(pair.mask)) * np.uint8(255)
    placement = plan(mask_HW.shape, key.geometry, stride_px=key.stride_px)
    image_HWC = decode_photo(pair.image, channels=key.channels).image_HWC
    return fit_image(image_HWC, placement), fit_mask(mask_HW, placement)


def relabel(pair: Pair, folder: Path) -> tuple[Pair, np.ndarray]:
    """Give a pair another mask, with unknown pixels (128), and return its values too."""
    value_HW = np.random.default_rng(0).choice(np.array([0, 128, 255], np.uint8), (60, 90), p=[0.5, 0.02, 0.48])
    value_HW[:, :30] = 128
    mask = folder / f"{pair.id}.png"
    Image.fromarray(value_HW).save(mask)
    return replace(pair, mask=mask), value_HW


def assert_right(cache: Cache, pairs: tuple[Pair, ...], key: CacheKey = KEY) -> None:
    assert set(cache.row_of) == {pair.id for pair in pairs}
    for pair in pairs:
        image_HWC, mask_HW = by_hand(pair, key)
        np.testing.assert_array_equal(cache.images_NHWC[cache.row_of[pair.id]], image_HWC)
        np.testing.assert_array_equal(cache.masks_NHW[cache.row_of[pair.id]], mask_HW)
