"""The result of an evaluation: a row for each photo, and the averages over all rows, groups, views and folds."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carmask.data.pairs import describe_odd, describe_rules
from carmask.errors import CarmaskError
from carmask.evaluation.metrics import ImageMetrics


class EvaluationError(CarmaskError):
    """There is nothing to evaluate, or the photos that were asked for are not known."""


@dataclass(frozen=True)
class Metric:
    """How a metric is labeled and explained; its exact definition is in `carmask.evaluation.metrics`."""

    label: str
    meaning: str
    more_is_better: bool = True


# The metrics that are averaged, by the names of the fields of `ImageMetrics`.
METRICS = {
    "dice": Metric("Dice", "overlap of the two masks, 2 TP / (2 TP + FP + FN); two empty masks: 1"),
    "iou": Metric("IoU", "intersection over union, TP / (TP + FP + FN)"),
    "precision": Metric("Precision", "share of the predicted pixels that are right"),
    "recall": Metric("Recall", "share of the true pixels that were found"),
    "boundary_f1": Metric(
        "Boundary F1, 2 px",
        "share of the outlines' pixels that lie within 2 px of the other outline: the harmonic mean of both directions",
    ),
    "boundary_error_px": Metric(
        "Boundary error, px",
        "mean distance of the outlines' pixels to the other outline, both directions pooled; left out of the mean "
        "where one of the masks has no outline",
        more_is_better=False,
    ),
}


@dataclass(frozen=True)
class Subject:
    """What was evaluated: names without their folders, so that a report does not show whose machine it was.

    `description` is of the model, `environment` of the machine. `group_word` is what a group is called: "car" in
    Carvana's layout.
    """

    data: str
    model: str
    description: Mapping[str, Any]
    environment: Mapping[str, Any]
    group_word: str = "group"


def format_metric(value: float, metric: str) -> str:
    """Format pixels with two decimals, ratios with four, and NaN as a dash."""
    if math.isnan(value):
        return "–"  # noqa: RUF001 - a dash is meant
    return f"{value:.2f}" if metric.endswith("_px") else f"{value:.4f}"


@dataclass(frozen=True)
class PhotoRow:
    """The metrics of one photo, measured at its own size (height, width)."""

    id: str
    group: str
    view: str | None
    size_HW: tuple[int, int]
    metrics: ImageMetrics


@dataclass(frozen=True)
class EvaluationFailure:
    """A photo that could not be measured: the file that caused it (name only), and why."""

    id: str
    group: str
    view: str | None
    file: str
    cause: str


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
class TableRow:
    """One group, view or fold: means over its photos, and its worst Dice."""

    name: str
    photos: int
    dice: float
    worst_dice: float
    iou: float
    boundary_f1: float
    boundary_error_px: float


@dataclass(frozen=True)
class Evaluation:
    """What was measured: a row for each photo in the order of the pairs, and the photos that could not be measured.

    Attributes:
        rows: The measured photos.
        failures: The photos that could not be measured.
        seconds: How long it took.
        rules: How the true masks were read (rule -> number of masks).
        odd: True masks that do not look like a mask of one object (id -> complaint).
        part: The part of the data set: "validation", "train", "all" or "out-of-fold".
        remarks: What is known about whether the network was trained on these photos.
        warnings: Why the metrics may not be held-out ones, or not of all photos.
        fold_of: Out of fold: the fold whose network measured a photo (id -> name of the fold).

    """

    rows: tuple[PhotoRow, ...] = field(repr=False)
    failures: tuple[EvaluationFailure, ...]
    seconds: float
    rules: Mapping[str, int] = field(default_factory=dict)
    odd: Mapping[str, str] = field(default_factory=dict)
    part: str = "all"
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    fold_of: Mapping[str, str] = field(default_factory=dict)

    @property
    def mask_rules(self) -> list[str]:
        """How the true masks were read, in a few lines."""
        return describe_rules(self.rules)

    @property
    def odd_warning(self) -> str | None:
        """A warning about true masks that look odd, if any do."""
        return describe_odd(self.odd)

    @property
    def summary(self) -> dict[str, MetricSummary]:
        """Each metric over all photos; every photo counts the same."""
        return {
            name: summarize(self.values(name), more_is_better=metric.more_is_better) for name, metric in METRICS.items()
        }

    @property
    def by_fold(self) -> list[TableRow]:
        """One row for each fold; empty unless `part` is "out-of-fold"."""
        return _table([row for row in self.rows if row.id in self.fold_of], lambda row: self.fold_of[row.id])

    @property
    def by_group(self) -> list[TableRow]:
        """One row for each group (car); empty where every photo is a group of its own."""
        table = _table(self.rows, lambda row: row.group)
        return table if len(table) < len(self.rows) else []

    @property
    def by_view(self) -> list[TableRow]:
        """One row for each view; empty where the data set has no views."""
        return _table([row for row in self.rows if row.view is not None], lambda row: str(row.view))

    def values(self, metric: str) -> NDArray[np.float64]:
        """All photos' values of a metric or an area, in the order of the rows; NaN where undefined."""
        return np.array([getattr(row.metrics, metric) for row in self.rows], dtype=np.float64)

    def worst(self, count: int) -> list[PhotoRow]:
        """Return the `count` photos of lowest Dice, worst first; among equals the larger boundary error first."""

        def badness(row: PhotoRow) -> tuple[float, float, str]:
            error_px = row.metrics.boundary_error_px
            return row.metrics.dice, -math.inf if math.isnan(error_px) else -error_px, row.id

        return sorted(self.rows, key=badness)[:count]


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


def _table(rows: Sequence[PhotoRow], name_of: Callable[[PhotoRow], str]) -> list[TableRow]:
    members: dict[str, list[ImageMetrics]] = defaultdict(list)
    for row in rows:
        members[name_of(row)].append(row.metrics)
    table = []
    for name, metrics in sorted(members.items()):
        errors_px = [m.boundary_error_px for m in metrics if not math.isnan(m.boundary_error_px)]
        table.append(
            TableRow(
                name=name,
                photos=len(metrics),
                dice=float(np.mean([m.dice for m in metrics])),
                worst_dice=min(m.dice for m in metrics),
                iou=float(np.mean([m.iou for m in metrics])),
                boundary_f1=float(np.mean([m.boundary_f1 for m in metrics])),
                boundary_error_px=float(np.mean(errors_px)) if errors_px else math.nan,
            )
        )
    return table
