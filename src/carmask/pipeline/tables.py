"""The results of all photos in one file: the challenge's run lengths, COCO's annotations, and Parquet."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from carmask.files import BinaryWriter, atomic_write, gzip_writer
from carmask.imaging.rle import encode_carvana, write_rows
from carmask.pipeline.jobs import BadDestination, Job, Jobs
from carmask.pipeline.journal import Entry
from carmask.pipeline.kinds import TableKind
from carmask.pipeline.parquet import require_parquet, write_results
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
