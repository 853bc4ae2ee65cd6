"""Photos decoded and fitted once, kept as memory-mapped uint8 arrays.

A cache folder holds `images.npy` (N x H x W x C, uint8), `masks.npy` (N x H x W, uint8 soft masks) and `cache.json`.
Its name is a digest of the content of all files and of the recipe by which they were fitted, so other photos or
another geometry are another cache. The digests of the files are remembered by size and time of change, so that a second
start reads no photo; the cache itself is checked against checksums each time, at memory speed.
"""

import hashlib
import json
import shutil
import stat
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter

from carmask.data.pairs import Pair, load_soft_mask
from carmask.errors import CarmaskError
from carmask.files import write_bytes_atomically
from carmask.imaging.decode import MaskReading, decode_photo
from carmask.imaging.geometry import Geometry, fit_image, fit_mask, plan
from carmask.progress import Progress

# Raise when decoding or fitting changes its result, or the notes change: older caches are then made anew.
CACHE_FORM = 4
CHECKSUM_BLOCK_BYTES = 1 << 24

# What builds that were killed have left is removed by the next build, when no build can still be at it.
_LEFTOVERS = "[0-9a-f]" * 16 + ".*.partial"
_LEFT_OVER_AFTER_S = 24 * 60 * 60

# Size, time of change and SHA-256 of a file, by its path.
_Known = TypeAdapter(dict[str, tuple[int, int, str]])


class CacheError(CarmaskError):
    """A cache that cannot be written."""


class CacheRecipe(BaseModel):
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
    images_NHWC: NDArray[np.uint8]
    masks_NHW: NDArray[np.uint8]
    row_of: Mapping[str, int]
    area_of: Mapping[str, float]
    failures: Mapping[str, str]
    rules: Mapping[str, int]
    odd: Mapping[str, str]
    fresh: bool


def fit_pair(pair: Pair, recipe: CacheRecipe) -> tuple[NDArray[np.uint8], NDArray[np.uint8], MaskReading]:
    """Decode and fit one pair: `image_HWC` and `soft_HW` (uint8, 0..255), and how the mask was read.

    Raises:
        CarmaskError: photo or mask cannot be read, or do not fit each other.

    """
    photo = decode_photo(pair.image, channels=recipe.channels, at_least_HW=recipe.geometry.size_HW)
    reading = load_soft_mask(pair, foreground=recipe.foreground)
    placement = plan(photo.size_HW, recipe.geometry, stride_px=recipe.stride_px)
    return fit_image(photo.image_HWC, placement), fit_mask(reading.soft_HW, placement), reading


def open_cache(
    pairs: Sequence[Pair], recipe: CacheRecipe, folder: Path, *, workers: int = 2, progress: Progress | None = None
) -> Cache:
    """Open the cache of these pairs below `folder`, building it when it is missing, stale or damaged.

    `progress(done, total)` is called while photos are decoded, by `workers` threads.

    Raises:
        CacheError: `folder` cannot be written, or has too little room.

    """
    try:
        return _open_cache(pairs, recipe, folder, workers, progress)
    except OSError as error:
        raise CacheError(f"{folder}: the cache cannot be written ({error.strerror}); choose another folder") from error


