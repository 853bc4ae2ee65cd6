"""Photos decoded and fitted once, kept as memory-mapped uint8 arrays.

A cache folder holds `images.npy` (N x H x W x C, uint8), `masks.npy` (N x H x W, uint8 soft masks) and `cache.json`.
Its name is a digest of the content of all files and of the recipe by which they were fitted, so other photos or
another geometry are another cache. The digests of the files are remembered by size and time of change, so that a second
start reads no photo; the cache itself is checked against checksums each time, at memory speed.

A build that is asked to stop leaves its rows, with `stopped.json` beside them, to the next build of the same cache.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from carmask.data.digests import read_digests
from carmask.data.pairs import Pair, load_soft_mask
from carmask.errors import CarmaskError
from carmask.imaging.decode import MaskReading, decode_photo
from carmask.imaging.geometry import Geometry, fit_image, fit_mask, plan
from carmask.limits import usable_cpus
from carmask.progress import Progress
from carmask.runner import map_ahead

# Raise when decoding or fitting changes its result, or the notes change: older caches are then made anew.
CACHE_FORM = 4
CHECKSUM_BLOCK_BYTES = 1 << 24

# What builds that were killed have left is removed by the next build, when no build can still be at it.
_LEFTOVERS = "[0-9a-f]" * 16 + ".*.partial"
_LEFT_OVER_AFTER_S = 24 * 60 * 60

# What is noted about a cache, and about the rows of one that is not finished.
_NOTES, _STOPPED = "cache.json", "stopped.json"

# Rows for each thread that may wait to be noted.
_AHEAD = 4

_Array: TypeAlias = np.memmap[Any, np.dtype[np.uint8]]


class CacheError(CarmaskError):
    """A cache that cannot be written."""


class CacheUnfinished(CarmaskError):
    """The time for a cache was over before it was finished. What was done is kept for the next time."""


class CacheKey(BaseModel):
    """How photos and masks become rows of a cache."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    geometry: Geometry
    channels: int
    stride_px: int = 1
    foreground: int | None = None


@dataclass(frozen=True)
class Cache:
    """Fitted photos and soft masks. Nothing is in memory until it is indexed.

    `row_of[id]` is the row of a pair in both arrays, `area_of[id]` the share of the photo (0..1) that its mask covers.
    Pairs that could not be used are in `failures` with the cause, and have no row. `rules` tells how the masks were
    read (rule -> number of masks), `odd` whose masks look like something else than a mask of one thing (id ->
    complaint).
    """

    folder: Path
    images_NHWC: _Array
    masks_NHW: _Array
    row_of: Mapping[str, int]
    area_of: Mapping[str, float]
    failures: Mapping[str, str]
    rules: Mapping[str, int]
    odd: Mapping[str, str]
    fresh: bool


def fit_pair(pair: Pair, recipe: CacheKey) -> tuple[NDArray[np.uint8], NDArray[np.uint8], MaskReading]:
    """Decode and fit one pair: `image_HWC` and `soft_HW` (uint8, 0..255), and how the mask was read.

    Raises:
        CarmaskError: photo or mask cannot be read, or do not fit each other.

    """
    photo = decode_photo(pair.image, channels=recipe.channels, at_least_HW=recipe.geometry.size_HW)
    reading = load_soft_mask(pair, foreground=recipe.foreground)
    placement = plan(photo.size_HW, recipe.geometry, stride_px=recipe.stride_px)
    return fit_image(photo.image_HWC, placement), fit_mask(reading.soft_HW, placement), reading


