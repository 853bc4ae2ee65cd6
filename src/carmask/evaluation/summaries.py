"""Averages over many photos: of each metric, of each group, and of what is reported apart from the metrics."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from carmask.evaluation.metrics import EMPTY_BELOW, ImageMetrics


@dataclass(frozen=True)
class MetricSummary:
    """One metric over many photos; NaN where it was defined for none of them.

    `worst_5_percent` is the value that 95 % of the photos reach or better: the 5th percentile, or the 95th of a
    metric of which less is better. `undefined` photos have no value (see `ImageMetrics`) and are left out.
    """

    mean: float
    median: float
    worst: float
    worst_5_percent: float
    photos: int
    undefined: int


@dataclass(frozen=True)
class NoVehicleSummary:
    """What was found in photos whose true mask is empty.

    empty: the number of those whose mask covers less than `EMPTY_BELOW` of the picture. share_empty: their share, and
    so the mean Dice. false_area: the mean share of the picture that is wrongly taken for a vehicle.
    """

    photos: int
    empty: int
    share_empty: float
    false_area: float


@dataclass(frozen=True)
class UnknownSummary:
    """In how many photos the truth has unknown pixels, and which mean share of those photos they are."""

    photos: int
    area: float


@dataclass(frozen=True)
class ExpectedSummary:
    """The expected Dice of all photos, with and without a vehicle: its mean, the true mean, and the mean difference.

    error: the mean over the photos of the absolute difference between expected and measured Dice.
    """

    photos: int
    expected_dice: float
    dice: float
    error: float


@dataclass(frozen=True)
class TableRow:
    """One group, view or fold: means over its photos, and its worst Dice."""

    name: str
    photos: int
    dice: float
    worst_dice: float
    iou: float
    boundary_f1: float
    boundary_error_px: float


def summarize(values: NDArray[np.float64], *, more_is_better: bool) -> MetricSummary:
    """Summarize one metric: float64, one value for each photo, NaN where undefined."""
    defined = values[~np.isnan(values)]
    undefined = len(values) - len(defined)
    if not len(defined):
        return MetricSummary(math.nan, math.nan, math.nan, math.nan, len(values), undefined)
    return MetricSummary(
        mean=float(defined.mean()),
        median=float(np.median(defined)),
        worst=float(defined.min() if more_is_better else defined.max()),
        worst_5_percent=float(np.percentile(defined, 5 if more_is_better else 95)),
        photos=len(values),
        undefined=undefined,
    )


def summarize_no_vehicle(measured: Sequence[ImageMetrics]) -> NoVehicleSummary | None:
    """Summarize what was found in photos without a vehicle, if there are any."""
    if not measured:
        return None
    empty = sum(one.predicted_area < EMPTY_BELOW for one in measured)
    return NoVehicleSummary(
        photos=len(measured),
        empty=empty,
        share_empty=empty / len(measured),
        false_area=fmean(one.predicted_area for one in measured),
    )


def summarize_unknown(measured: Iterable[ImageMetrics]) -> UnknownSummary | None:
    """Summarize how much of the truth is unknown, if anything is."""
    areas = [one.unknown_area for one in measured if one.unknown_area > 0]
    return UnknownSummary(len(areas), fmean(areas)) if areas else None


def summarize_expected(pairs: Sequence[tuple[float, float]]) -> ExpectedSummary | None:
    """Summarize the expected and the measured Dice of each photo, if any photo has an expected one."""
    if not pairs:
        return None
    return ExpectedSummary(
        photos=len(pairs),
        expected_dice=fmean(expected for expected, _ in pairs),
        dice=fmean(dice for _, dice in pairs),
        error=fmean(abs(expected - dice) for expected, dice in pairs),
    )


def table_by_name(measured: Iterable[tuple[str, ImageMetrics]]) -> list[TableRow]:
    """Return a row for each name, in the order of the names, from the photos of that name."""
    members: dict[str, list[ImageMetrics]] = defaultdict(list)
    for name, metrics_of_photo in measured:
        members[name].append(metrics_of_photo)
    return [
        TableRow(
            name=name,
            photos=len(metrics),
            dice=float(np.mean([one.dice for one in metrics])),
            worst_dice=min(one.dice for one in metrics),
            iou=float(np.mean([one.iou for one in metrics])),
            boundary_f1=_mean_of_defined([one.boundary_f1 for one in metrics]),
            boundary_error_px=_mean_of_defined([one.boundary_error_px for one in metrics]),
        )
        for name, metrics in sorted(members.items())
    ]


def _mean_of_defined(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan
