"""Where results go: one file, or a folder that mirrors the photos."""

import os
import secrets
import socket
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from carmask.errors import CarmaskError
from carmask.files import remove_stale_temporary_files, write_bytes_atomically
from carmask.pipeline.jobs import BadDestination, Extent, Job, Jobs, PhotoOutcome, Shard
from carmask.pipeline.journal import Journal, Provenance, read_entries, read_provenance
from carmask.pipeline.kinds import STREAM
from carmask.pipeline.provenance import account, is_unchanged, refuse_other_provenance, stat_file
from carmask.pipeline.sources import PICTURE_RECORD
from carmask.pipeline.urls import URL
from carmask.result import Result

# From a photo and what was found in it to the bytes of its result.
Render = Callable[[Job, Result], bytes]
# Keeps a result, or makes its row in a table.
Put = Callable[[Job, Result, Extent], Any]


class Sink(Protocol):
    """Takes results from any thread, and then what became of each photo."""

    jobs: Jobs
    """What is still to be done."""
    empty_before: Sequence[int]
    """Positions of photos done before in which no vehicle was found."""
    before: int
    """How many were done before."""

    def put(self, job: Job, found: Result, extent: Extent) -> Any:
        """Keep the result of one photo, or make its row in a table.

        Raises:
            CarmaskError: the result cannot be drawn or written.

        """
        ...

    def branch(self) -> "Branch":
        """Return what puts results on other machines.

        Raises:
            CarmaskError: there is one result, and nothing to divide.

        """
        ...

    def take(self, outcome: PhotoOutcome) -> str | None:
        """Note what became of a photo, in one thread; where its result lies, if it has one.

        Raises:
            UnwritableFile: it cannot be noted.

        """
        ...

    def finish(self) -> None:
        """Put in order what all the results share. To be called when every job has been tried."""
        ...


class Branch(Protocol):
    """Puts results for a store on another machine, to which it can be sent."""

    def open(self) -> AbstractContextManager[Put]:
        """Give what puts results, in any thread, as long as the block lasts.

        Raises:
            CarmaskError: that machine does not see where the results go.

        """
        ...


class OneFile:
    """The result of one photo, in a file that is simply replaced, or on standard output."""

    def __init__(self, path: Path, jobs: Jobs, render: Render) -> None:
        self.jobs = jobs
        self.before = 0
        self.empty_before: Sequence[int] = ()
        self._path = path
        self._render = render

    def put(self, job: Job, found: Result, extent: Extent) -> None:  # noqa: ARG002 - of no use here
        """See `Sink.put`."""
        data = self._render(job, found)
        if self._path == STREAM:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            write_bytes_atomically(self._path, data)

    def branch(self) -> Branch:
        """See `Sink.branch`."""
        raise CarmaskError("--cluster: is for many photos; leave it out for one")

    def take(self, outcome: PhotoOutcome) -> str | None:
        """See `Sink.take`."""
        return str(self._path) if outcome.cause is None else None

    def finish(self) -> None:
        """See `Sink.finish`."""


_JSON_RECORD = ".carmask-annotations"
_SHOWN = 3
# On other machines each process has a journal of its own: no lock holds between machines everywhere.
_PROCESS = secrets.token_hex(4)


@dataclass(frozen=True)
class FolderBranch:
    """Writes results into the folder from another machine that shares it. record: the journal of the whole."""

    path: Path
    record: Path
    recipe: Provenance
    render: Render

    @contextmanager
    def open(self) -> Iterator[Put]:
        """See `Branch.open`. What was put is on the file system when the block ends."""
        if read_provenance(self.record) != self.recipe:
            raise BadDestination(
                f"{self.path.absolute()}: is not the same folder on {socket.gethostname()}; results go to a folder "
                "that all machines of a cluster share"
            )
        with Journal(self.record.with_name(f"{self.record.stem}+{_PROCESS}.jsonl"), self.recipe) as journal:
            yield partial(_put, self.path, self.render, journal)


