"""The result of an evaluation: a row for each photo, and the averages over all rows, groups, views and folds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carmask.data.pairs import describe_inverted, describe_odd, describe_rules
from carmask.errors import CarmaskError
from carmask.evaluation.metric_labels import METRICS, METRICS_OF_LABELED, Metric
from carmask.evaluation.metrics import EMPTY_BELOW, ImageMetrics
from carmask.evaluation.summaries import (
    ExpectedSummary,
    MetricSummary,
    NoVehicleSummary,
    TableRow,
    UnknownSummary,
    summarize,
    summarize_expected,
    summarize_no_vehicle,
    summarize_unknown,
    table_by_name,
)


class EvaluationError(CarmaskError):
    """There is nothing to evaluate, or the photos that were asked for are not known."""


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


@dataclass(frozen=True)
class PhotoRow:
    """The metrics of one photo, measured at its own size (height, width), and its `Result.expected_dice`."""

    id: str
    group: str
    view: str | None
    size_HW: tuple[int, int]
    metrics: ImageMetrics
    expected_dice: float | None = None

    @property
    def has_vehicle(self) -> bool:
        """Whether the true mask has a foreground pixel."""
        return self.metrics.truth_area > 0


@dataclass(frozen=True)
class EvaluationFailure:
    """A photo that could not be measured: the file that caused it (name only), and why."""

    id: str
    group: str
    view: str | None
    file: str
    cause: str


@dataclass(frozen=True)
class Evaluation:
    """What was measured: a row for each photo in the order of the pairs, and the photos that could not be measured.

    All figures but `no_vehicle` are of the photos with a vehicle: those whose true mask is not empty.

    Attributes:
        rows: The measured photos.
        failures: The photos that could not be measured.
        seconds: How long it took.
        rules: How the true masks were read (rule -> number of masks).
        odd: True masks that do not look like a mask of one object (id -> complaint).
        inverted: True masks that look inverted (id -> stored value of their background).
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
    inverted: Mapping[str, int] = field(default_factory=dict)
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
        warnings = [describe_inverted(self.inverted, len(self.vehicle_rows)), describe_odd(self.odd)]
        return " ".join(warning for warning in warnings if warning) or None

    @property
    def vehicle_rows(self) -> list[PhotoRow]:
        """The measured photos with a vehicle."""
        return [row for row in self.rows if row.has_vehicle]

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics that are averaged, by name."""
        return METRICS | METRICS_OF_LABELED if self.unknown else METRICS

    @property
    def summary(self) -> dict[str, MetricSummary]:
        """Each of the `metrics` over all photos with a vehicle; every photo counts the same."""
        return {
            name: summarize(self.values(name), more_is_better=metric.more_is_better)
            for name, metric in self.metrics.items()
        }

    @property
    def no_vehicle(self) -> NoVehicleSummary | None:
        """What was found in the photos without a vehicle, if there are any."""
        return summarize_no_vehicle([row.metrics for row in self.rows if not row.has_vehicle])

    @property
    def unknown(self) -> UnknownSummary | None:
        """How much of the truth is unknown, if anything is."""
        return summarize_unknown(row.metrics for row in self.rows)

    @property
    def expected(self) -> ExpectedSummary | None:
        """How good the expected Dice was, if the network is calibrated."""
        return summarize_expected(
            [(row.expected_dice, row.metrics.dice) for row in self.rows if row.expected_dice is not None]
        )

    @property
    def facts(self) -> list[tuple[str, str]]:
        """The figures of photos without a vehicle, of unknown pixels and of the expected Dice, as labels and texts."""
        facts = []
        if found := self.no_vehicle:
            facts += [
                ("photos without a vehicle", f"{found.photos}, none of them in the other figures"),
                (
                    "of them with an empty mask",
                    f"{found.empty} ({found.share_empty:.1%}), under {EMPTY_BELOW:.1%} of the picture: Dice 1, else 0",
                ),
                ("their mean false area", f"{found.false_area:.3%} of the picture"),
            ]
        if unknown := self.unknown:
            in_mean = f"on average {unknown.area:.1%} of the picture; they count in no metric"
            facts.append(("unknown pixels", f"in {unknown.photos} photos, {in_mean}"))
        if expected := self.expected:
            text = f"{expected.expected_dice:.4f} on average, measured {expected.dice:.4f}"
            facts.append(("expected Dice", f"{text}; off by {expected.error:.4f} in the average photo"))
        else:
            facts.append(("expected Dice", "none: the network is not calibrated"))
        return facts

    @property
    def by_fold(self) -> list[TableRow]:
        """One row for each fold; empty unless `part` is "out-of-fold"."""
        rows = [row for row in self.vehicle_rows if row.id in self.fold_of]
        return table_by_name((self.fold_of[row.id], row.metrics) for row in rows)

    @property
    def by_group(self) -> list[TableRow]:
        """One row for each group (car); empty where every photo is a group of its own."""
        table = table_by_name((row.group, row.metrics) for row in self.vehicle_rows)
        return table if len(table) < len(self.vehicle_rows) else []

    @property
    def by_view(self) -> list[TableRow]:
        """One row for each view; empty where the data set has no views."""
        return table_by_name((row.view, row.metrics) for row in self.vehicle_rows if row.view is not None)

    def values(self, metric: str) -> NDArray[np.float64]:
        """The values of a metric or an area of all photos with a vehicle, in their order; NaN where undefined."""
        return np.array([getattr(row.metrics, metric) for row in self.vehicle_rows], dtype=np.float64)

    def worst(self, count: int) -> list[PhotoRow]:
        """Return the `count` photos of lowest Dice, worst first; among equals the larger boundary error first.

        After them come the photos without a vehicle whose masks are not empty, the largest first, `count` at most.
        """

        def badness(row: PhotoRow) -> tuple[float, float, str]:
            error_px = row.metrics.boundary_error_px
            return row.metrics.dice, -math.inf if math.isnan(error_px) else -error_px, row.id

        alarms = [row for row in self.rows if not row.has_vehicle and row.metrics.dice == 0]
        alarms.sort(key=lambda row: (-row.metrics.predicted_area, row.id))
        return [*sorted(self.vehicle_rows, key=badness)[:count], *alarms[:count]]
