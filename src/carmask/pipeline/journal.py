"""What has been made, how, and of which photos: the file that lets a killed run go on where it stopped.

The first line says how everything in it was made, each further line is one result, as JSON. Lines are added and never
changed; a half line at the end, left by a killed process, is dropped. No line tells when it was made, so that the same
photos give the same bytes; how many seconds a photo took stands only in the rows of tables that tell it themselves.
"""

import errno
import io
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from carmask.errors import CarmaskError
from carmask.files import atomic_write, unwritable

try:
    import fcntl
except ImportError:  # Windows has no such locks, and the user is trusted there
    fcntl = None  # type: ignore[assignment]

Entry = dict[str, Any]
Provenance = Mapping[str, Any]

_FORMAT = 1


class JournalError(CarmaskError):
    """A journal cannot be used."""


class Journal:
    """A journal, open and locked, to which any thread may add."""

    def __init__(self, path: Path, recipe: Provenance) -> None:
        """Open a journal of this recipe, or begin one; what cannot be read or has another recipe is begun anew.

        Raises:
            JournalError: another process writes it.
            UnwritableFile: it cannot be written.

        """
        self.path = path
        header = _line({"carmask": _FORMAT, "recipe": dict(recipe)})
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
        """Add a line; where it begins, in bytes.

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
        """The line that begins there."""
        with self._lock:
            self._reader.seek(at)
            line = self._reader.readline()
        entry: Entry = json.loads(line)
        return entry

    def entries(self) -> Iterator[tuple[int, Entry]]:
        """All lines so far and where each begins."""
        with self.path.open("rb") as stream:
            at = len(stream.readline())
            for line in stream:
                yield at, json.loads(line)
                at += len(line)

    def sort(self, key: str) -> None:
        """Bring the lines into the order of what stands under `key`, the last one for each. Then nothing can be added.

        Raises:
            UnwritableFile: it cannot be written.

        """
        places = {entry[key]: at for at, entry in self.entries()}
        sorted_places = [places[value] for value in sorted(places)]
        if sorted_places != [at for at, _ in self.entries()]:
            with atomic_write(self.path) as tidy:
                with self.path.open("rb") as stream:
                    tidy.write(stream.readline())
                    for at in sorted_places:
                        stream.seek(at)
                        tidy.write(stream.readline())
                self._reader.close()
                if fcntl is None:  # Windows puts nothing in the place of an open file
                    self._file.close()

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)

    def _append(self, line: bytes) -> None:
        self._file.seek(self._end)
        rest = memoryview(line)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._end += len(line)


def read_provenance(path: Path) -> Provenance | None:
    """How the results in a journal were made; nothing where there is no journal, or not a whole first line."""
    try:
        with path.open("rb") as stream:
            line = stream.readline()
        if not line.endswith(b"\n"):
            return None
        header = json.loads(line)
        recipe = header["recipe"] if header["carmask"] == _FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return recipe if isinstance(recipe, dict) else None


def read_entries(path: Path) -> Iterator[Entry]:
    """The lines of a journal that perhaps another process is writing."""
    try:
        with path.open("rb") as stream:
            stream.readline()
            for line in stream:
                if line.endswith(b"\n"):
                    yield json.loads(line)
    except FileNotFoundError:
        return


def differences(then: Provenance, now: Provenance) -> str:
    """Name the settings in which two recipes differ."""
    keys = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    return "; ".join(f"{key}: {_shown(then.get(key))} there, {_shown(now.get(key))} now" for key in keys)


def _open_locked(path: Path) -> io.FileIO:
    file = io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+")
    try:
        _lock(file, path)
        # The process that held the lock may have put another file in its place before it let go.
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
            f"{path}: another carmask is writing there; wait for it, or divide the photos with --shard"
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


def _shown(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
