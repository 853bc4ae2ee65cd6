"""Is a table of run lengths what the challenge takes: every photo once, and runs that fit the photos?"""

import math
from array import array
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.evaluation.metrics import dice
from carmask.imaging.decode import decode_mask, read_size
from carmask.imaging.rle import RleError, decode_carvana, read_rows
from carmask.pipeline.masks import MasksError, find_masks
from carmask.pipeline.sources import PhotoList, find_photos
from carmask.progress import Progress
from carmask.runner import default_workers, map_ahead

_SHOWN = 20


@dataclass
class SubmissionReport:
    """What was found.

    photos: in the folder. rows: below the header. empty: rows without runs. problems: how many of each kind.
    first_problems: the first twenty, a line each. dice: of every row that has a true mask. worst: the worst of these,
    and its photo. useless_masks: why true masks were left out, which is no fault of the table's.
    """

    photos: int
    rows: int = 0
    empty: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    first_problems: list[str] = field(default_factory=list)
    dice: "array[float]" = field(default_factory=lambda: array("d"))
    worst: tuple[float, str] | None = None
    useless_masks: list[str] = field(default_factory=list)

    @property
    def mean_dice(self) -> float | None:
        """The challenge's measure."""
        return math.fsum(self.dice) / len(self.dice) if self.dice else None

    def complain(self, kind: str, detail: str) -> None:
        """Count a problem, and keep it if it is one of the first."""
        self.problems[kind] += 1
        if len(self.first_problems) < _SHOWN:
            self.first_problems.append(detail)


def check_submission(
    table: Path, photos: Path, *, truth: Path | None = None, progress: Progress | None = None
) -> SubmissionReport:
    """Look for every problem in a table of run lengths; rows are read one after the other, however many there are.

    Args:
        table: `img,rle_mask`, .csv or .csv.gz.
        photos: The folder of the photos, each of which has to have one row.
        truth: True masks of some or all of the photos: a folder, or a table.
        progress: Is told after each row; the total is the number of photos.

    Raises:
        CarmaskError: the table cannot be read as one, or there are no photos or no true masks.

    """
    found = find_photos(photos, results=None)
    report = SubmissionReport(len(found.names))
    known = _Known(found, report)
    masks = _TrueMasks(truth, photos, found) if truth is not None else None
    report.useless_masks += masks.left_out if masks is not None else ()
    with ThreadPoolExecutor(default_workers(), "check") as pool:
        rows = known.rows(table)
        for number, checked in enumerate(map_ahead(pool, lambda row: _check(row, masks), rows, 64), start=1):
            if checked.cause is not None:
                report.complain("runs that do not fit the photo", checked.cause)
            if checked.useless_mask is not None:
                report.useless_masks.append(checked.useless_mask)
            if checked.dice is not None:
                report.dice.append(checked.dice)
                report.worst = min(report.worst or (2.0, ""), (checked.dice, checked.name))
            if progress is not None:
                progress(number, max(number, report.photos))
    known.complain_of_missing()
    return report


class _Row(NamedTuple):
    """A row: the photo's name as in `PhotoList.names`, its file, the run lengths, and how messages call the row."""

    name: str
    photo: Path
    runs: str
    label: str


class _Checked(NamedTuple):
    """What came of a row: what is wrong with it, its Dice, or why the photo's true mask is of no use."""

    name: str
    cause: str | None = None
    dice: float | None = None
    useless_mask: str | None = None


class _Known:
    """The photos, and which of them had a row."""

    def __init__(self, photos: PhotoList, report: SubmissionReport) -> None:
        self._photos = photos
        self._report = report
        self._positions: dict[str, int] = {}
        self._seen = bytearray(len(photos.names))
        for failure in photos.unlisted:
            report.complain("folders that cannot be listed", failure.cause)
        for position, name in enumerate(photos.names):
            other = self._positions.setdefault(PurePosixPath(name).name, position)
            if other != position:
                self._seen[position] = True
                report.complain(
                    "photos of the same name", f"{photos.path(name)} and {photos.names[other]} have the same name"
                )

    def rows(self, table: Path) -> Iterator[_Row]:
        """The rows whose runs can be looked at; of the others it is said why."""
        for line, fields in read_rows(table):
            self._report.rows += 1
            label = f"{table}, line {line}"
            if len(fields) != 2:
                self._report.complain("rows that are none", f"{label}: {len(fields)} fields instead of a name and runs")
                continue
            name, runs = fields
            position = self._positions.get(name)
            if position is None:
                self._report.complain("unknown photos", f"{label}: there is no photo {name!r}")
            elif self._seen[position]:
                self._report.complain("photos with several rows", f"{label}: {name} has a row already")
            else:
                self._seen[position] = True
                self._report.empty += not runs.strip()
                photo = self._photos.names[position]
                yield _Row(photo, self._photos.path(photo), runs, f"{label}: {name}")

    def complain_of_missing(self) -> None:
        """Name the photos that had no row."""
        for name, seen in zip(self._photos.names, self._seen, strict=True):
            if not seen:
                self._report.complain("photos without a row", f"{self._photos.path(name)}: has no row")


class _TrueMasks:
    """True masks by the names of their photos, from files or from the rows of a table.

    left_out: why others are of no use.
    """

    def __init__(self, source: Path, photos: Path, known: PhotoList) -> None:
        masks = find_masks(source, photos=photos, foreground=None, results=None)
        self.left_out = [failure.cause for failure in masks.photos.unlisted if failure not in known.unlisted]
        self._source = source
        self._files = dict(zip(masks.photos.names, masks.photos.origins or (), strict=False))
        self._runs = dict(masks.rows())

    def read(self, name: str, size_HW: tuple[int, int]) -> NDArray[np.bool_] | None:
        """The true mask of a photo of this size, bool (height, width); None where there is none.

        Raises:
            CarmaskError: it cannot be read.

        """
        if name in self._files:
            truth_HW = decode_mask(self._files[name]).mask_HW
            if truth_HW.shape != size_HW:
                sizes = (f"{height} x {width} px" for height, width in (truth_HW.shape, size_HW))
                raise MasksError(f"{self._files[name]}: is {next(sizes)}, its photo {next(sizes)}")
            return truth_HW
        if name not in self._runs:
            return None
        try:
            return decode_carvana(self._runs[name], size_HW)
        except RleError as error:
            raise RleError(f"{self._source}, row of {PurePosixPath(name).name}: {error}") from error


def _check(row: _Row, masks: _TrueMasks | None) -> _Checked:
    try:
        size_HW = read_size(row.photo)
        mask_HW = decode_carvana(row.runs, size_HW)
    except CarmaskError as error:
        return _Checked(row.name, cause=f"{row.label}: {error}")
    try:
        truth_HW = masks.read(row.name, size_HW) if masks is not None else None
    except CarmaskError as error:
        return _Checked(row.name, useless_mask=str(error))
    return _Checked(row.name, dice=None if truth_HW is None else dice(truth_HW, mask_HW))
