"""Whether the files that a result was made from are still the same."""

import os
import stat
import time
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from carmask.files import file_identity
from carmask.pipeline.jobs import Job
from carmask.pipeline.urls import URL, parse_path

_NO_FILE = "-"
_HEAD_BYTES, _SAMPLE_STEP = 4096, 251


def describe_files(job: Job) -> str:
    """Describe the files that a result is made from, a word for each; call it before they are decoded.

    The words are `file_identity` and a digest of samples. Photos in stores, and those that are not
    there, have none: to ask a store about each photo takes longer than the network.
    """
    return " ".join(map(_describe, _files_of(job)))


def is_unchanged(job: Job, made_from: str, since_ns: int) -> bool:
    """Whether the files of a job are those that its result was made from, at that time, wherever they were moved from.

    The result of a photo that is gone is kept.
    """
    words, paths = made_from.split(), _files_of(job)
    return len(words) == len(paths) and all(
        _is_same(path, word, since_ns) for path, word in zip(paths, words, strict=True)
    )


def _files_of(job: Job) -> list[Path]:
    """Return the photo, the mask that is converted, and the archive that holds a photo, as far as they are files."""
    places = (parse_path(of.inside) if isinstance(of, URL) else of for of in dict.fromkeys((job.origin, job.photo)))
    return [place for place in places if isinstance(place, Path)]


def _describe(path: Path) -> str:
    status = stat_file(path)
    if status is None:
        return _NO_FILE
    identity = file_identity(status)
    return ":".join(map(str, (*identity, _digest_of_samples(path, identity))))


def _is_same(path: Path, word: str, since_ns: int) -> bool:
    status = stat_file(path)
    if status is None or word == _NO_FILE:
        return True
    identity, _, digest = word.rpartition(":")
    if identity == ":".join(map(str, file_identity(status))):
        return True
    # Cameras whose clock is wrong date photos into the future.
    if since_ns < status.st_mtime_ns <= time.time_ns() or int(identity.partition(":")[0]) != status.st_size:
        return False
    return digest == _digest_of_samples(path, file_identity(status))


@lru_cache(maxsize=256)  # an archive, or a label file of many photos, is a file of each of them
def _digest_of_samples(path: Path, _identity: tuple[int, ...]) -> str:
    """Return a digest of the beginning of each 256 KB of a file, and of every 251st byte; none if it is unreadable.

    The first holds a photo's metadata, the second has bytes of every row of a picture that is not compressed.
    """
    digest, buffer = sha256(), memoryview(bytearray(1 << 18))
    try:
        with path.open("rb", buffering=0) as stream:
            while read := stream.readinto(buffer):
                digest.update(buffer[: min(read, _HEAD_BYTES)])
                digest.update(bytes(buffer[:read:_SAMPLE_STEP]))
    except OSError:
        return ""
    return digest.hexdigest()[:16]


def stat_file(path: Path) -> os.stat_result | None:
    """Return the status of a regular file; None for anything else."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None
