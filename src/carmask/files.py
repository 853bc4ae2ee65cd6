"""Listing folders, and writing files so that there is never half of one."""

import errno
import gzip
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import IO

from carmask.errors import CarmaskError

# What bytes are written to: a file's stream, or what compresses into one.
Sink = IO[bytes] | gzip.GzipFile

_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir"})

# A file that is being written: who writes it (machine, process, and that process's own token) and a number.
_ASIDE = re.compile(r"\.carmask-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<token>[0-9a-f]{8})-[0-9a-f]{8}\.part")
_TOKEN = secrets.token_hex(4)
_STALE_S = 24 * 3600

# What file systems say, often those on a network, that cannot flush a folder.
_NOT_FLUSHED = frozenset({errno.EINVAL, errno.ENOTSUP})

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


class UnwritableFile(CarmaskError):
    """A result that could not be written."""


class NoSpace(UnwritableFile):
    """Nothing more can be written there: the disk or the quota is full, or may only be read."""


def write_bytes_atomically(path: str | Path, data: bytes, *, lasting: bool = False) -> None:
    """Write a file so that under its name there is never half of it; missing folders are made.

    The data goes to a hidden file beside it, which is then moved over the name. Raises `UnwritableFile`.

    lasting: also when the power fails: return when the file is on the disk.
    """
    with written_aside(path, lasting=lasting) as stream:
        stream.write(data)


@contextmanager
def written_aside(path: str | Path, *, lasting: bool = False) -> Iterator[IO[bytes]]:
    """A stream for what the file shall hold; it gets its name only when the block ends well. See above.

    Raises:
        UnwritableFile: the folder, the file or its name cannot be written.

    """
    path = Path(path)
    aside = path.parent / f".carmask-{_host()}-{os.getpid()}-{_TOKEN}-{secrets.token_hex(4)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("wb") as stream:
                yield stream
            if lasting:
                flush_to_disk(aside)
            aside.replace(path)
            if lasting:
                flush_to_disk(path.parent)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as failure:
        raise unwritable(path, failure) from failure


def flush_to_disk(path: Path) -> None:
    """Wait until the disk holds a file's content, or a folder's names, which otherwise may be lost with the power.

    Of a file that is moved into place both have to be flushed: the file before, or its name may lead to nothing, and
    the folder after. Raises `OSError`.
    """
    if os.name != "posix" and path.is_dir():
        return  # cannot be opened there
    place = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(place)
    except OSError as error:
        if error.errno not in _NOT_FLUSHED or not path.is_dir():
            raise
    finally:
        os.close(place)


@contextmanager
def packed(stream: IO[bytes], path: Path) -> Iterator[Sink]:
    """What compresses into a file's stream where its name ends in .gz; else the stream itself."""
    if not is_compressed(path):
        yield stream
        return
    # No name and no time inside, so that the same content gives the same bytes.
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=stream, mtime=0) as packing:
        yield packing


def is_compressed(path: Path) -> bool:
    """Whether a file of this name is compressed."""
    return path.suffix.lower() == ".gz"


def unwritable(path: Path, failure: OSError) -> UnwritableFile:
    """What to say of a file that the system did not let be written."""
    reason = failure.strerror or str(failure)
    kind = NoSpace if failure.errno in _FULL else UnwritableFile
    return kind(f"{path}: it cannot be written ({reason}); check the folder and the free space")


def remove_leftovers(folders: Iterable[Path]) -> int:
    """Remove what killed processes left half-written in these folders; how many files that were.

    A file is left over when its process on this machine lives no more, or after a day.
    """
    removed = 0
    for folder in folders:
        try:
            names = [entry.name for entry in os.scandir(folder) if _ASIDE.fullmatch(entry.name)]
        except OSError:
            continue  # not there yet, or cannot be listed, and then it is said when a result is written
        for name in names:
            if _is_left_over(folder / name):
                (folder / name).unlink(missing_ok=True)
                removed += 1
    return removed


def walk_files(folder: Path, on_error: Callable[[OSError], None]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder below, itself first, with the names of its files, sorted; links followed, hidden files left out.

    `on_error` is called for each folder that cannot be listed (its `filename`), and may raise; else it is passed over.
    """
    seen: set[Path] = set()  # linked folders are followed, and a link to a folder above must end
    for path, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        real = Path(path).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_clutter(name))
        yield Path(path), sorted(name for name in files if not is_clutter(name))


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden, or one that file managers leave behind."""
    return name.startswith(".") or name.lower() in _CLUTTER


@cache
def _host() -> str:
    return blake2b(socket.gethostname().encode(errors="surrogateescape"), digest_size=4).hexdigest()


def _is_left_over(aside: Path) -> bool:
    writer = _ASIDE.fullmatch(aside.name)
    assert writer is not None
    if writer["host"] == _host():
        pid = int(writer["pid"])
        # In a container every run may have the same number.
        alive = writer["token"] == _TOKEN if pid == os.getpid() else _is_running(pid)
        if not alive:
            return True
    try:
        return time.time() - aside.stat().st_mtime > _STALE_S
    except OSError:
        return False


def _is_running(pid: int) -> bool:
    if os.name != "posix":
        return True  # there a signal of number 0 would end the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