def _open_cache(
    pairs: Sequence[Pair], recipe: CacheRecipe, folder: Path, workers: int, progress: Progress | None
) -> Cache:
    folder.mkdir(parents=True, exist_ok=True)
    contents = {"form": CACHE_FORM, "recipe": recipe.model_dump(), "pairs": _digests(pairs, folder / "digests.json")}
    place = folder / hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]
    found = _open_intact(place)
    if found is not None:
        return found
    _remove_leftovers(folder)
    aside = Path(tempfile.mkdtemp(prefix=f"{place.name}.", suffix=".partial", dir=folder))
    try:
        _build(aside, pairs, recipe, workers, progress)
        _publish(aside, place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    built = _open_intact(place)
    if built is None:
        raise CacheError(f"{place}: the cache does not read back as it was written; is the disk full or failing?")
    return replace(built, fresh=True)


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


def _digests(pairs: Sequence[Pair], memory: Path) -> list[list[str]]:
    """Id and content digests of each pair. Files whose size and time of change are known are not read again."""
    try:
        known = _Known.validate_json(memory.read_bytes())
    except (OSError, ValueError):
        known = {}
    before = dict(known)

    def digest(source: Path | str) -> str:
        if isinstance(source, str):
            return hashlib.sha256(source.encode()).hexdigest()
        name = str(source.absolute())
        try:
            status = source.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a named pipe or a device might never end
                return "unreadable: not a plain file"
            if known.get(name, ())[:2] != (status.st_size, status.st_mtime_ns):
                with source.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                known[name] = (status.st_size, status.st_mtime_ns, content)
        except OSError as error:
            return f"unreadable: {error.strerror}"
        return known[name][2]

    result = [[pair.id, digest(pair.image), digest(pair.mask)] for pair in pairs]
    if known != before or not memory.exists():
        write_bytes_atomically(memory, json.dumps(known).encode())
    return result


def _open_intact(place: Path) -> Cache | None:
    """The cache in `place`, or nothing when any part of it is missing or damaged."""
    try:
        notes = json.loads((place / "cache.json").read_text())
        checksums = notes.pop("checksums")
        if checksums != _checksums(place, notes):
            return None
        images_NHWC = np.load(place / "images.npy", mmap_mode="r")
        masks_NHW = np.load(place / "masks.npy", mmap_mode="r")
        return Cache(place, images_NHWC, masks_NHW, **notes, fresh=False)
    except (OSError, ValueError, KeyError, EOFError, TypeError):
        return None


@dataclass(frozen=True)
class _Filled:
    """What is noted about a mask: its area (0..1), how it was read, and what is odd about it."""

    area: float
    rule: str
    odd: str | None


def _build(place: Path, pairs: Sequence[Pair], recipe: CacheRecipe, workers: int, progress: Progress | None) -> None:
    canvas_HW = recipe.geometry.canvas_HW(recipe.stride_px)
    needed_bytes = len(pairs) * canvas_HW[0] * canvas_HW[1] * (recipe.channels + 1)
    # Running out of room while writing into mapped memory would kill the process.
    if shutil.disk_usage(place).free < needed_bytes:
        raise CacheError(f"{place.parent}: the cache needs {needed_bytes / 1e9:.1f} GB, more than is free there")
    images_NHWC = _new_array(place / "images.npy", (len(pairs), *canvas_HW, recipe.channels))
    masks_NHW = _new_array(place / "masks.npy", (len(pairs), *canvas_HW))

    def fill(row: int) -> _Filled | CarmaskError:
        """Write one row; what is noted about its mask, or why the pair cannot be used."""
        try:
            images_NHWC[row], masks_NHW[row], reading = fit_pair(pairs[row], recipe)
        except CarmaskError as error:
            return error
        return _Filled(reading.area, reading.rule, reading.odd)

    row_of, area_of, failures, odd = {}, {}, {}, {}
    rules: Counter[str] = Counter()
    with ThreadPoolExecutor(workers) as pool:
        for row, outcome in enumerate(pool.map(fill, range(len(pairs)))):
            id_ = pairs[row].id
            if isinstance(outcome, _Filled):
                row_of[id_], area_of[id_] = row, outcome.area
                rules[outcome.rule] += 1
                if outcome.odd:
                    odd[id_] = outcome.odd
            else:
                failures[id_] = str(outcome)
            if progress is not None:
                progress(row + 1, len(pairs))
    images_NHWC.flush()
    masks_NHW.flush()
    notes: dict[str, Any] = {
        "row_of": row_of,
        "area_of": area_of,
        "failures": failures,
        "rules": dict(rules.most_common()),
        "odd": odd,
    }
    (place / "cache.json").write_text(json.dumps({**notes, "checksums": _checksums(place, notes)}))


def _new_array(path: Path, shape: tuple[int, ...]) -> "np.memmap[Any, np.dtype[np.uint8]]":
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
