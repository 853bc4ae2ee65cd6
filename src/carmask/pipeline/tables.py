"""Results of all photos in one file: the challenge's run lengths, Parquet, and `carmask.pipeline.annotations`.

Rows are collected in a journal beside the table, with which a killed run continues, and put together at the end.
"""

import json
import os
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carmask.files import BinaryWriter, as_valid_text, atomic_write, gzip_writer, remove_stale_temporary_files
from carmask.imaging.rle import encode_carvana, write_rows
from carmask.labels.cvat import cvat_row
from carmask.labels.label_studio import label_studio_row
from carmask.pipeline.annotations import Rows, coco_row, write_coco, write_cvat, write_label_studio
from carmask.pipeline.jobs import BadDestination, Job, Jobs, PhotoOutcome
from carmask.pipeline.journal import Entry, Journal, delete_journal, journal_entry, read_entries, read_provenance
from carmask.pipeline.kinds import TableKind
from carmask.pipeline.origins import is_unchanged
from carmask.pipeline.path_lists import PATH_COLUMN
from carmask.pipeline.provenance import Provenance, other_provenance
from carmask.pipeline.sinks import OpenRemotely, Put, Sink
from carmask.result import Result
from carmask.runner import in_batches

# About ten megabytes of run lengths.
_PARQUET_ROWS_IN_GROUP = 1024


@dataclass(frozen=True)
class TableFormat:
    """How a table is written.

    row: what the table says of a mask (bool, height x width), for JSON. write: writes the file, one row after the
    other. has_errors: whether photos that failed have rows too, with the cause under `error`, and the others their
    `seconds`.
    """

    row: Callable[[NDArray[np.bool_]], Any]
    write: Callable[[BinaryWriter, Rows], None]
    has_errors: bool = False


@dataclass
class TableFile(Sink):
    """A table as a sink.

    offsets: where in the journal the row of each photo begins, by the photo's position; -1 without a row.
    replicate: gets each row too, and keeps it elsewhere. failed: photos that failed.
    """

    path: Path
    table: TableFormat
    journal: Journal
    offsets: "array[int]"
    all_jobs: Jobs
    replicate: Callable[[Entry], object] | None = None
    failed: int = 0

    def put(self, job: Job, found: Result) -> Entry:
        """See `Sink.put`."""
        return _entry(self.table, job, found)

    def remote(self) -> OpenRemotely:
        """See `Sink.remote`. Rows are made there, sent back, and written into the table here."""
        put: Put = partial(_entry, self.table)
        return lambda: nullcontext(put)

    def record(self, outcome: PhotoOutcome) -> None:
        """See `Sink.record`."""
        entry = outcome.row
        if outcome.cause is not None:
            self.failed += 1
            entry = {"photo": outcome.job.name, "error": outcome.cause} if self.table.has_errors else None
        elif self.table.has_errors:
            entry["seconds"] = round(outcome.seconds, 4)
        if entry is not None:
            self.offsets[outcome.job.position] = self.journal.add(entry)
            if self.replicate is not None:
                self.replicate(entry)

    def finish(self) -> None:
        """See `Sink.finish`. If photos failed, the journal stays, and the next run tries only those."""
        with atomic_write(self.path) as file, gzip_writer(file, self.path) as stream:
            self.table.write(stream, self._rows)
        if not self.failed and all(self.offsets[position] >= 0 for position in self.all_jobs.positions):
            self.journal.path.unlink(missing_ok=True)
        else:
            self.journal.sort("photo")

    def _rows(self) -> Iterator[tuple[Job, Entry]]:
        with self.journal.path.open("rb") as stream:
            for job in self.all_jobs:
                if (offset := self.offsets[job.position]) >= 0:
                    stream.seek(offset)
                    yield job, json.loads(stream.readline())


@contextmanager
def open_table(
    path: Path, jobs: Jobs, provenance: Provenance, kind: TableKind, *, overwrite: bool
) -> Iterator[TableFile]:
    """Open a table; its rows are collected in a journal of the same name with `.part` at the end.

    Raises:
        BadDestination: there is a finished table, or an unfinished one of another provenance.
        JournalError: another process writes it.
    """
    if kind == "carvana-csv":
        _refuse_equal_file_names(jobs)
    if kind == "parquet":
        import pyarrow  # noqa: F401 - if it is not installed, nothing is done
    part = part_of(path)
    if overwrite:
        delete_journal(part)
    elif part.exists():
        earlier = read_provenance(part)
        if earlier is None and part.stat().st_size:
            raise BadDestination(f"{part}: is not an unfinished table; move it away, or use --overwrite")
        if earlier is not None and earlier != provenance:
            raise other_provenance(part, earlier, provenance)
    elif os.path.lexists(path):
        raise BadDestination(f"{path}: already exists; use --overwrite or another name")
    last_ns = part.stat().st_mtime_ns if part.exists() else 0
    remove_stale_temporary_files([path.parent])
    with Journal(part, provenance) as journal:
        offsets = array("q", [-1]) * len(jobs.photos.names)
        empty, dice = _find_rows(part, jobs, offsets, last_ns)
        todo = array("q", (position for position in jobs.positions if offsets[position] < 0))
        yield TableFile(jobs.only(todo), empty, dice, path, _TABLES[kind], journal, offsets, jobs)


