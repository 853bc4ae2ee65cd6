"""What became of all photos: counts, the first few by name, and files that list them."""

import csv
import io
import os
from array import array
from bisect import insort
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import IO

from carmask.files import UnwritableFile, atomic_write, unwritable
from carmask.pipeline.jobs import Jobs, PhotoOutcome
from carmask.pipeline.sinks import Sink
from carmask.pipeline.sources import PhotoFailure
from carmask.pipeline.urls import URL
from carmask.progress import Progress

_SHOWN = 10
_FAILURES_HEADER = "photo,cause"
_EMPTY_HEADER = "# photos in which no vehicle was found"


@dataclass
class RunSummary:
    """What became of the photos. Of failures and photos without a vehicle the first ten are named.

    before: done by an earlier run. done: by this one. empty: in which no vehicle was found; they have a result all the
    same.
    """

    before: int
    done: int = 0
    failed: int = 0
    empty: int = 0
    first_failures: list[PhotoFailure] = field(default_factory=list)
    first_empty: list[Path | URL] = field(default_factory=list)


@dataclass(frozen=True)
class Lists:
    """Files that list every failure and every photo without a vehicle; None where one photo is done by itself."""

    failures: Path | None = None
    empty: Path | None = None


def run(
    outcomes: Generator[PhotoOutcome, None, None],
    store: Sink,
    jobs: Jobs,
    lists: Lists,
    *,
    progress: Progress | None = None,
    each: Callable[[PhotoOutcome, str | None], None] | None = None,
) -> RunSummary:
    """Take all outcomes, note the failures as they come, and finish the store.

    Args:
        outcomes: What becomes of `store.jobs`, one by one, in any order.
        store: Where their results go.
        jobs: All photos, those done before included.
        lists: Where they are listed.
        progress: Is told after each photo.
        each: Is given each outcome, and where its result lies.

    Raises:
        UnwritableFile: what all results share cannot be written, or something else has the name of a list.

    """
    summary = RunSummary(before=store.before)
    empty = array("q", store.empty_before)
    total = len(store.jobs)
    with FailureList(lists.failures) as failures, closing(outcomes):
        for failure in jobs.photos.unlisted:
            failures.add(failure)
        for number, outcome in enumerate(outcomes, start=1):
            result = store.take(outcome)
            if outcome.cause is not None:
                failures.add(PhotoFailure(outcome.job.origin, outcome.cause), outcome.job.position)
            else:
                summary.done += 1
                if outcome.extent.box_px is None:
                    empty.append(outcome.job.position)
            if each is not None:
                each(outcome, result)
            if progress is not None:
                progress(number, total)
        store.finish()
        summary.failed = failures.count
        summary.first_failures = [failure for _, failure in failures.first]
        summary.empty = len(empty)
        in_order = array("q", sorted(empty))
        summary.first_empty = [jobs.at(position).origin for position in in_order[:_SHOWN]]
        _write_empty(lists.empty, (jobs.at(position).origin for position in in_order))
    return summary


class FailureList:
    """`photo,cause`, a line for each failure as it happens; there is no such file where nothing failed.

    In the end the lines are in the order of the photos. A file of that name that is something else stays as it is.
    count: of failures. first: the first ten in the order of the photos, each after the photo's position.
    """

    def __init__(self, path: Path | None) -> None:
        self.count = 0
        self.first: list[tuple[int, PhotoFailure]] = []
        self._path = path
        self._stream: IO[bytes] | None = None
        self._positions = array("q")
        self._starts = array("q")
        self._is_strange = path is not None and not _remove_own(path, _FAILURES_HEADER)

    def __enter__(self) -> "FailureList":
        return self

    def add(self, failure: PhotoFailure, position: int = -1) -> None:
        """Note one failure of the photo of this position; what is none comes before all photos.

        Raises:
            UnwritableFile: the file cannot be written.

        """
        self.count += 1
        insort(self.first, (position, failure), key=itemgetter(0))
        del self.first[_SHOWN:]
        if self._path is None or self._is_strange:
            return
        try:
            if self._stream is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._stream = self._path.open("wb")
                self._stream.write(f"{_FAILURES_HEADER}\n".encode())
            self._positions.append(position)
            self._starts.append(self._stream.tell())
            line = io.StringIO()
            csv.writer(line, lineterminator="\n").writerow((failure.path, failure.cause))
            self._stream.write(line.getvalue().encode(errors="backslashreplace"))
            self._stream.flush()
        except OSError as error:
            raise unwritable(self._path, error) from error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._stream is not None:
            self._starts.append(self._stream.tell())
            self._stream.close()
        if kind is None and self.count and self._is_strange:
            _refuse_strange(self._path, _FAILURES_HEADER, "failures")
        if kind is None and self._path is not None:
            self._sort(self._path)

    def _sort(self, path: Path) -> None:
        """Bring the lines into the order of the photos."""
        order = sorted(range(len(self._positions)), key=self._positions.__getitem__)
        if order == list(range(len(order))):
            return
        with path.open("rb") as stream, atomic_write(path) as tidy:
            tidy.write(stream.readline())
            for index in order:
                stream.seek(self._starts[index])
                tidy.write(stream.read(self._starts[index + 1] - self._starts[index]))


def _write_empty(path: Path | None, photos: Iterable[Path | URL]) -> None:
    """Write a list of photos that `carmask predict` takes as its source; none where there are none."""
    if path is None:
        return
    is_strange = not _remove_own(path, _EMPTY_HEADER)
    first = next(photos := iter(photos), None)
    if first is None:
        return
    if is_strange:
        _refuse_strange(path, _EMPTY_HEADER, "photos without a vehicle")
    with atomic_write(path) as stream:
        stream.write(f"{_EMPTY_HEADER}\n".encode())
        for photo in (first, *photos):
            # A line cannot hold a name with a line break.
            stream.write(os.fsencode(str(photo)).replace(b"\n", b"?") + b"\n")


def _remove_own(path: Path, header: str) -> bool:
    """Remove the list of an earlier run; whether the place is free now."""
    try:
        if not path.exists():
            return True
        if not path.is_file() or not path.read_bytes().startswith(header.encode()):
            return False
        path.unlink()
    except OSError as error:
        raise UnwritableFile(f"{path}: cannot be replaced ({error.strerror}); see to its permissions") from error
    return True


def _refuse_strange(path: Path | None, header: str, what: str) -> None:
    raise UnwritableFile(
        f"{path}: is not a list of {what} (it does not begin with '{header}') and is left as it is; move it away and "
        f"run again to have the {what} listed"
    )