def open_cache(
    pairs: Sequence[Pair],
    recipe: CacheKey,
    folder: Path,
    *,
    progress: Progress | None = None,
    wants_stop: Callable[[], bool] = lambda: False,
) -> Cache:
    """Open the cache of these pairs below `folder`, building it when it is missing, stale or damaged.

    `progress(done, total)` is called while photos are decoded, by a thread for each CPU. `wants_stop` is asked after
    each file that was read; however soon it says so, something is done each time.

    Raises:
        CacheError: `folder` cannot be written, or has too little room.
        CacheUnfinished: `wants_stop` said so before all was done.

    """
    try:
        return _open_cache(pairs, recipe, folder, progress, wants_stop)
    except OSError as error:
        raise CacheError(f"{folder}: the cache cannot be written ({error.strerror}); choose another folder") from error


def _open_cache(
    pairs: Sequence[Pair],
    recipe: CacheKey,
    folder: Path,
    progress: Progress | None,
    wants_stop: Callable[[], bool],
) -> Cache:
    folder.mkdir(parents=True, exist_ok=True)
    digests = read_digests(pairs, folder / "digests.json", wants_stop)
    if len(digests) < len(pairs):
        raise CacheUnfinished(f"{len(digests)} of {len(pairs)} photos are read")
    contents = {"form": CACHE_FORM, "recipe": recipe.model_dump(), "pairs": digests}
    place = folder / hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]
    found = _open_intact(place)
    if found is not None:
        return found
    aside = _aside(place)
    _remove_leftovers(folder)
    try:
        _build(aside, pairs, recipe, progress, wants_stop)
        _publish(aside, place)
    finally:
        if not (aside / _STOPPED).exists():
            shutil.rmtree(aside, ignore_errors=True)
    built = _open_intact(place)
    if built is None:
        raise CacheError(f"{place}: the cache does not read back as it was written; is the disk full or failing?")
    return replace(built, fresh=True)


def _aside(place: Path) -> Path:
    """A folder of our own in which the cache is built: one that a build has left when it was stopped, or a new one."""
    new = Path(tempfile.mkdtemp(prefix=f"{place.name}.", suffix=".partial", dir=place.parent))
    for notes in place.parent.glob(f"{place.name}.*.partial/{_STOPPED}"):
        try:
            # However long ago it was stopped, somebody is at it again.
            os.utime(notes.parent)
            notes.parent.replace(new)
        except OSError:
            continue  # somebody else was quicker
        break
    return new


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.glob(_LEFTOVERS):
        try:
            age_s = time.time() - leftover.stat().st_mtime
        except FileNotFoundError:
            continue  # it was somebody else's, and is finished
        if age_s > _LEFT_OVER_AFTER_S:
            shutil.rmtree(leftover, ignore_errors=True)


def _publish(aside: Path, place: Path) -> None:
    """Move a finished cache into its place, unless somebody else was quicker with the same one."""
    try:
        aside.replace(place)
    except OSError:
        if _open_intact(place) is None:
            shutil.rmtree(place, ignore_errors=True)
            aside.replace(place)


def _open_intact(place: Path, notes_name: str = _NOTES, *, mode: Literal["r", "r+"] = "r") -> Cache | None:
    """The cache in `place`, or nothing when any part of it is missing or damaged."""
    try:
        notes = json.loads((place / notes_name).read_text())
        checksums = notes.pop("checksums")
        if checksums != _checksums(place, notes):
            return None
        images_NHWC = np.load(place / "images.npy", mmap_mode=mode)
        masks_NHW = np.load(place / "masks.npy", mmap_mode=mode)
        return Cache(place, images_NHWC, masks_NHW, **notes, fresh=False)
    except (OSError, ValueError, KeyError, EOFError, TypeError):
        return None


@dataclass(frozen=True)
class _Filled:
    """What is noted about a mask: its area (0..1), how it was read, and what is odd about it."""

    area: float
    rule: str
    odd: str | None


