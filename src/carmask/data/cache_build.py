"""Open the cache of some photos; decode and fit them first if it is missing, outdated or damaged.

The digests of the files are remembered by `file_identity`, so that a second start reads no photo. A build that is asked
to stop, also by Ctrl-C, leaves its rows, with `stopped.json` beside them, to the next build of the same cache.
"""

import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from carmask.data.cache import (
    ARRAYS,
    NOTED,
    NOTES,
    STOPPED,
    Cache,
    CacheArray,
    CacheKey,
    checksums_of,
    fit_pair,
    open_intact,
)
from carmask.data.labeled import Truth
from carmask.data.pairs import Pair
from carmask.errors import CarmaskError
from carmask.files import file_identity, write_bytes_atomically
from carmask.labels.shapes import PhotoLabels
from carmask.limits import usable_cpus
from carmask.progress import Progress
from carmask.runner import map_ahead

# Raise when decoding or fitting changes its result, or the notes change, so that older caches are not used.
CACHE_FORM = 7

# Folders that killed builds left are removed by the next build, when no build can still be writing to them.
_UNFINISHED = "[0-9a-f]" * 16 + ".*.partial"
_ABANDONED_AFTER_S = 24 * 60 * 60

# Rows for each thread that may wait to be noted.
_AHEAD = 4

# `file_identity` and SHA-256 of a file, by its path.
_KNOWN_DIGESTS = TypeAdapter(dict[str, tuple[tuple[int, int, int, int], str]])


class CacheError(CarmaskError):
    """A cache that cannot be written."""


class CacheUnfinished(CarmaskError):
    """The build was stopped before the cache was finished. The next build continues it."""


