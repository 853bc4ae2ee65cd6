"""Which results exist and how they were made: the file with which a killed run continues where it stopped.

The first line is the provenance of all results in it, each further line is one result, as JSON. Lines are added and
never changed; an incomplete line at the end, left by a killed process, is dropped. No line has a time of its own, so
that the same files give the same bytes; only rows of tables with a column of seconds hold the seconds a photo took.
"""

import errno
import io
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from carmask.errors import CarmaskError
from carmask.files import atomic_write, unwritable
from carmask.pipeline.jobs import Job
from carmask.pipeline.origins import describe_files
from carmask.pipeline.provenance import Provenance
from carmask.result import Result

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
        header = header_line(provenance)
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open_locked(path)
            with path.open("rb") as stream:
                kept = stream.readline() == header
                whole_lines = sum(len(line) for line in stream if line.endswith(b"\n"))
            self._end = len(header) + whole_lines if kept else 0
            self._file.truncate(self._end)
            if not kept:
                self._append(header)
        except OSError as failure:
            raise unwritable(path, failure) from failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, entry: Entry) -> int:
        """Add a line, and return its offset in bytes.

        Raises:
            UnwritableFile: it cannot be written.
        """
        line = entry_line(entry)
        with self._lock:
            at = self._end
            try:
                self._append(line)
            except OSError as failure:
                raise unwritable(self.path, failure) from failure
        return at

    def sort(self, key: str) -> None:
        """Sort the lines by the values of `key`, and keep the last one of each. Nothing can be added afterwards.

        Raises:
            UnwritableFile: it cannot be written.
        """
        places = [(entry[key], at) for at, entry in read_entries(self.path)]
        order = [at for _, at in sorted(dict(places).items())]
        if order == [at for _, at in places]:
            return
        if fcntl is None:  # Windows does not replace an open file
            self._file.close()
        with atomic_write(self.path) as sorted_file, self.path.open("rb") as stream:
            sorted_file.write(stream.readline())
            for at in order:
                stream.seek(at)
                sorted_file.write(stream.readline())

    def _append(self, line: bytes) -> None:
        self._file.seek(self._end)
        rest = memoryview(line)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._end += len(line)


def delete_journal(path: Path) -> None:
    """Delete a journal, if there is one.

    Raises:
        JournalError: another process has it open.
    """
    if path.exists():
        _open_locked(path).close()
        path.unlink(missing_ok=True)


def read_provenance(path: Path) -> Provenance | None:
    """Return how the results in a journal were made; None without a journal or without a complete first line."""
    try:
        with path.open("rb") as stream:
            return parse_provenance(stream.readline())
    except OSError:
        return None


def parse_provenance(line: bytes) -> Provenance | None:
    """Return the provenance that the first line of a journal holds; None if it is not complete."""
    header = _parse(line)
    provenance = header.get("recipe") if header.get("carmask") == _FORMAT else None
    return provenance if isinstance(provenance, dict) else None


def read_entries(path: Path) -> Iterator[tuple[int, Entry]]:
    """Yield the complete lines of a journal, to which another process may be adding, each with its offset in bytes."""
    try:
        with path.open("rb") as stream:
            at = len(stream.readline())
            for line in stream:
                if entry := _parse(line):
                    yield at, entry
                at += len(line)
    except FileNotFoundError:
        return


def journal_entry(job: Job, found: Result) -> Entry:
    """Return what a journal says of a result: the files it was made from, and what was found."""
    made_from = job.made_from or describe_files(job)
    noted = {"made_from": made_from, "coverage": round(found.coverage, 6), "box_px": found.box_px}
    return noted if found.expected_dice is None else {**noted, "expected_dice": found.expected_dice}


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


def header_line(provenance: Provenance) -> bytes:
    """Return the first line of a journal."""
    return entry_line({"carmask": _FORMAT, "recipe": dict(provenance)})


def entry_line(entry: Entry) -> bytes:
    """Return one line of a journal."""
    # Names that are not valid text come out as the escapes of their surrogates.
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def _parse(line: bytes) -> Entry:
    """Return what a line holds; nothing if it is not complete, or if a power failure left other bytes in its place."""
    try:
        entry = json.loads(line) if line.endswith(b"\n") else {}
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
