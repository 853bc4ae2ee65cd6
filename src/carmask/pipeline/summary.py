"""The summary of a run: how many photos were done or failed, the first few by name, and files that list them."""

import csv
import math
import os
import re
from array import array
from bisect import insort
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TextIO

from carmask.files import UnwritableFile, atomic_write, unwritable
from carmask.pipeline.jobs import Jobs, PhotoOutcome
from carmask.pipeline.outputs import Plan
from carmask.pipeline.photo_list import PhotoFailure
from carmask.pipeline.sinks import Sink
from carmask.pipeline.stores import mirror_file
from carmask.pipeline.urls import URL

# Passes on the outcomes of the photos that are to do, of which there are so many, and shows them.
Follow = Callable[[Iterator[PhotoOutcome], int], Iterator[PhotoOutcome]]

_SHOWN = 10
_FAILURES_HEADER = "photo,cause"
_NO_VEHICLE_HEADER = "# photos in which no vehicle was found"


@dataclass
class RunSummary:
    """How many photos were done or failed.

    done_before: photos done by an earlier run. tried, done, failed: by this run. empty: in which no vehicle was found,
    by this run or an earlier one; they have a result. first_failures, first_empty: the first ten of each.
    remarks: what was left out of photos, with the first of them and how many they are. scores: `PhotoOutcome.score` of
    all photos by position, by this run or an earlier one; NaN where it is not known.
    """

    done_before: int
    tried: int
    done: int = 0
    failed: int = 0
    empty: int = 0
    first_failures: list[PhotoFailure] = field(default_factory=list)
    first_empty: list[Path | URL] = field(default_factory=list)
    remarks: dict[str, tuple[Path | URL, int]] = field(default_factory=dict)
    scores: "array[float]" = field(default_factory=lambda: array("d"))


def collect_outcomes(
    outcomes: Generator[PhotoOutcome, None, None], plan: Plan, sink: Sink, follow: Follow | None = None
) -> RunSummary:
    """Take the outcomes of `sink.jobs`, in any order, list failures as they come, and finish the sink.

    Raises:
        UnwritableFile: the sink or a list cannot be written, or another file has the name of a list.
    """
    jobs = plan.jobs
    summary = RunSummary(len(jobs) - len(sink.jobs), tried=len(sink.jobs))
    summary.scores = array("d", [math.nan]) * len(jobs.photos.names)
    for position, expected_dice in sink.dice_before.items():
        summary.scores[position] = expected_dice
    empty = array("q", sink.empty_before)
    with (
        mirror_file(plan.list_file("failures")) as failures_file,
        mirror_file(plan.list_file("no_vehicle")) as no_vehicle_file,
        FailureList(failures_file) as failures,
        closing(outcomes),
    ):
        for failure in jobs.photos.unlisted:
            failures.add(failure)
        for outcome in follow(outcomes, summary.tried) if follow is not None else outcomes:
            sink.record(outcome)
            if outcome.cause is not None:
                failures.add(PhotoFailure(outcome.job.origin, outcome.cause), outcome.job.position)
            else:
                summary.done += 1
                summary.scores[outcome.job.position] = outcome.score
                if remark := outcome.job.remark:
                    first, count = summary.remarks.get(remark, (outcome.job.origin, 0))
                    summary.remarks[remark] = first, count + 1
                if outcome.box_px is None:
                    empty.append(outcome.job.position)
        sink.finish()
        summary.failed = failures.count
        summary.first_failures = [failure for _, failure in failures.first]
        jobs_without_vehicle = jobs.only(array("q", sorted(empty)))
        summary.empty = len(jobs_without_vehicle)
        summary.first_empty = [job.origin for job in islice(jobs_without_vehicle, _SHOWN)]
        if no_vehicle_file is not None:
            _write_no_vehicle(no_vehicle_file, jobs_without_vehicle)
    return summary


class FailureList:
    """A file of `photo,cause`, one line for each failure as it happens; no file without failures.

    At the end the lines are sorted in the order of the photos. Another file of that name is never touched.
    count: of failures. first: the first ten in the order of the photos, each with the position of its photo.
    """

    def __init__(self, path: Path | None) -> None:
        self.count = 0
        self.first: list[tuple[int, PhotoFailure]] = []
        self._path = path
        self._is_foreign = path is not None and not _remove_own(path, _FAILURES_HEADER)
        self._stream: TextIO | None = None
        self._positions = array("q")
        self._offsets = array("q")

    def __enter__(self) -> "FailureList":
        return self

    def add(self, failure: PhotoFailure, position: int = -1) -> None:
        """Add the failure of the photo at this position, or of a folder, which comes before all photos.

        Raises:
            UnwritableFile: the file cannot be written.
        """
        self.count += 1
        insort(self.first, (position, failure), key=itemgetter(0))
        del self.first[_SHOWN:]
        if self._path is None or self._is_foreign:
            return
        try:
            if self._stream is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._stream = self._path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
                self._stream.write(f"{_FAILURES_HEADER}\n")
            self._positions.append(position)
            self._offsets.append(self._stream.tell())
            # The first column has the path, with which messages begin.
            cause = failure.cause.removeprefix(f"{failure.path}: ")
            csv.writer(self._stream, lineterminator="\n").writerow((failure.path, cause))
            self._stream.flush()
        except OSError as error:
            raise unwritable(self._path, error) from error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._stream is not None:
            self._offsets.append(self._stream.tell())
            self._stream.close()
        if kind is not None or self._path is None or not self.count:
            return
        if self._is_foreign:
            _refuse_foreign(self._path, _FAILURES_HEADER, "failures")
        self._sort(self._path)

    def _sort(self, path: Path) -> None:
        order = sorted(range(len(self._positions)), key=self._positions.__getitem__)
        if order == list(range(len(order))):
            return
        with atomic_write(path) as sorted_file, path.open("rb") as stream:
            sorted_file.write(stream.readline())
            for index in order:
                stream.seek(self._offsets[index])
                sorted_file.write(stream.read(self._offsets[index + 1] - self._offsets[index]))


def _write_no_vehicle(path: Path, jobs: Jobs) -> None:
    """Write a list of photos that `carmask predict` takes as its source; no file without photos."""
    is_foreign = not _remove_own(path, _NO_VEHICLE_HEADER)
    if not len(jobs):
        return
    if is_foreign:
        _refuse_foreign(path, _NO_VEHICLE_HEADER, "photos without a vehicle")
    with atomic_write(path) as stream:
        stream.write(f"{_NO_VEHICLE_HEADER}\n".encode())
        stream.writelines(_to_line(str(job.origin)) for job in jobs)


def _to_line(path: str) -> bytes:
    # A line cannot hold a line break. It would be a comment with # at the beginning, and lose a space there.
    line = re.sub(rb"[\r\n]", b"?", os.fsencode(path))
    return (b"./" if re.match(rb"[#\s]", line) else b"") + line + b"\n"


def _remove_own(path: Path, header: str) -> bool:
    """Delete the list of an earlier run; returns whether the name is free now."""
    if not path.exists():
        return True
    if not path.is_file() or not path.read_bytes().startswith(header.encode()):
        return False
    path.unlink()
    return True


def _refuse_foreign(path: Path, header: str, what: str) -> None:
    raise UnwritableFile(
        f"{path}: is not a list of {what} (it does not begin with '{header}') and was left as it is; move it away and "
        f"run again to list the {what}"
    )
