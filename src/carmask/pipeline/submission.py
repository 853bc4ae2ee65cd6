"""Check that the challenge accepts a table of run lengths: every photo once, and runs that fit the photos."""

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
    """What was found in a submission.

    photos: in the folder. rows: below the header. empty: rows without runs. problems: how many of each kind.
    first_problems: the first twenty, a line each. dice: of every row with a true mask. worst: the lowest of these, and
    its photo. unusable_masks: why true masks were left out, which is not a problem of the table.
    """

    photos: int
    rows: int = 0
    empty: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    first_problems: list[str] = field(default_factory=list)
    dice: "array[float]" = field(default_factory=lambda: array("d"))
    worst: tuple[float, str] | None = None
    unusable_masks: list[str] = field(default_factory=list)

    @property
    def mean_dice(self) -> float | None:
        """The challenge's metric; None without true masks."""
        return math.fsum(self.dice) / len(self.dice) if self.dice else None

    def add_problem(self, kind: str, detail: str) -> None:
        """Count a problem, and keep it if it is one of the first."""
        self.problems[kind] += 1
        if len(self.first_problems) < _SHOWN:
            self.first_problems.append(detail)


def check_submission(
    table: Path, photos: Path, *, truth: Path | None = None, progress: Progress | None = None
) -> SubmissionReport:
    """Find every problem in a table of run lengths. Rows are read one after the other, so memory stays bounded.

    Args:
        table: `img,rle_mask`, .csv or .csv.gz.
        photos: The folder of the photos, each of which needs exactly one row.
        truth: True masks of some or all of the photos: a folder, or a table.
        progress: Called after each row; the total is the number of photos.

    Raises:
        CarmaskError: the file is not such a table, or there are no photos or no true masks.

    """
    found = find_photos(photos, results=None)
    report = SubmissionReport(len(found.names))
    masks = _TrueMasks(truth, photos, found) if truth is not None else None
    report.unusable_masks += masks.unusable if masks is not None else ()
    with ThreadPoolExecutor(default_workers(), "check") as pool:
        rows = _read_valid_rows(table, found, report)
        for number, checked in enumerate(map_ahead(pool, lambda row: _check(row, masks), rows, 64), start=1):
            if checked.cause is not None:
                report.add_problem("runs that do not fit the photo", checked.cause)
            if checked.unusable_mask is not None:
                report.unusable_masks.append(checked.unusable_mask)
            if checked.dice is not None:
                report.dice.append(checked.dice)
                report.worst = min(report.worst or (2.0, ""), (checked.dice, checked.name))
            if progress is not None:
                progress(number, max(number, report.photos))
    return report


class _Row(NamedTuple):
    """A row: the photo's name as in `PhotoList.names`, its file, the run lengths, and the row's name in messages."""

    name: str
    photo: Path
    runs: str
    label: str


class _Checked(NamedTuple):
    """What was found in a row: what is wrong with it, its Dice, or why the photo's true mask cannot be used."""

    name: str
    cause: str | None = None
    dice: float | None = None
    unusable_mask: str | None = None


def _read_valid_rows(table: Path, photos: PhotoList, report: SubmissionReport) -> Iterator[_Row]:
    """Yield the rows whose runs can be checked; reports the others, and at the end the photos without a row."""
    positions: dict[str, int] = {}
    has_row = bytearray(len(photos.names))
    for failure in photos.unlisted:
        report.add_problem("folders that cannot be listed", failure.cause)
    for position, name in enumerate(photos.names):
        other = positions.setdefault(PurePosixPath(name).name, position)
        if other != position:
            has_row[position] = True
            detail = f"{photos.path(name)} and {photos.names[other]} have the same name"
            report.add_problem("photos of the same name", detail)
    for line, fields in read_rows(table):
        report.rows += 1
        label = f"{table}, line {line}"
        if len(fields) != 2:
            detail = f"{label}: {len(fields)} fields instead of a name and run lengths"
            report.add_problem("rows with other fields", detail)
            continue
        name, runs = fields
        found = positions.get(name)
        if found is None:
            report.add_problem("unknown photos", f"{label}: there is no photo {name!r}")
        elif has_row[found]:
            report.add_problem("photos with several rows", f"{label}: {name} has a row already")
        else:
            has_row[found] = True
            report.empty += not runs.strip()
            photo = photos.names[found]
            yield _Row(photo, photos.path(photo), runs, f"{label}: {name}")
    for name, seen in zip(photos.names, has_row, strict=True):
        if not seen:
            report.add_problem("photos without a row", f"{photos.path(name)}: has no row")


class _TrueMasks:
    """True masks by the names of their photos, from files or from the rows of a table.

    unusable: why others cannot be used.
    """

    def __init__(self, source: Path, photos: Path, known: PhotoList) -> None:
        masks = find_masks(source, photos=photos, foreground=None, results=None)
        self.unusable = [failure.cause for failure in masks.photos.unlisted if failure not in known.unlisted]
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
        return _Checked(row.name, unusable_mask=str(error))
    return _Checked(row.name, dice=None if truth_HW is None else dice(truth_HW, mask_HW))
