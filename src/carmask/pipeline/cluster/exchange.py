"""Jobs and their outcomes as Arrow tables, in which they travel between the command and its workers."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from carmask.pipeline.cluster.order import ClusterError
from carmask.pipeline.jobs import Job, Jobs, PhotoOutcome
from carmask.pipeline.sources import PhotoList
from carmask.pipeline.urls import URL

# Names and texts travel as bytes: they may hold what is not valid UTF-8.
_TASKS = pa.schema([("position", pa.int64()), ("name", pa.binary()), ("whole_name", pa.bool_())])
_OUTCOMES = pa.schema(
    [
        ("position", pa.int64()),
        ("cause", pa.binary()),
        ("row", pa.binary()),
        ("box_px", pa.list_(pa.int32())),
        ("coverage", pa.float64()),
        ("seconds", pa.float64()),
        ("refusal", pa.binary()),
        ("defect", pa.binary()),
    ]
)


def to_tasks(jobs: Jobs) -> pa.Table:
    """Jobs for a worker."""
    names = [jobs.photos.names[position] for position in jobs.positions]
    columns = {
        "position": list(jobs.positions),
        "name": list(map(_to_bytes, names)),
        "whole_name": [name in jobs.whole_names for name in names],
    }
    return pa.table(columns, _TASKS)


def to_jobs(tasks: pa.Table, root: Path | URL, suffix: str) -> Iterator[Job]:
    """The jobs that were sent."""
    names = list(map(_to_text, tasks["name"].to_pylist()))
    whole_names = frozenset(name for name, whole in zip(names, tasks["whole_name"].to_pylist(), strict=True) if whole)
    jobs = Jobs(PhotoList(root, names), suffix, whole_names, range(len(names)))
    for position, job in zip(tasks["position"].to_pylist(), jobs, strict=True):
        yield replace(job, position=position)


def to_table(outcomes: Iterable[PhotoOutcome]) -> pa.Table:
    """What became of jobs."""
    return pa.Table.from_pylist(list(map(_to_row, outcomes)), _OUTCOMES)


def refusal(message: str) -> pa.Table:
    """Say why no worker can go on."""
    return pa.Table.from_pylist([{"refusal": _to_bytes(message)}], _OUTCOMES)


def defect(traceback: str) -> pa.Table:
    """Say where the program failed."""
    return pa.Table.from_pylist([{"defect": _to_bytes(traceback)}], _OUTCOMES)


def to_outcomes(table: pa.Table, jobs: Jobs) -> Iterator[PhotoOutcome]:
    """What a worker sent.

    Raises:
        ClusterError: it cannot go on, and nor could any other.
        RuntimeError: a defect of the program.

    """
    for told in table.to_pylist():
        if told["refusal"] is not None:
            raise ClusterError(_to_text(told["refusal"]))
        if told["defect"] is not None:
            raise RuntimeError(f"in a worker:\n{_to_text(told['defect'])}")
        yield PhotoOutcome(
            jobs.at(told["position"]),
            _to_text(told["cause"]) if told["cause"] is not None else None,
            json.loads(told["row"]) if told["row"] is not None else None,
            tuple(told["box_px"]) if told["box_px"] is not None else None,
            told["coverage"],
            told["seconds"],
        )


def _to_row(outcome: PhotoOutcome) -> dict[str, Any]:
    return {
        "position": outcome.job.position,
        "cause": _to_bytes(outcome.cause) if outcome.cause is not None else None,
        "row": json.dumps(outcome.row).encode() if outcome.row is not None else None,
        "box_px": outcome.box_px,
        "coverage": outcome.coverage,
        "seconds": outcome.seconds,
    }


def _to_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _to_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