def part_of(path: Path) -> Path:
    """Return the journal of an unfinished table."""
    return path.with_name(f"{path.name}.part")


def _find_rows(journal: Path, jobs: Jobs, offsets: "array[int]", last_ns: int) -> tuple["array[int]", dict[int, float]]:
    """Set the offsets of the rows of earlier runs; returns `Sink.empty_before` and `Sink.dice_before`."""
    names = jobs.photos.names
    positions: dict[str, int] = {}
    empty = array("q")
    dice: dict[int, float] = {}
    for offset, entry in read_entries(journal):
        positions = positions or {names[position]: position for position in jobs.positions}
        position = positions.get(entry["photo"]) if "error" not in entry else None
        if position is None or not is_unchanged(jobs.at(position), entry.get("made_from", ""), last_ns):
            continue
        if offsets[position] < 0 and entry["box_px"] is None:
            empty.append(position)
        if "expected_dice" in entry:
            dice[position] = entry["expected_dice"]
        offsets[position] = offset
    return empty, dice


def _entry(table: TableFormat, job: Job, found: Result) -> Entry:
    return {"photo": job.name, **journal_entry(job, found), "row": table.row(found.mask)}


# `img,rle_mask`: the photo's file name and its run lengths, none for a photo without a vehicle.


def _refuse_equal_file_names(jobs: Jobs) -> None:
    first: dict[str, str] = {}
    for name in jobs.photos.names:
        other = first.setdefault(_file_name(name), name)
        if other != name:
            raise BadDestination(
                f"{jobs.photos.locate(other)} and {jobs.photos.locate(name)}: the challenge's table has file names "
                "without folders, and these are equal; write a table for each folder, or choose coco"
            )


def _write_carvana(stream: BinaryWriter, rows: Rows) -> None:
    write_rows(stream, ((_file_name(job.name), entry["row"]) for job, entry in rows()))


def _file_name(name: str) -> str:
    return PurePosixPath(name).name


# Parquet: path, size, Carvana's run lengths, box, coverage, expected Dice, seconds, and why there is no mask.


def _parquet_row(mask_HW: NDArray[np.bool_]) -> dict[str, Any]:
    height, width = mask_HW.shape
    return {"height": height, "width": width, "rle": encode_carvana(mask_HW)}


def _write_parquet(stream: BinaryWriter, rows: Rows) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    sides = [pa.field(side, pa.int32(), nullable=False) for side in ("top", "left", "bottom", "right")]
    schema = pa.schema(
        [
            pa.field(PATH_COLUMN, pa.string(), nullable=False),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("rle", pa.string()),
            ("box_px", pa.struct(sides)),
            ("coverage", pa.float64()),
            ("expected_dice", pa.float64()),
            ("seconds", pa.float64()),
            ("error", pa.string()),
        ]
    )
    with ParquetWriter(stream, schema, compression="zstd") as writer:
        for group in in_batches((_to_parquet(job, entry) for job, entry in rows()), _PARQUET_ROWS_IN_GROUP):
            writer.write_table(pa.Table.from_pylist(group, schema))


def _to_parquet(job: Job, entry: Entry) -> dict[str, Any]:
    row = {PATH_COLUMN: as_valid_text(job.photo)}
    if "error" in entry:
        return {**row, "error": as_valid_text(entry["error"])}
    sides = dict(zip(("top", "left", "bottom", "right"), entry["box_px"] or (), strict=False)) or None
    noted = {key: entry.get(key) for key in ("coverage", "expected_dice", "seconds")}
    return {**row, **entry["row"], "box_px": sides, **noted}


_TABLES: dict[TableKind, TableFormat] = {
    "carvana-csv": TableFormat(encode_carvana, _write_carvana),
    "coco": TableFormat(coco_row, write_coco),
    "parquet": TableFormat(_parquet_row, _write_parquet, has_errors=True),
    "cvat": TableFormat(cvat_row, write_cvat),
    "label-studio": TableFormat(label_studio_row, write_label_studio),
}
