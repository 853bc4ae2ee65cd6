"""Which results exist and how they were made: the file with which a killed run continues where it stopped.

The first line says how all results in it were made, each further line is one result, as JSON. Lines are added and never
changed; an incomplete line at the end, left by a killed process, is dropped. No line has a time of its own, so that the
same photos give the same bytes; only rows of tables with a column of seconds hold the seconds a photo took.
"""

import errno
import io
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from carmask.errors import CarmaskError
from carmask.files import atomic_write, unwritable
from carmask.pipeline.provenance import Provenance

try:
    import fcntl
except ImportError:  # Windows has no such locks; two runs in one folder are not detected there
    fcntl = None  # type: ignore[assignment]

Entry = dict[str, Any]

_FORMAT = 1


class JournalError(CarmaskError):
    """Another process uses the journal."""


class Journal:
    """An open and locked journal; any thread may add to it."""

    def __init__(self, path: Path, provenance: Provenance) -> None:
        """Open the journal of this provenance, or start one; replaces an unreadable one or one of another provenance.

        Raises:
            JournalError: another process has it open.
            UnwritableFile: it cannot be written.

        """
        self.path = path
        header = _line({"carmask": _FORMAT, "recipe": dict(provenance)})
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_locked(path)
            self._end = _end_of_whole_lines(self._file)
            self._file.seek(0)
            if self._file.read(len(header)) != header:
                self._end = 0
            self._file.truncate(self._end)
            if self._end == 0:
                self._append(header)
            self._reader = path.open("rb", buffering=1 << 16)
        except OSError as failure:
            raise unwritable(path, failure) from failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        self._reader.close()

    def add(self, entry: Entry) -> int:
        """Add a line, and return its offset in bytes.

        Raises:
            UnwritableFile: it cannot be written.

        """
        line = _line(entry)
        with self._lock:
            at = self._end
            try:
                self._append(line)
            except OSError as failure:
                raise unwritable(self.path, failure) from failure
        return at

    def read(self, at: int) -> Entry:
        """Return the line at this offset."""
        with self._lock:
            self._reader.seek(at)
            line = self._reader.readline()
        entry: Entry = json.loads(line)
        return entry

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """Yield all lines so far, each with its offset."""
        with self.path.open("rb") as stream:
            at = len(stream.readline())
            for line in stream:
                yield at, json.loads(line)
                at += len(line)

    def sort(self, key: str) -> None:
        """Sort the lines by the values of `key`, and keep the last one of each. Nothing can be added afterwards.

        Raises:
            UnwritableFile: it cannot be written.

        """
        offsets = {entry[key]: at for at, entry in self.entries()}
        sorted_offsets = [offsets[value] for value in sorted(offsets)]
        if sorted_offsets != [at for at, _ in self.entries()]:
            with atomic_write(self.path) as sorted_file:
                with self.path.open("rb") as stream:
                    sorted_file.write(stream.readline())
                    for at in sorted_offsets:
                        stream.seek(at)
                        sorted_file.write(stream.readline())
                self._reader.close()
                if fcntl is None:  # Windows does not replace an open file
                    self._file.close()

    def _append(self, line: bytes) -> None:
        self._file.seek(self._end)
        rest = memoryview(line)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._end += len(line)


def read_provenance(path: Path) -> Provenance | None:
    """Return how the results in a journal were made; None without a journal or without a complete first line."""
    try:
        with path.open("rb") as stream:
            line = stream.readline()
        if not line.endswith(b"\n"):
            return None
        header = json.loads(line)
        provenance = header["recipe"] if header["carmask"] == _FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return provenance if isinstance(provenance, dict) else None


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the complete lines of a journal, to which another process may be adding."""
    try:
        with path.open("rb") as stream:
            stream.readline()
            for line in stream:
                if line.endswith(b"\n"):
                    yield json.loads(line)
    except FileNotFoundError:
        return


def _open_locked(path: Path) -> io.FileIO:
    file = io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+")
    try:
        _lock(file, path)
        # The process that held the lock may have replaced the file before it released the lock.
        replaced = not os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (JournalError, OSError):
        file.close()
        raise
    if replaced:
        file.close()
        return _open_locked(path)
    return file


def _lock(file: io.FileIO, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise JournalError(
            f"{path}: another carmask is writing to it; wait until it ends, or divide the photos with --shard"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            raise


def _end_of_whole_lines(file: io.FileIO) -> int:
    end = file.seek(0, os.SEEK_END)
    block = 1 << 16
    while end:
        start = max(0, end - block)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _line(entry: Entry) -> bytes:
    # Names that are not valid text come out as the escapes of their surrogates.
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"
