"""The results of all photos in one file: the challenge's run lengths, COCO's annotations, and Parquet."""

import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from carmask.files import BinaryWriter, atomic_write, gzip_writer, remove_stale_temporary_files
from carmask.imaging.rle import encode_carvana, write_rows
from carmask.pipeline.jobs import BadDestination, Extent, Job, Jobs, PhotoOutcome
from carmask.pipeline.journal import Entry, Journal, Provenance, read_provenance
from carmask.pipeline.kinds import TableKind
from carmask.pipeline.parquet import require_parquet, write_results
from carmask.pipeline.provenance import account, is_unchanged, refuse_other_provenance
from carmask.pipeline.sinks import Put
from carmask.result import Result

# Gives the rows in the order of the photos, as often as it is called.
Rows = Callable[[], Iterator[tuple[Job, Entry]]]


class Table(Protocol):
    """How a table is made of rows.

    tells_all: whether there are rows of photos that failed too, with the cause under `error`, and `seconds` in others.
    """

    tells_all: bool

    def check(self, jobs: Jobs) -> None:
        """Refuse photos that a table cannot hold together.

        Raises:
            BadDestination: two photos would have the same name in it.

        """
        ...

    def row(self, found: Result) -> Any:
        """What the table has to say of one photo, as JSON can hold it."""
        ...

    def write(self, path: Path, rows: Rows) -> None:
        """Write the file, one row after the other.

        Raises:
            UnwritableFile: it cannot be written.

        """
        ...


class CarvanaTable:
    """`img,rle_mask`: the photo's file name and its run lengths. A photo without a vehicle has no runs."""

    tells_all = False

    def check(self, jobs: Jobs) -> None:
        """See `Table.check`."""
        first: dict[str, str] = {}
        for name in jobs.photos.names:
            other = first.setdefault(_file_name(name), name)
            if other != name:
                raise BadDestination(
                    f"{jobs.photos.place(other)} and {jobs.photos.place(name)}: a row of the challenge's table bears "
                    "the file's name only, and these are the same; make a table for each folder, or choose coco"
                )

    def row(self, found: Result) -> str:
        """See `Table.row`."""
        return encode_carvana(found.mask)

    def write(self, path: Path, rows: Rows) -> None:
        """See `Table.write`."""
        with atomic_write(path) as file, gzip_writer(file, path) as stream:
            write_rows(stream, ((_file_name(job.name), entry["row"]) for job, entry in rows()))


class ParquetTable:
    """Parquet: path, size, Carvana's run lengths, box, coverage, seconds, and why there is no mask, a row a photo."""

    tells_all = True

    def check(self, jobs: Jobs) -> None:  # noqa: ARG002 - of no use here
        """See `Table.check`. Paths are whole; only what writes them may be missing."""
        require_parquet("--kind parquet")

    def row(self, found: Result) -> dict[str, Any]:
        """See `Table.row`."""
        height, width = found.mask.shape
        return {"height": height, "width": width, "rle": encode_carvana(found.mask)}

    def write(self, path: Path, rows: Rows) -> None:
        """See `Table.write`."""
        with atomic_write(path) as stream:
            write_results(stream, (_parquet_row(job, entry) for job, entry in rows()))


class CocoTable:
    """COCO's annotations, run lengths included: one annotation for each photo in which a vehicle was found.

    Ids are the photos' numbers, from 1 on, in the whole listing: parts made by --shard can be put together. `iscrowd`
    is 0 although its masks are run lengths, as with other tools: crowds are left out when detections are scored.
    """

    tells_all = False

    def check(self, jobs: Jobs) -> None:
        """See `Table.check`. Names are paths below the common folder here, which never meet."""

    def row(self, found: Result) -> dict[str, Any]:
        """See `Table.row`."""
        from carmask.imaging.rle import encode_coco

        height, width = found.mask.shape
        area = int(np.count_nonzero(found.mask))
        return {"height": height, "width": width, "area": area, "segmentation": encode_coco(found.mask)}

    def write(self, path: Path, rows: Rows) -> None:
        """See `Table.write`."""
        with atomic_write(path) as file, gzip_writer(file, path) as stream:
            stream.write(b'{"info":{"description":"masks by carmask"},"licenses":[],"images":[\n')
            _write_items(stream, (_coco_image(job, entry) for job, entry in rows()))
            stream.write(b'],"annotations":[\n')
            _write_items(stream, (_coco_annotation(job, entry) for job, entry in rows() if entry["box_px"]))
            stream.write(b'],"categories":[{"id":1,"name":"vehicle","supercategory":"vehicle"}]}\n')


TABLES: dict[TableKind, Callable[[], Table]] = {"carvana-csv": CarvanaTable, "coco": CocoTable, "parquet": ParquetTable}


def _parquet_row(job: Job, entry: Entry) -> dict[str, Any]:
    # A name that is not valid text comes out with its bytes as escapes.
    row = {"path": str(job.photo).encode(errors="backslashreplace").decode()}
    if "error" in entry:
        return {**row, "error": entry["error"].encode(errors="backslashreplace").decode()}
    sides = dict(zip(("top", "left", "bottom", "right"), entry["box_px"] or (), strict=False)) or None
    return {**row, **entry["row"], "box_px": sides, "coverage": entry["coverage"], "seconds": entry["seconds"]}


def _coco_image(job: Job, entry: Entry) -> dict[str, Any]:
    size = {key: entry["row"][key] for key in ("height", "width")}
    return {"id": job.position + 1, "file_name": job.name, **size}


def _coco_annotation(job: Job, entry: Entry) -> dict[str, Any]:
    top, left, bottom, right = entry["box_px"]
    return {
        "id": job.position + 1,
        "image_id": job.position + 1,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [left, top, right - left, bottom - top],
        "area": entry["row"]["area"],
        "segmentation": entry["row"]["segmentation"],
    }


def _write_items(stream: BinaryWriter, items: Iterable[dict[str, Any]]) -> None:
    separator = b""
    for item in items:
        stream.write(separator + json.dumps(item, separators=(",", ":")).encode())
        separator = b",\n"


def _file_name(name: str) -> str:
    return PurePosixPath(name).name


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
        """See `Sink.put`; a line of the journal."""
        return _entry(self.table, job, found, extent)

    def branch(self) -> "TableBranch":
        """See `Sink.branch`."""
        return TableBranch(self.table)

    def take(self, outcome: PhotoOutcome) -> str | None:
        """See `Sink.take`."""
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
        """See `Sink.finish`. Where photos failed the journal stays, so that the next run has only those to do."""
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
def open_table(path: Path, jobs: Jobs, recipe: Provenance, table: Table, *, overwrite: bool) -> Iterator[TableFile]:
    """Open a table, whose rows are collected in a journal with `.part` behind its name.

    Raises:
        BadDestination: there is a finished table, or one of another recipe is being made.
        JournalError: another process writes it.

    """
    part = path.with_name(f"{path.name}.part")
    if overwrite:
        part.unlink(missing_ok=True)
    elif part.exists():
        then = read_provenance(part)
        if then is None and part.stat().st_size:
            raise BadDestination(f"{part}: is not the beginning of a table; move it away or give --overwrite")
        if then is not None and then != recipe:
            refuse_other_provenance(part, then, recipe)
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
