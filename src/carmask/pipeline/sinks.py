"""Where results are written: one file, or a folder that mirrors the photos. `tables` and `stores` have other sinks."""

import os
import secrets
import socket
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from carmask.errors import first_few
from carmask.files import remove_stale_temporary_files, write_bytes_atomically
from carmask.pipeline.jobs import BadDestination, Job, Jobs, PhotoOutcome, Shard
from carmask.pipeline.journal import Entry, Journal, delete_journal, journal_entry, read_entries, read_provenance
from carmask.pipeline.kinds import STREAM, TEXT_SUFFIXES
from carmask.pipeline.origins import is_unchanged, stat_file
from carmask.pipeline.provenance import Provenance, other_provenance
from carmask.pipeline.render import Render
from carmask.pipeline.urls import URL, StoredFile
from carmask.pipeline.walk import PICTURE_JOURNAL
from carmask.result import Result

# Writes the result of one photo, or returns its row of a table; runs in any thread. A future if the result is still
# being uploaded.
Put = Callable[[Job, Result], Any]

# Opens a sink on another machine, to which it can be sent; the function that it gives is valid inside the block.
OpenRemotely = Callable[[], AbstractContextManager[Put]]

_JOURNAL_OF_JSON = ".carmask-annotations"
# Processes on other machines have a journal each: not every file system locks files between machines.
_PROCESS = secrets.token_hex(4)


@dataclass
class Sink:
    """Takes the results of photos.

    jobs: those that no earlier run has done. empty_before: positions of the other photos in which no vehicle was found.
    dice_before: expected Dice of the other photos, by position, as far as it is known.
    """

    jobs: Jobs
    empty_before: Sequence[int]
    dice_before: Mapping[int, float]

    def put(self, job: Job, found: Result) -> Any:
        """Write the result of one photo, or return its row of a table; in any thread.

        Raises:
            CarmaskError: the result cannot be drawn or written.
        """
        raise NotImplementedError

    def remote(self) -> OpenRemotely:
        """Return what opens this sink on other machines; a single result has none."""
        raise NotImplementedError

    def record(self, outcome: PhotoOutcome) -> None:
        """Record the outcome of a photo, in one thread.

        Raises:
            UnwritableFile: it cannot be recorded.
        """

    def finish(self) -> None:
        """Write what all results share, after every job was tried."""


@dataclass
class OneFile(Sink):
    """The result of one photo: a file, which is replaced, or standard output."""

    path: Path | URL
    render: Render

    def put(self, job: Job, found: Result) -> None:
        """See `Sink.put`."""
        data = self.render(job, found)
        if self.path == STREAM:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        elif isinstance(self.path, URL):
            self.path.write_bytes(data, tries=3)
        else:
            write_bytes_atomically(self.path, data)


@dataclass
class Folder(Sink):
    """Results in a tree that mirrors that of the photos, with a hidden journal.

    beside: files that are written at the end, by name.
    """

    path: Path
    render: Render
    provenance: Provenance
    journal: Journal
    beside: Mapping[str, bytes]

    def put(self, job: Job, found: Result) -> None:
        """See `Sink.put`."""
        _put(self.path, self.render, self.journal, job, found)

    def remote(self) -> OpenRemotely:
        """See `Sink.remote`."""
        return partial(_open_remotely, self.path, self.journal.path, self.provenance, self.render)

    def finish(self) -> None:
        """See `Sink.finish`. The journals of other machines, those of killed runs too, go into the one journal."""
        for part in sorted(self.path.glob(f"{self.journal.path.stem}+*.jsonl")):
            if read_provenance(part) == self.provenance:
                for _, entry in read_entries(part):
                    self.journal.add(entry)
            part.unlink()
        self.journal.sort("result")
        for name, data in self.beside.items():
            write_bytes_atomically(self.path / name, data)


@contextmanager
def _open_remotely(path: Path, whole_journal: Path, provenance: Provenance, render: Render) -> Iterator[Put]:
    """Open a folder that this machine shares. When the block ends, all results and their journal are written."""
    if read_provenance(whole_journal) != provenance:
        raise BadDestination(
            f"{path.absolute()}: is not the same folder on {socket.gethostname()}; choose a destination that all "
            "machines of the cluster share"
        )
    with Journal(whole_journal.with_name(f"{whole_journal.stem}+{_PROCESS}.jsonl"), provenance) as journal:
        yield partial(_put, path, render, journal)


@contextmanager
def open_folder(
    path: Path,
    jobs: Jobs,
    provenance: Provenance,
    render: Render,
    beside: Mapping[str, bytes] = {},
    *,
    shard: Shard,
    overwrite: bool,
) -> Iterator[Folder]:
    """Open a folder for results. Valid results of an earlier run are kept, unless `overwrite`.

    A result is valid if the journal says that it was made from this photo, it has the size that was written, and it is
    not older than the photo. Any other is deleted and made again.

    Raises:
        BadDestination: the folder holds results of another provenance, or files of the same names from elsewhere.
        JournalError: another process writes to the folder.
    """
    todo, outdated, empty, dice = undone_in_folder(path, jobs, provenance, overwrite=overwrite)
    # Opened before anything is deleted: another process may be writing to the folder.
    with Journal(path / f"{journal_stem(jobs)}{shard.suffix}.jsonl", provenance) as journal:
        remove_stale_temporary_files({path, *((path / job.result).parent for job in jobs)})
        for position in outdated:
            (path / jobs.at(position).result).unlink(missing_ok=True)
        yield Folder(jobs.only(todo), empty, dice, path, render, provenance, journal, beside)


