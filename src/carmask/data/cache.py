"""Photos decoded and fitted once, kept as memory-mapped uint8 arrays; `carmask.data.cache_build` makes them.

A cache folder holds `images.npy` (N x H x W x C, uint8), `masks.npy` (N x H x W, uint8 soft masks), `cache.json` and,
if pixels may be unknown, `known.npy` (N x H x W, uint8, 255 where the mask is known, else 0). Its name is a digest of
the content of all files and of how they were fitted, so other photos or another geometry have another cache. It is
checked against checksums each time, at memory speed.
"""

import json
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from carmask.data.pairs import Pair, load_soft_mask
from carmask.data.turned import TURNED, fits_turned
from carmask.imaging.color import to_srgb
from carmask.imaging.decode import MaskReading, decode_photo
from carmask.imaging.geometry import Geometry, fit_image, fit_known, fit_mask, plan

# The notes about a finished cache, about the rows of an unfinished one, and what they hold; see `Cache`.
NOTES, STOPPED = "cache.json", "stopped.json"
NOTED = ("row_of", "area_of", "failures", "rules", "odd", "inverted")

# The arrays of a cache, in the order of the fields of `Cache`; the last one is there only if masks may be unknown.
ARRAYS = ("images.npy", "masks.npy", "known.npy")

_CHECKSUM_BLOCK_BYTES = 1 << 24

CacheArray: TypeAlias = np.memmap[Any, np.dtype[np.uint8]]


class CacheKey(BaseModel):
    """How photos and masks become rows of a cache."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    geometry: Geometry
    channels: int
    stride_px: int = 1
    foreground: int | None = None
    ignore: int | None = None


@dataclass(frozen=True)
class Cache:
    """Fitted photos and soft masks. They are not in memory until they are indexed.

    `row_of[id]` is the row of a pair in all arrays, `area_of[id]` the share of the photo (0..1) that its mask covers.
    `known_NHW` is 255 where a mask is known, else 0; None if the key has no `ignore` and no label is of unknown pixels.
    Pairs that could not be used have no row; `failures` gives the cause. `rules` says how the masks were read (rule ->
    number of masks), `odd` which masks do not look like masks of a single object (id -> warning), `inverted` which
    look inverted (id -> stored value of their background). `fresh`: whether it was built just now.
    """

    folder: Path
    images_NHWC: CacheArray
    masks_NHW: CacheArray
    known_NHW: CacheArray | None = None
    row_of: dict[str, int] = field(default_factory=dict)
    area_of: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    rules: dict[str, int] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    inverted: dict[str, int] = field(default_factory=dict)
    fresh: bool = False

    @property
    def done(self) -> int:
        """How many pairs were decoded, whether they could be used or not."""
        return len(self.row_of) + len(self.failures)


def fit_pair(
    pair: Pair, key: CacheKey
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8] | None, MaskReading]:
    """Decode and fit one pair: `image_HWC`, `soft_HW` and `known_HW` (uint8, 0..255), and how the mask was read.

    `known_HW` is 255 where the mask is known, else 0; None if the key has no `ignore` and the labels nothing unknown.

    Raises:
        CarmaskError: photo or mask cannot be read, or they differ in size.
    """
    photo = decode_photo(pair.image, channels=key.channels, at_least_HW=key.geometry.size_HW)
    read_by_key = replace(pair, foreground=key.foreground, ignore=key.ignore)
    reading = load_soft_mask(read_by_key, photo_HW=photo.size_HW)
    if fits_turned(photo, reading.soft_HW):
        reading = replace(reading, odd=TURNED)
    placement = plan(photo.size_HW, key.geometry, stride_px=key.stride_px)
    known_HW = None
    if key.ignore is not None or reading.known_HW is not None:
        known_HW = np.full(placement.canvas_HW, 255, dtype=np.uint8)
        if reading.known_HW is not None:
            known_HW *= fit_known(reading.known_HW, placement)
    image_HWC = to_srgb(fit_image(photo.image_HWC, placement), photo.icc_profile)
    return image_HWC, fit_mask(reading.soft_HW, placement), known_HW, reading


def open_intact(folder: Path, notes_name: str = NOTES, *, mode: Literal["r", "r+"] = "r") -> Cache | None:
    """The cache in `folder`, or None if any part of it is missing or damaged."""
    try:
        notes = json.loads((folder / notes_name).read_text())
        checksums = notes.pop("checksums")
        if checksums != checksums_of(folder, notes) or set(notes) != set(NOTED):
            return None
        arrays = [np.load(folder / name, mmap_mode=mode) for name in ARRAYS if name in checksums]
        return Cache(folder, *arrays, **notes)
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError):
        return None


def checksums_of(folder: Path, notes: Mapping[str, Any]) -> dict[str, int]:
    """CRC-32 of all arrays, one thread each (zlib releases the interpreter), and of the notes about them."""
    names = [name for name in ARRAYS if (folder / name).exists()]
    with ThreadPoolExecutor(len(names)) as pool:
        of_arrays = dict(zip(names, pool.map(lambda name: _crc32(folder / name), names), strict=True))
    return {**of_arrays, "notes": zlib.crc32(json.dumps(notes, sort_keys=True).encode())}


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_CHECKSUM_BLOCK_BYTES):
            checksum = zlib.crc32(block, checksum)
    return checksum
