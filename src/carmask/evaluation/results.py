"""What an evaluation yields: a row for each photo, and what can be summed up from the rows."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from carmask.data.pairs import describe_odd, describe_rules
from carmask.evaluation.metrics import ImageMetrics

# The metrics that are averaged, each with whether more of it is better.
AVERAGED = {
    "dice": True,
    "iou": True,
    "precision": True,
    "recall": True,
    "boundary_f1": True,
    "boundary_error_px": False,
}


@dataclass(frozen=True)
class PhotoRow:
    """The figures of one photo, measured at its own size."""

    id: str
    group: str
    view: str | None
    size_HW: tuple[int, int]
    metrics: ImageMetrics


@dataclass(frozen=True)
class Failure:
    """A photo that could not be measured: which file is to blame (name only) and why."""

    id: str
    group: str
    view: str | None
    file: str
    cause: str


@dataclass(frozen=True)
class Figures:
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
    """The figures of one group, view or fold: means over its photos, and its worst Dice."""

    name: str
    photos: int
    dice: float
    worst_dice: float
    iou: float
    boundary_f1: float
    boundary_error_px: float


@dataclass(frozen=True)
class Evaluation:
    """What was measured: a row per photo in the order of the pairs, and the photos that could not be measured.

    `rules` tells how the true masks were read (rule -> number of masks), `odd` which of them look like something
    else than a mask of one thing (id -> complaint). Out of fold, `fold_of` tells whose network measured a photo (id ->
    name of the fold).
    """

    rows: tuple[PhotoRow, ...] = field(repr=False)
    failures: tuple[Failure, ...]
    seconds: float
    rules: Mapping[str, int] = field(default_factory=dict)
    odd: Mapping[str, str] = field(default_factory=dict)
    fold_of: Mapping[str, str] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        """The photos: those that were measured, and then those that could not be."""
        return [*(row.id for row in self.rows), *(failure.id for failure in self.failures)]

    @property
    def mask_rules(self) -> list[str]:
        """How the true masks were read, in a few lines."""
        return describe_rules(self.rules)

    @property
    def odd_warning(self) -> str | None:
        """What to warn of where true masks look odd."""
        return describe_odd(self.odd)

    @property
    def summary(self) -> dict[str, Figures]:
        """Figures over all photos, by metric, every photo counting the same."""
        return {name: summarize(self.values(name), more_is_better=better) for name, better in AVERAGED.items()}

    @property
    def by_fold(self) -> list[TableRow]:
        """Figures by fold; empty where they are not out of fold."""
        return _table([row for row in self.rows if row.id in self.fold_of], lambda row: self.fold_of[row.id])

    @property
    def by_group(self) -> list[TableRow]:
        """Figures by group, that is by car; empty where every photo is a group of its own."""
        table = _table(self.rows, lambda row: row.group)
        return table if len(table) < len(self.rows) else []

    @property
    def by_view(self) -> list[TableRow]:
        """Figures by view; empty where the data set has no views."""
        return _table([row for row in self.rows if row.view is not None], lambda row: str(row.view))

    def values(self, metric: str) -> NDArray[np.float64]:
        """All photos' values of a metric or an area, in the order of the rows; NaN where undefined."""
        return np.array([getattr(row.metrics, metric) for row in self.rows], dtype=np.float64)

    def worst(self, count: int) -> list[PhotoRow]:
        """Return the `count` photos of lowest Dice, worst first; of equals the larger boundary error first."""

        def badness(row: PhotoRow) -> tuple[float, float, str]:
            error_px = row.metrics.boundary_error_px
            return row.metrics.dice, -math.inf if math.isnan(error_px) else -error_px, row.id

        return sorted(self.rows, key=badness)[:count]


def summarize(values: NDArray[np.float64], *, more_is_better: bool) -> Figures:
    """Sum up one metric's values, float64, one a photo, NaN where undefined."""
    defined = values[~np.isnan(values)]
    undefined = len(values) - len(defined)
    if not len(defined):
        return Figures(math.nan, math.nan, math.nan, math.nan, len(values), undefined)
    return Figures(
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