@dataclass
class _Notes:
    """What is noted about the rows that are done, the first ones of all; see `Cache`."""

    row_of: dict[str, int] = field(default_factory=dict)
    area_of: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    rules: dict[str, int] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """How many rows these are."""
        return len(self.row_of) + len(self.failures)

    def take(self, id_: str, outcome: _Filled | CarmaskError) -> None:
        """Note what became of the next row."""
        if isinstance(outcome, _Filled):
            self.row_of[id_], self.area_of[id_] = self.done, outcome.area
            self.rules[outcome.rule] = self.rules.get(outcome.rule, 0) + 1
            if outcome.odd:
                self.odd[id_] = outcome.odd
        else:
            self.failures[id_] = str(outcome)

    def as_json(self) -> dict[str, Any]:
        """The most frequent rule first."""
        return {**asdict(self), "rules": dict(Counter(self.rules).most_common())}


def _build(
    place: Path,
    pairs: Sequence[Pair],
    recipe: CacheKey,
    progress: Progress | None,
    wants_stop: Callable[[], bool],
) -> None:
    images_NHWC, masks_NHW, notes = _begun(place, len(pairs), recipe)
    # From here on its checksums are no longer true.
    (place / _STOPPED).unlink(missing_ok=True)

    def fill(row: int) -> _Filled | CarmaskError:
        """Write one row; what is noted about its mask, or why the pair cannot be used."""
        try:
            images_NHWC[row], masks_NHW[row], reading = fit_pair(pairs[row], recipe)
        except CarmaskError as error:
            return error
        return _Filled(reading.area, reading.rule, reading.odd)

    workers = usable_cpus()
    with ThreadPoolExecutor(workers) as pool:
        for outcome in map_ahead(pool, fill, range(notes.done, len(pairs)), _AHEAD * workers):
            notes.take(pairs[notes.done].id, outcome)
            if progress is not None:
                progress(notes.done, len(pairs))
            if wants_stop():
                break
    images_NHWC.flush()
    masks_NHW.flush()
    is_finished = notes.done == len(pairs)
    told = notes.as_json()
    file = place / (_NOTES if is_finished else _STOPPED)
    file.write_text(json.dumps({**told, "checksums": _checksums(place, told)}))
    if not is_finished:
        raise CacheUnfinished(f"{notes.done} of {len(pairs)} photos are decoded")


def _begun(place: Path, count: int, recipe: CacheKey) -> tuple[_Array, _Array, _Notes]:
    """The arrays to be filled, images and masks, and what is noted about the rows that are done already."""
    kept = _open_intact(place, _STOPPED, mode="r+")
    notes = _Notes() if kept is None else _Notes(**{one.name: dict(getattr(kept, one.name)) for one in fields(_Notes)})
    canvas_HW = recipe.geometry.canvas_HW(recipe.stride_px)
    needed_bytes = (count - notes.done) * canvas_HW[0] * canvas_HW[1] * (recipe.channels + 1)
    # Running out of room while writing into mapped memory would kill the process.
    if shutil.disk_usage(place).free < needed_bytes:
        raise CacheError(f"{place.parent}: the cache needs {needed_bytes / 1e9:.1f} GB, more than is free there")
    if kept is not None:
        return kept.images_NHWC, kept.masks_NHW, notes
    images_NHWC = _new_array(place / "images.npy", (count, *canvas_HW, recipe.channels))
    return images_NHWC, _new_array(place / "masks.npy", (count, *canvas_HW)), notes


def _new_array(path: Path, shape: tuple[int, ...]) -> _Array:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


def _checksums(place: Path, notes: Mapping[str, Any]) -> dict[str, int]:
    """CRC-32 of both arrays, one thread each (zlib releases the interpreter), and of what is noted about them."""
    names = ("images.npy", "masks.npy")
    with ThreadPoolExecutor(len(names)) as pool:
        of_arrays = dict(zip(names, pool.map(lambda name: _crc32(place / name), names), strict=True))
    return {**of_arrays, "notes": zlib.crc32(json.dumps(notes, sort_keys=True).encode())}


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(CHECKSUM_BLOCK_BYTES):
            checksum = zlib.crc32(block, checksum)
    return checksum
