"""Atomic writes, files of settings, listing folders, and removing the temporary files of killed processes."""

import errno
import gzip
import os
import re
import secrets
import socket
import time
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

from carmask.errors import CarmaskError

# A binary file open for writing, plain or gzip.
BinaryWriter = IO[bytes] | gzip.GzipFile

# In lower case. Of Windows; of macOS' archives; of the storage makers Synology and QNAP.
_SYSTEM_FILES = frozenset(
    {"thumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "__macosx"}
    | {"@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb"}
)

# The name of a temporary file: the machine and process that write it, a token of that process, a random number.
_TEMPORARY_NAME = re.compile(r"\.carmask-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<token>[0-9a-f]{8})-[0-9a-f]{8}\.part")
_TOKEN = secrets.token_hex(4)
_STALE_S = 24 * 3600

# Errors of file systems, often network ones, that cannot fsync a folder.
_FSYNC_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOTSUP})

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


class UnwritableFile(CarmaskError):
    """A file could not be written."""


class NoSpace(UnwritableFile):
    """The disk or the quota is full, or the file system is read-only: no other file can be written there either."""


@contextmanager
def atomic_write(path: str | Path, *, fsync: bool = False) -> Iterator[IO[bytes]]:
    """Open a binary file for writing that appears under its name only when the block ends without an error.

    The data goes to a hidden temporary file in the same folder, which then replaces `path`. Missing folders are made.

    fsync: also survive a power failure: return when the disk has the file.

    Raises:
        UnwritableFile: the folder or the file cannot be written. `NoSpace` where the disk is full.
    """
    path = Path(path)
    temporary = path.parent / f".carmask-{_host()}-{os.getpid()}-{_TOKEN}-{secrets.token_hex(4)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                yield stream
            if fsync:
                flush_to_disk(temporary)
            temporary.replace(path)
            if fsync:
                flush_to_disk(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def write_bytes_atomically(path: str | Path, data: bytes, *, fsync: bool = False) -> None:
    """Write a whole file with `atomic_write`."""
    with atomic_write(path, fsync=fsync) as stream:
        stream.write(data)


def flush_to_disk(path: Path) -> None:
    """Wait until the disk has the content of a file, or the names in a folder (fsync).

    To move a file into place and survive a power failure, flush the file before the move, or its name may lead to
    nothing, and the folder after it. Raises `OSError`.
    """
    if os.name != "posix" and path.is_dir():
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _FSYNC_UNSUPPORTED or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def gzip_writer(stream: IO[bytes], path: Path) -> AbstractContextManager[BinaryWriter]:
    """Compress what is written to `stream` if the name of `path` ends in .gz; else give `stream` itself."""
    if not is_gzip(path):
        return nullcontext(stream)
    # Without name and time in the header, so that the same content gives the same bytes.
    return gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=stream, mtime=0)


def is_gzip(path: Path) -> bool:
    """Whether the name of a file ends in .gz."""
    return path.suffix.lower() == ".gz"


def unwritable(path: Path, error: OSError) -> UnwritableFile:
    """Return the error to raise for a file that could not be written."""
    reason = error.strerror or str(error)
    kind = NoSpace if error.errno in _NO_SPACE else UnwritableFile
    return kind(f"{path}: it cannot be written ({reason}); check the folder and the free space")


def remove_stale_temporary_files(folders: Iterable[Path]) -> int:
    """Remove the temporary files that killed processes left in these folders; return how many.

    A file is stale if its process, of this machine, has ended, or after a day.
    """
    removed = 0
    for folder in folders:
        try:
            names = [entry.name for entry in os.scandir(folder) if _TEMPORARY_NAME.fullmatch(entry.name)]
        except OSError:
            continue  # does not exist yet, or cannot be listed: then writing a result there reports it
        for name in names:
            if _is_stale(folder / name):
                with suppress(OSError):  # another process was faster, or it is another user's
                    (folder / name).unlink()
                    removed += 1
    return removed


def expand_home(path: str) -> str:
    """Replace `~` at the beginning of a path in quotes, which no shell saw, unless a file has that name."""
    return os.path.expanduser(path) if path.startswith("~") and not os.path.lexists(path) else path  # noqa: PTH111


def file_identity(status: os.stat_result) -> tuple[int, int, int, int]:
    """Return size, inode, modification and change time: one differs if a file was written to, or is another one.

    The change time, where the system has one, is newer also for a file that was moved here with its old date.
    """
    return status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def walk_files(folder: Path, on_error: Callable[[OSError], None]) -> Iterator[tuple[Path, list[str]]]:
    """Yield `folder` and each folder below it with the sorted names of its files; follow links, skip hidden files.

    `on_error` is called for each folder that cannot be listed (`error.filename`); it may raise, else it is skipped.
    """
    seen: set[Path] = set()  # a link to a folder above must not loop
    for path, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        real = Path(path).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden_file(name))
        yield Path(path), sorted(name for name in files if not is_hidden_file(name))


def as_valid_text(name: object) -> str:
    """Return a name with its bytes that are not valid text as escapes."""
    return str(name).encode(errors="backslashreplace").decode()


def read_settings(path: Path, error_class: type[CarmaskError], *, example: str) -> dict[str, Any]:
    """Read settings by name from a YAML file; none from an empty one. `example` is a line of such a file.

    Raises:
        CarmaskError: of this class, the file cannot be read, or does not hold settings.
    """
    import yaml  # too slow for `carmask --help`

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise error_class(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        cause = " ".join(str(error).split())
        raise error_class(f"{path}: not YAML ({cause}); write one setting per line, such as {example}") from error
    if not isinstance(content, dict | None):
        raise error_class(f"{path}: contains no settings; write one per line, such as {example}")
    return content or {}


def unlistable(error: OSError) -> str:
    """Return the message for a folder that cannot be listed, from the error that `walk_files` passes on."""
    return f"{error.filename}: cannot be listed ({error.strerror}); check its permissions"


def is_hidden_file(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or a system file."""
    return name.startswith(".") or is_system_file(name)


def is_system_file(name: str) -> bool:
    """Whether a file or folder of this name is one that Windows, macOS or a NAS leaves behind."""
    return name.startswith("._") or name.lower() in _SYSTEM_FILES


class SimilarNames:
    """Finds the name that is the same as another, or differs in how its accents are stored (NFC, NFD), or also in case.

    macOS and ZIP files change how accents are stored; cameras, and file systems without case, change the case.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Index the names."""
        self._levels = tuple((key, defaultdict[str, list[str]](list)) for key in (str, _composed, _folded))
        for name in names:
            for key, found in self._levels:
                found[key(name)].append(name)

    def find(self, *wanted: str) -> str | None:
        """Return the name most like one of these, the first of them first; None if there is none, or more than one."""
        for key, found in self._levels:
            for name in wanted:
                if names := found.get(key(name)):
                    return names[0] if len(names) == 1 else None
        return None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


@cache
def _host() -> str:
    return blake2b(socket.gethostname().encode(errors="surrogateescape"), digest_size=4).hexdigest()


def _is_stale(temporary: Path) -> bool:
    writer = _TEMPORARY_NAME.fullmatch(temporary.name)
    assert writer is not None
    if writer["host"] == _host():
        pid = int(writer["pid"])
        # In a container every run may have the same process id, hence the token.
        alive = writer["token"] == _TOKEN if pid == os.getpid() else _is_running(pid)
        if not alive:
            return True
    try:
        return time.time() - temporary.stat().st_mtime > _STALE_S
    except OSError:
        return False


def _is_running(pid: int) -> bool:
    if os.name != "posix":
        return True  # on Windows signal 0 would end the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
