"""How metrics are labeled, explained and written; `metrics` and `outlines` beside this module define them exactly."""

import math
from dataclasses import dataclass

from carmask.evaluation.outlines import THIN_BELOW_PX


@dataclass(frozen=True)
class Metric:
    """The label and the explanation of a metric."""

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
    "thin_recall": Metric(
        f"Recall of thin parts, below {THIN_BELOW_PX} px",
        "share of the true pixels that were found, of those that no disk inside the true mask with a diameter of "
        f"{THIN_BELOW_PX} px covers: mirrors, antennas, tips; left out of the mean where there are none",
    ),
}
# Reported where masks have unknown pixels. These have no part in any metric, and near them outlines are not compared.
METRICS_OF_LABELED = {
    "found": Metric("Found", "share of the labeled object's pixels that were found: the recall"),
    "spilled": Metric(
        "Spilled",
        "wrongly predicted pixels as a share of the labeled object's area, FP / (TP + FN)",
        more_is_better=False,
    ),
}


def format_metric(value: float, metric: str) -> str:
    """Format pixels with two decimals, ratios with four, and NaN as a dash."""
    if math.isnan(value):
        return "–"  # noqa: RUF001 - a dash is meant
    return f"{value:.2f}" if metric.endswith("_px") else f"{value:.4f}"
