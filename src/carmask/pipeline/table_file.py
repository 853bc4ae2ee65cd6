"""A table of all photos: its rows are collected beside it in a journal, which a killed run goes on with."""

import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from carmask.files import remove_stale_temporary_files
from carmask.pipeline.before import account, is_unchanged, refuse_recipe
from carmask.pipeline.jobs import BadDestination, Job, Jobs
from carmask.pipeline.journal import Entry, Journal, Recipe, read_recipe
from carmask.pipeline.outcome import Extent, Outcome
from carmask.pipeline.stores import Put
from carmask.pipeline.tables import Table
from carmask.result import Result


@dataclass(frozen=True)
class TableBranch:
    """Makes rows on another machine; they go into the table where it is put together."""

    table: Table

    @contextmanager
    def open(self) -> Iterator[Put]:
        """See `Branch.open`."""
        yield partial(_entry, self.table)


@dataclass
class TableFile:
    """The results of all photos in one file, put together at the end from the journal beside it.

    failed: how many photos have no result. places: where in the journal the row of each photo begins, by the photo's
    position; -1 where there is none.
    """

    path: Path
    jobs: Jobs
    table: Table
    journal: Journal
    places: "array[int]"
    everything: Jobs
    before: int
    empty_before: Sequence[int]
    failed: int = 0

    def put(self, job: Job, found: Result, extent: Extent) -> Entry:
        """See `Store.put`; a line of the journal."""
        return _entry(self.table, job, found, extent)

    def branch(self) -> "TableBranch":
        """See `Store.branch`."""
        return TableBranch(self.table)

    def take(self, outcome: Outcome) -> str | None:
        """See `Store.take`."""
        entry = outcome.row
        if outcome.cause is not None:
            self.failed += 1
            if self.table.tells_all:
                entry = {"photo": outcome.job.name, "error": outcome.cause}
        elif self.table.tells_all:
            entry["seconds"] = round(outcome.seconds, 4)
        if entry is not None:
            self.places[outcome.job.position] = self.journal.add(entry)
        return str(self.path) if outcome.cause is None else None

    def finish(self) -> None:
        """See `Store.finish`. Where photos failed the journal stays, so that the next run has only those to do."""
        self.table.write(self.path, self._rows)
        if not self.failed and all(self.places[position] >= 0 for position in self.everything.positions):
            self.journal.remove()
        else:
            self.journal.sort("photo")

    def _rows(self) -> Iterator[tuple[Job, Entry]]:
        for job in self.everything:
            if (place := self.places[job.position]) >= 0:
                yield job, self.journal.read(place)


@contextmanager
def open_table(path: Path, jobs: Jobs, recipe: Recipe, table: Table, *, overwrite: bool) -> Iterator[TableFile]:
    """Open a table, whose rows are collected in a journal with `.part` behind its name.

    Raises:
        BadDestination: there is a finished table, or one of another recipe is being made.
        JournalError: another process writes it.

    """
    part = path.with_name(f"{path.name}.part")
    if overwrite:
        part.unlink(missing_ok=True)
    elif part.exists():
        then = read_recipe(part)
        if then is None and part.stat().st_size:
            raise BadDestination(f"{part}: is not the beginning of a table; move it away or give --overwrite")
        if then is not None and then != recipe:
            refuse_recipe(part, then, recipe)
    elif os.path.lexists(path):
        raise BadDestination(f"{path}: exists already; give --overwrite or another name")
    last_ns = part.stat().st_mtime_ns if part.exists() else 0
    remove_stale_temporary_files([path.parent])
    with Journal(part, recipe) as journal:
        places = array("q", [-1]) * len(jobs.photos.names)
        empty = _find_rows(journal, jobs, places, last_ns)
        todo = array("q", (position for position in jobs.positions if places[position] < 0))
        yield TableFile(path, jobs.only(todo), table, journal, places, jobs, len(jobs) - len(todo), empty)


def _find_rows(journal: Journal, jobs: Jobs, places: "array[int]", last_ns: int) -> "array[int]":
    """Note where the rows of earlier runs begin; gives the positions of the photos found empty."""
    names = jobs.photos.names
    positions: dict[str, int] = {}
    empty = array("q")
    for at, entry in journal.entries():
        positions = positions or {names[position]: position for position in jobs.positions}
        position = positions.get(entry["photo"]) if "error" not in entry else None
        if position is None or not is_unchanged(jobs.at(position).origin, entry["origin_bytes"], last_ns):
            continue
        if places[position] < 0 and entry["box_px"] is None:
            empty.append(position)
        places[position] = at
    return empty


def _entry(table: Table, job: Job, found: Result, extent: Extent) -> Entry:
    return {"photo": job.name, **account(job, extent), "row": table.row(found)}
