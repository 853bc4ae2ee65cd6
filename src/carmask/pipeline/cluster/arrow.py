"""Jobs and their outcomes as Arrow tables, which Ray Data sends to the workers and back."""

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from carmask.pipeline.jobs import Job, Jobs, PhotoOutcome
from carmask.pipeline.sources import PhotoList
from carmask.pipeline.urls import URL

# Names are binary, because file names need not be valid UTF-8.
_JOBS = pa.schema([("position", pa.int64()), ("name", pa.binary()), ("whole_name", pa.bool_())])
_OUTCOMES = pa.schema([("outcome", pa.binary())])


def encode_jobs(jobs: Jobs) -> pa.Table:
    """Encode jobs for a worker: 100,000 of them take a few megabytes."""
    names = [jobs.photos.names[position] for position in jobs.positions]
    columns = {
        "position": list(jobs.positions),
        "name": [name.encode("utf-8", "surrogateescape") for name in names],
        "whole_name": [name in jobs.whole_names for name in names],
    }
    return pa.table(columns, _JOBS)


def decode_jobs(table: pa.Table, root: Path | URL, suffix: str) -> Iterator[Job]:
    """Decode jobs; `root` and `suffix` as in `PhotoList` and `Jobs`."""
    names = [name.decode("utf-8", "surrogateescape") for name in table["name"].to_pylist()]
    whole_names = frozenset(name for name, whole in zip(names, table["whole_name"].to_pylist(), strict=True) if whole)
    jobs = Jobs(PhotoList(root, names), suffix, whole_names, range(len(names)))
    for position, job in zip(table["position"].to_pylist(), jobs, strict=True):
        yield replace(job, position=position)


def encode_outcomes(outcomes: Iterable[PhotoOutcome]) -> pa.Table:
    """Encode the outcomes of jobs for the command, without the photos themselves."""
    rows = [(one.job.position, one.cause, one.row, one.box_px, one.coverage, one.seconds) for one in outcomes]
    return pa.table({"outcome": [pickle.dumps(row) for row in rows]}, _OUTCOMES)


def encode_error(error: Exception) -> pa.Table:
    """Encode an error that ends the run."""
    return pa.table({"outcome": [pickle.dumps(error)]}, _OUTCOMES)


def decode_outcomes(table: pa.Table, jobs: Jobs) -> Iterator[PhotoOutcome]:
    """Decode what a worker sent; raises the error that it encoded."""
    for data in table["outcome"].to_pylist():
        decoded = pickle.loads(data)  # noqa: S301 - Ray pickles all else that it sends
        if isinstance(decoded, Exception):
            raise decoded
        position, cause, row, box_px, coverage, seconds = decoded
        yield PhotoOutcome(jobs.at(position), cause, row, box_px, coverage, seconds)