@dataclass
class Folder:
    """Results in a tree that mirrors that of the photos, with a hidden journal beside them."""

    path: Path
    jobs: Jobs
    render: Render
    recipe: Provenance
    journal: Journal
    before: int
    empty_before: Sequence[int]

    def put(self, job: Job, found: Result, extent: Extent) -> None:
        """See `Sink.put`."""
        _put(self.path, self.render, self.journal, job, found, extent)

    def branch(self) -> FolderBranch:
        """See `Sink.branch`."""
        return FolderBranch(self.path, self.journal.path, self.recipe, self.render)

    def take(self, outcome: PhotoOutcome) -> str | None:
        """See `Sink.take`."""
        return str(self.path / outcome.job.result) if outcome.cause is None else None

    def finish(self) -> None:
        """See `Sink.finish`. What branches noted, also those of killed runs, goes into the one journal."""
        for part in sorted(self.path.glob(f"{self.journal.path.stem}+*.jsonl")):
            if read_provenance(part) == self.recipe:
                for entry in read_entries(part):
                    self.journal.add(entry)
            part.unlink()
        self.journal.sort("result")


@contextmanager
def open_folder(
    path: Path, jobs: Jobs, recipe: Provenance, render: Render, *, shard: Shard, overwrite: bool
) -> Iterator[Folder]:
    """Open a folder for results; those of the same recipe that are there already are kept, unless overwritten.

    A result is kept if the journal says that it was made from a photo of that size, it has the size that was written,
    and it is not older than the photo. Any other is removed, and made again.

    Raises:
        BadDestination: results of another recipe are there, or files of the same names that are no results.
        JournalError: another process writes there.

    """
    stem = _JSON_RECORD if jobs.suffix == ".json" else PICTURE_RECORD
    survey = _survey(path, jobs, _made_before(path, stem, recipe, overwrite=overwrite), overwrite=overwrite)
    if survey.strange:
        _refuse_strangers(path, survey.strange)
    # Opened before anything is removed: another process may be at work here.
    with Journal(path / f"{stem}{shard.suffix}.jsonl", recipe) as journal:
        remove_stale_temporary_files({path, *((path / job.result).parent for job in jobs)})
        for position in survey.outdated:
            (path / jobs.at(position).result).unlink(missing_ok=True)
        before = len(jobs) - len(survey.todo)
        yield Folder(path, jobs.only(survey.todo), render, recipe, journal, before, survey.empty)


def _put(path: Path, render: Render, journal: Journal, job: Job, found: Result, extent: Extent) -> None:
    data = render(job, found)
    # First the journal: a result that stands in none is somebody else's.
    journal.add({"result": job.result, "bytes": len(data), **account(job, extent)})
    write_bytes_atomically(path / job.result, data)


class _Made(NamedTuple):
    """What a journal says of a result: its size, that of what it was made from, and whether no vehicle was found."""

    size_bytes: int
    origin_bytes: int
    empty: bool


def _made_before(path: Path, stem: str, recipe: Provenance, *, overwrite: bool) -> dict[str, _Made]:
    """What all journals in the folder say of results of this recipe; those of other recipes are refused or removed."""
    made: dict[str, _Made] = {}
    for record in sorted(path.glob(f"{stem}*.jsonl")):
        then = read_provenance(record)
        if then == recipe:
            for entry in read_entries(record):
                made[entry["result"]] = _Made(entry["bytes"], entry["origin_bytes"], entry["box_px"] is None)
        elif overwrite:
            record.unlink(missing_ok=True)
        elif any(os.path.lexists(path / entry["result"]) for entry in read_entries(record)):
            refuse_other_provenance(path, then, recipe)
    return made


@dataclass
class _Survey:
    """Positions of photos: still to do, whose results have to go first, and found empty before; and strange files."""

    todo: "array[int]" = field(default_factory=lambda: array("q"))
    outdated: "array[int]" = field(default_factory=lambda: array("q"))
    empty: "array[int]" = field(default_factory=lambda: array("q"))
    strange: list[str] = field(default_factory=list)


def _survey(path: Path, jobs: Jobs, made: dict[str, _Made], *, overwrite: bool) -> _Survey:
    survey = _Survey()
    for job in jobs:
        result = stat_file(path / job.result)
        was = made.get(job.result)
        if result is None:
            survey.todo.append(job.position)
        elif was is None and not overwrite:
            survey.strange.append(job.result)
        elif was is None or overwrite or not _is_current(was, job.origin, result):
            survey.todo.append(job.position)
            survey.outdated.append(job.position)
        elif was.empty:
            survey.empty.append(job.position)
    return survey


def _is_current(was: _Made, origin: Path | URL, result: os.stat_result) -> bool:
    return result.st_size == was.size_bytes and is_unchanged(origin, was.origin_bytes, result.st_mtime_ns)


def _refuse_strangers(folder: Path, names: Sequence[str]) -> None:
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    raise BadDestination(
        f"{folder}: {shown} would be overwritten, which no run for this folder has made; give --overwrite to replace "
        "what is there, or another folder"
    )
