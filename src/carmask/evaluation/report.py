"""Write an evaluation down: `per_image.csv`, `summary.json` and, where it can be drawn, one HTML page."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from carmask.evaluation.cases import Case
from carmask.evaluation.results import Evaluation
from carmask.files import write_bytes_atomically

_PAGE_PACKAGES = ("matplotlib", "jinja2")

CSV_COLUMNS = (
    *("id", "group", "view", "height_px", "width_px"),
    *("dice", "iou", "precision", "recall", "boundary_f1", "boundary_error_px", "truth_area", "predicted_area"),
    "error",
)

# How each metric is called, and what it says; the exact definitions are in `carmask.evaluation.metrics`.
METRICS = {
    "dice": ("Dice", "overlap of the two masks, 2 TP / (2 TP + FP + FN); two empty masks: 1"),
    "iou": ("IoU", "intersection over union, TP / (TP + FP + FN)"),
    "precision": ("Precision", "share of the predicted pixels that are right"),
    "recall": ("Recall", "share of the true pixels that were found"),
    "boundary_f1": (
        "Boundary F1, 2 px",
        "share of the outlines' pixels that lie within 2 px of the other outline: the harmonic mean of both directions",
    ),
    "boundary_error_px": (
        "Boundary error, px",
        "mean distance of the outlines' pixels to the other outline, both directions pooled; left out of the mean "
        "where one of the masks has no outline",
    ),
}


@dataclass(frozen=True)
class Subject:
    """What was evaluated: names without their folders, so that a report does not show whose machine it was.

    `part` is the part of a split, "all" or "out-of-fold". `group_word` is what a group is called: "car" in Carvana's
    layout.
    """

    data: str
    model: str
    part: str
    description: Mapping[str, Any]
    environment: Mapping[str, Any]
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    group_word: str = "group"


def missing_for_page() -> tuple[str, ...]:
    """The packages that the page needs and that are not installed; the figures are written without them."""
    return tuple(package for package in _PAGE_PACKAGES if find_spec(package) is None)


def write_report(
    folder: Path,
    evaluation: Evaluation,
    subject: Subject,
    *,
    cases: Sequence[Case] = (),
    training_log: Path | None = None,
) -> Path:
    """Write `per_image.csv`, `summary.json` and `report.html` into `folder`, and return the page's path.

    Without what `missing_for_page` names there is no page, and the path of the summary is returned.

    Args:
        folder: Made if it is missing; files of an earlier report are replaced, a page that is out of date removed.
        evaluation: What was measured.
        subject: What it was measured on.
        cases: The photos to show, worst first.
        training_log: The `metrics.csv` of the model's training run, for its curves.

    Raises:
        UnwritableFile: A file cannot be written.

    """
    page, summary = folder / "report.html", folder / "summary.json"
    _write(folder / "per_image.csv", render_csv(evaluation))
    _write(summary, json.dumps(summarize_report(evaluation, subject), indent=1) + "\n")
    if missing_for_page():
        page.unlink(missing_ok=True)
        return summary
    # Matplotlib and Jinja come with an extra, and take a while to import.
    from carmask.evaluation.page import render_page

    _write(page, render_page(evaluation, subject, cases=cases, training_log=training_log))
    return page


def render_csv(evaluation: Evaluation) -> str:
    """One line per photo, also for those that could not be measured; cells without a value are empty."""
    file = io.StringIO(newline="")
    columns = (*CSV_COLUMNS, "fold") if evaluation.fold_of else CSV_COLUMNS
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    writer.writeheader()
    lines = []
    for row in evaluation.rows:
        height, width = row.size_HW
        figures = {name: "" if math.isnan(value) else f"{value:.6f}" for name, value in asdict(row.metrics).items()}
        lines.append({**_who(row), "height_px": height, "width_px": width, **figures})
    lines += [{**_who(failure), "error": f"{failure.file}: {failure.cause}"} for failure in evaluation.failures]
    if evaluation.fold_of:
        lines = [{**line, "fold": evaluation.fold_of[str(line["id"])]} for line in lines]
    writer.writerows(sorted(lines, key=lambda line: str(line["id"])))
    return file.getvalue()


def summarize_report(evaluation: Evaluation, subject: Subject) -> dict[str, Any]:
    """Everything but the single photos' figures, as JSON can hold it; a figure that is undefined is null."""
    contents = {
        "data": subject.data,
        "part": subject.part,
        "photos": len(evaluation.rows),
        "failed": len(evaluation.failures),
        "figures": {name: asdict(figures) for name, figures in evaluation.summary.items()},
        "by_fold": [asdict(row) for row in evaluation.by_fold],
        "by_group": [asdict(row) for row in evaluation.by_group],
        "by_view": [asdict(row) for row in evaluation.by_view],
        "failures": [asdict(failure) for failure in evaluation.failures],
        "remarks": subject.remarks,
        "warnings": subject.warnings,
        "mask_rules": dict(evaluation.rules),
        "odd_masks": dict(evaluation.odd),
        "seconds": round(evaluation.seconds, 3),
        "model_name": subject.model,
        "model": dict(subject.description),
        "environment": dict(subject.environment),
    }
    return {key: _nan_to_none(value) for key, value in contents.items()}


def format_figure(value: float, metric: str) -> str:
    """A figure as people read it: pixels with two places, shares with four, a dash where undefined."""
    if math.isnan(value):
        return "–"  # noqa: RUF001 - a dash is meant
    return f"{value:.2f}" if metric.endswith("_px") else f"{value:.4f}"


def _who(item: Any) -> dict[str, str | int]:
    return {"id": item.id, "group": item.group, "view": item.view or ""}


def _nan_to_none(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, Mapping):
        return {key: _nan_to_none(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nan_to_none(item) for item in value]
    return value


def _write(path: Path, text: str) -> None:
    # A file name may hold bytes that are no text; they are shown escaped.
    write_bytes_atomically(path, text.encode(errors="backslashreplace"))