def _put(path: Path, render: Render, journal: Journal, job: Job, found: Result) -> None:
    data = render(job, found)
    # The journal first: a result that no journal knows is taken for somebody else's file.
    journal.add(result_entry(job, found, data))
    write_bytes_atomically(path / job.result, data)


def result_entry(job: Job, found: Result, data: bytes) -> Entry:
    """Return what a journal says of a result in a folder."""
    extent = {} if job.extent_HW is None else {"extent": job.extent_HW}
    return {"result": job.result, "bytes": len(data), **extent, **journal_entry(job, found)}


class Written(NamedTuple):
    """What a journal says of a result: its size, the files it was made from, and what was found."""

    size_bytes: int
    made_from: str
    is_empty: bool
    expected_dice: float | None
    extent_HW: tuple[int, ...] | None

    def is_valid(self, job: Job, file: StoredFile) -> bool:
        """Whether the result is what was written, and its photo and its scale the same as then."""
        if file.size_bytes != self.size_bytes or self.extent_HW != job.extent_HW:
            return False
        return is_unchanged(job, self.made_from, file.mtime_ns)


def journal_stem(jobs: Jobs) -> str:
    """Return how the names of the journals begin."""
    return _JOURNAL_OF_JSON if jobs.suffix in TEXT_SUFFIXES.values() else PICTURE_JOURNAL


def undone_in_folder(
    path: Path, jobs: Jobs, provenance: Provenance, *, overwrite: bool
) -> tuple["array[int]", "array[int]", "array[int]", dict[int, float]]:
    """See `find_undone`, for a folder; changes nothing in it, unless `overwrite`.

    Raises:
        BadDestination: the folder holds results of another provenance, or files of the same names from elsewhere.
        JournalError: another process writes to a journal that is to be deleted.
    """
    written = read_journals(
        path, path, journal_stem(jobs), provenance, lambda name: os.path.lexists(path / name), overwrite
    )

    def find(name: str) -> StoredFile | None:
        status = stat_file(path / name)
        return status and StoredFile(status.st_size, status.st_mtime_ns)

    return find_undone(path, jobs, written, find, overwrite=overwrite)


def find_undone(
    path: Path | URL,
    jobs: Jobs,
    written: Mapping[str, Written],
    find: Callable[[str], StoredFile | None],
    *,
    overwrite: bool,
) -> tuple["array[int]", "array[int]", "array[int]", dict[int, float]]:
    """Return positions: of photos to do, of outdated results, and `Sink.empty_before`; and `Sink.dice_before`.

    Args:
        path: The folder of the results.
        jobs: All photos.
        written: What journals say of results.
        find: Returns the file of a result, if there is one.
        overwrite: Whether all are to do.

    Raises:
        BadDestination: there are files of the same names from elsewhere.
    """
    todo, outdated, empty = array("q"), array("q"), array("q")
    dice: dict[int, float] = {}
    unknown: list[str] = []
    for job in jobs:
        file = find(job.result)
        entry = written.get(job.result)
        if file is None:
            todo.append(job.position)
        elif entry is None and not overwrite:
            unknown.append(job.result)
        elif entry is None or overwrite or not entry.is_valid(job, file):
            todo.append(job.position)
            outdated.append(job.position)
        else:
            if entry.is_empty:
                empty.append(job.position)
            if entry.expected_dice is not None:
                dice[job.position] = entry.expected_dice
    if unknown:
        raise BadDestination(
            f"{path}: {first_few(unknown)} would be overwritten, and carmask did not write them there; use --overwrite "
            "to replace them, or choose another destination"
        )
    return todo, outdated, empty, dice


def read_journals(
    folder: Path, path: Path | URL, stem: str, provenance: Provenance, exists: Callable[[str], bool], overwrite: bool
) -> dict[str, Written]:
    """Read what the journals in a folder say of results of this provenance; refuse or delete other journals.

    path: where the results are, of which `exists` says whether one is there.

    Raises:
        BadDestination: there are results of another provenance.
        JournalError: another process writes to a journal that is to be deleted.
    """
    written: dict[str, Written] = {}
    for file in sorted(folder.glob(f"{stem}*.jsonl")):
        earlier = read_provenance(file)
        if earlier == provenance:
            for _, entry in read_entries(file):
                extent_HW = tuple(entry["extent"]) if "extent" in entry else None
                found = entry["box_px"] is None, entry.get("expected_dice"), extent_HW
                written[entry["result"]] = Written(entry["bytes"], entry.get("made_from", ""), *found)
        elif overwrite:
            delete_journal(file)
        elif any(exists(entry["result"]) for _, entry in read_entries(file)):
            raise other_provenance(path, earlier, provenance)
    return written