def open_cache(
    pairs: Sequence[Pair],
    key: CacheKey,
    folder: Path,
    *,
    progress: Progress | None = None,
    wants_stop: Callable[[], bool] = lambda: False,
) -> Cache:
    """Open the cache of these pairs below `folder`. Build it if it is missing, outdated or damaged.

    Pairs that failed are tried again; if one of them can be used now, the cache is outdated.

    progress: called with (photos decoded, photos in all). wants_stop: called after each file that was read; if it
    returns True, the build stops. Every call of this function makes some progress, however early that is.

    Raises:
        CacheError: `folder` cannot be written, or has not enough space.
        CacheUnfinished: `wants_stop` returned True before the cache was finished.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        digests = _read_digests(pairs, folder / "digests.json", wants_stop)
        if len(digests) < len(pairs):
            raise CacheUnfinished(f"{len(digests)} of {len(pairs)} photos are read")
        contents = {"form": CACHE_FORM, "recipe": key.model_dump(), "pairs": digests}
        path = folder / hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]
        found = open_intact(path)
        if found and not any(_can_be_used(pair, key) for pair in pairs if pair.id in found.failures):
            return found
        partial = _partial_folder(path)
        _remove_abandoned(folder)
        try:
            failures = _build(partial, pairs, key, progress, wants_stop)
            _publish(partial, path, failures)
        finally:
            if not (partial / STOPPED).exists():
                shutil.rmtree(partial, ignore_errors=True)
        built = open_intact(path)
    except OSError as error:
        raise CacheError(f"{folder}: the cache cannot be written ({error.strerror}); choose another folder") from error
    if built is None:
        raise CacheError(f"{path}: the cache does not read back as it was written; is the disk full or failing?")
    return replace(built, fresh=True)


def _read_digests(pairs: Sequence[Pair], known_file: Path, wants_stop: Callable[[], bool]) -> list[list[str]]:
    """Id, SHA-256 of the photo's content and of the mask's content ("none" if there is no mask) of each pair, in order.

    Files that `known_file` knows by their `file_identity` are not read again. If `wants_stop` returns True
    after a file was read, the remaining pairs are missing.
    """
    try:
        known = _KNOWN_DIGESTS.validate_json(known_file.read_bytes())
    except (OSError, ValueError):
        known = {}
    read: list[str] = []

    def digest(source: Truth) -> str:
        if source is None:
            return "none"
        if isinstance(source, PhotoLabels):
            return source.digest
        if isinstance(source, str):
            return hashlib.sha256(source.encode()).hexdigest()
        name = str(source.absolute())
        try:
            status = source.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a named pipe or a device might never end
                return "unreadable: not a plain file"
            if name not in known or known[name][0] != file_identity(status):
                with source.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                read.append(name)
                known[name] = (file_identity(status), content)
        except OSError as error:
            return f"unreadable: {error.strerror}"
        return known[name][1]

    digests = []
    for pair in pairs:
        if read and wants_stop():
            break
        digests.append([pair.id, digest(pair.image), digest(pair.mask)])
    if read or not known_file.exists():
        write_bytes_atomically(known_file, json.dumps(known).encode())
    return digests


def _can_be_used(pair: Pair, key: CacheKey) -> bool:
    """Whether a pair that failed can be used now: with a larger `--max-pixels`, or where the disk had failed.

    A repaired file has another digest, so it is another cache. Each start decodes at most the pairs that failed, which
    takes far less time than the checksums, as long as they are few.
    """
    try:
        fit_pair(pair, key)
    except CarmaskError:
        return False
    return True


def _partial_folder(path: Path) -> Path:
    """A folder in which this process alone builds the cache: that of a stopped build, or a new one."""
    new = Path(tempfile.mkdtemp(prefix=f"{path.name}.", suffix=".partial", dir=path.parent))
    for notes in path.parent.glob(f"{path.name}.*.partial/{STOPPED}"):
        try:
            os.utime(notes.parent)  # it may be old, and now is in use again
            notes.parent.replace(new)
        except OSError:
            continue  # another process took it
        break
    return new


def _remove_abandoned(folder: Path) -> None:
    for partial in folder.glob(_UNFINISHED):
        try:
            age_s = time.time() - partial.stat().st_mtime
        except FileNotFoundError:
            continue  # another process has just finished it
        if age_s > _ABANDONED_AFTER_S:
            shutil.rmtree(partial, ignore_errors=True)


def _publish(partial: Path, path: Path, failures: int) -> None:
    """Rename a finished cache to its final path, unless another process has just published the same one."""
    try:
        partial.replace(path)
    except OSError:
        found = open_intact(path)
        if found is None or len(found.failures) > failures:
            shutil.rmtree(path, ignore_errors=True)
            partial.replace(path)


def _build(
    folder: Path, pairs: Sequence[Pair], key: CacheKey, progress: Progress | None, wants_stop: Callable[[], bool]
) -> int:
    """Fill the cache in `folder`, and return how many pairs cannot be used."""
    cache = _begin(folder, pairs, key)
    # From here on its checksums are no longer true.
    (folder / STOPPED).unlink(missing_ok=True)

    def fill(row: int) -> tuple[float, str, str | None, int | None] | CarmaskError:
        """Write one row. Return area, rule, what is odd and the inverted background of its mask, or what failed."""
        try:
            cache.images_NHWC[row], cache.masks_NHW[row], known_HW, reading = fit_pair(pairs[row], key)
            if cache.known_NHW is not None:
                cache.known_NHW[row] = 255 if known_HW is None else known_HW
        except CarmaskError as error:
            return error
        return reading.area, reading.rule, reading.odd, reading.inverted

    interrupt: KeyboardInterrupt | None = None
    workers = usable_cpus()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for outcome in map_ahead(pool, fill, range(cache.done, len(pairs)), _AHEAD * workers):
                _note(cache, pairs[cache.done].id, outcome)
                if progress is not None:
                    progress(cache.done, len(pairs))
                if wants_stop():
                    break
        except KeyboardInterrupt as error:
            interrupt = error
    cache.images_NHWC.flush()
    cache.masks_NHW.flush()
    if cache.known_NHW is not None:
        cache.known_NHW.flush()
    notes = {name: getattr(cache, name) for name in NOTED} | {"rules": dict(Counter(cache.rules).most_common())}
    is_finished = cache.done == len(pairs) and interrupt is None
    # No atomic write: the folder gets its name, or the next build finds it, only after this.
    file = folder / (NOTES if is_finished else STOPPED)
    file.write_text(json.dumps({**notes, "checksums": checksums_of(folder, notes)}))
    if interrupt is not None:
        raise interrupt
    if not is_finished:
        raise CacheUnfinished(f"{cache.done} of {len(pairs)} photos are decoded")
    return len(cache.failures)


def _note(cache: Cache, id_: str, outcome: tuple[float, str, str | None, int | None] | CarmaskError) -> None:
    """Note what `fill` returned for the next row. The row counts as done last, since Ctrl-C may come at any time."""
    if isinstance(outcome, CarmaskError):
        cache.failures[id_] = str(outcome)
        return
    cache.area_of[id_], rule, odd, background = outcome
    if odd:
        cache.odd[id_] = odd
    if background is not None:
        cache.inverted[id_] = background
    cache.rules[rule] = cache.rules.get(rule, 0) + 1
    cache.row_of[id_] = cache.done


def _begin(folder: Path, pairs: Sequence[Pair], key: CacheKey) -> Cache:
    """The cache to be filled, writable, with the rows that a stopped build has written."""
    stopped = open_intact(folder, STOPPED, mode="r+")
    canvas_HW = key.geometry.canvas_HW(key.stride_px)
    count = len(pairs)
    missing = count - (stopped.done if stopped else 0)
    has_unknown = key.ignore is not None or any(
        isinstance(pair.mask, PhotoLabels) and pair.mask.has_unknown for pair in pairs
    )
    needed_bytes = missing * canvas_HW[0] * canvas_HW[1] * (key.channels + 1 + has_unknown)
    # A full disk would kill the process while it writes to mapped memory.
    if shutil.disk_usage(folder).free < needed_bytes:
        raise CacheError(f"{folder.parent}: the cache needs {needed_bytes / 1e9:.1f} GB, more than is free there")
    if stopped is not None:
        return stopped
    images, masks, known = (folder / name for name in ARRAYS)
    return Cache(
        folder,
        _new_array(images, (count, *canvas_HW, key.channels)),
        _new_array(masks, (count, *canvas_HW)),
        _new_array(known, (count, *canvas_HW)) if has_unknown else None,
    )


def _new_array(path: Path, shape: tuple[int, ...]) -> CacheArray:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
