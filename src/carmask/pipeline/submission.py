"""Check that the challenge accepts a table of run lengths: every photo once, and runs that fit the photos."""

import math
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from carmask.errors import CarmaskError
from carmask.evaluation.metrics import dice
from carmask.imaging.decode import read_size
from carmask.imaging.geometry import size_text
from carmask.imaging.rle import decode_carvana
from carmask.pipeline.masks import Read, find_masks, match_rows
from carmask.pipeline.photo_list import PhotoList
from carmask.pipeline.sources import find_photos
from carmask.progress import Progress, counted
from carmask.runner import default_workers, in_threads

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


class _Checked(NamedTuple):
    """What was found in a row: what is wrong with it, its Dice, or why the photo's true mask cannot be used."""

    name: str
    cause: str | None = None
    dice: float | None = None
    unusable_mask: str | None = None


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
    true_masks: dict[str, Read] = {}
    if truth is not None:
        masks = find_masks(truth, photos=photos, foreground=None, results=None)
        report.unusable_masks += [one.cause for one in masks.photos.unlisted if one not in found.unlisted]
        true_masks.update(masks.readers())
    check = partial(_check, table, found, true_masks)
    rows = _read_valid_rows(table, found, report)
    # Each photo has at most one row here.
    for checked in counted(in_threads(check, rows, default_workers()), progress, report.photos):
        if checked.cause is not None:
            report.add_problem("runs that do not fit the photo", checked.cause)
        if checked.unusable_mask is not None:
            report.unusable_masks.append(checked.unusable_mask)
        if checked.dice is not None:
            report.dice.append(checked.dice)
            report.worst = min(report.worst or (2.0, ""), (checked.dice, checked.name))
    return report


def _read_valid_rows(table: Path, photos: PhotoList, report: SubmissionReport) -> Iterator[tuple[int, str, str]]:
    """Yield the rows of `match_rows`; reports the others, and at the end the photos without a row."""

    def add_row_problem(kind: str, detail: str) -> None:
        report.rows += 1
        report.add_problem(kind, detail)

    for failure in photos.unlisted:
        report.add_problem("folders that cannot be listed", failure.cause)
    have_row: set[str] = set()
    for line, name, runs in match_rows(table, photos, add_row_problem, strip=False, option="--check"):
        report.rows += 1
        report.empty += not runs.strip()
        have_row.add(name)
        yield line, name, runs
    for name in photos.names:
        if name not in have_row:
            report.add_problem("photos without a row", f"{photos.path(name)}: has no row")


def _check(table: Path, photos: PhotoList, true_masks: dict[str, Read], row: tuple[int, str, str]) -> _Checked:
    line, name, runs = row
    photo = photos.path(name)
    try:
        mask_HW = decode_carvana(runs, read_size(photo))
    except CarmaskError as error:
        return _Checked(name, cause=f"{table}, line {line}: {photo.name}: {error}")
    if name not in true_masks:
        return _Checked(name)
    try:
        truth_HW = true_masks[name]()[0].mask
        if truth_HW.shape != mask_HW.shape:
            raise CarmaskError(f"{photo}: is {size_text(mask_HW.shape)}, its true mask {size_text(truth_HW.shape)}")
    except CarmaskError as error:
        return _Checked(name, unusable_mask=str(error))
    return _Checked(name, dice=dice(truth_HW, mask_HW))
