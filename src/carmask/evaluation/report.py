"""Write an evaluation as `per_image.csv`, `summary.json` and `report.html`."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carmask.evaluation.evaluate import assign_segmenters
from carmask.evaluation.results import Evaluation, EvaluationFailure, PhotoRow, Subject
from carmask.evaluation.selection import Selection
from carmask.files import write_bytes_atomically
from carmask.progress import Progress, counted
from carmask.segmenter import Segmenter

if TYPE_CHECKING:
    from carmask.evaluation.page import Case

_PAGE_PACKAGES = ("matplotlib", "jinja2")

CSV_COLUMNS = (
    *("id", "group", "view", "height_px", "width_px"),
    *("dice", "iou", "precision", "recall", "boundary_f1", "boundary_error_px", "truth_area", "predicted_area"),
    *("unknown_area", "spilled", "thin_recall", "expected_dice"),
    "error",
)


def missing_for_page() -> tuple[str, ...]:
    """Return the packages that the page needs and that are not installed; without them there is no page."""
    return tuple(package for package in _PAGE_PACKAGES if find_spec(package) is None)


def draw_worst(
    evaluation: Evaluation,
    selection: Selection,
    segmenter: Segmenter,
    count: int,
    *,
    progress: Progress | None = None,
) -> "list[Case]":
    """Predict the `Evaluation.worst` photos once more and draw them, worst first; none if `missing_for_page`."""
    if missing_for_page():
        return []
    # Matplotlib and Jinja come with an extra, and are slow to import.
    from carmask.evaluation.page import draw_case

    assigned = {pair.id: (pair, one) for one, pairs in assign_segmenters(selection, segmenter) for pair in pairs}
    rows = evaluation.worst(count)
    return [draw_case(row, *assigned[row.id]) for row in counted(rows, progress, len(rows))]


def write_report(
    folder: Path,
    evaluation: Evaluation,
    subject: Subject,
    *,
    cases: "Sequence[Case]" = (),
    training_log: Path | None = None,
) -> Path:
    """Write `per_image.csv`, `summary.json` and `report.html` into `folder`, and return the page's path.

    Where `missing_for_page` names packages there is no page, and the path of the summary is returned.

    Args:
        folder: Made if it is missing; files of an earlier report are replaced, or removed where they would be outdated.
        evaluation: What was measured.
        subject: What it was measured on.
        cases: The photos to show, worst first.
        training_log: The `metrics.csv` of the model's training run, for its curves.

    Raises:
        UnwritableFile: a file cannot be written.
    """
    page, summary = folder / "report.html", folder / "summary.json"
    _write(folder / "per_image.csv", render_csv(evaluation))
    _write(summary, json.dumps(summarize_report(evaluation, subject), indent=1) + "\n")
    if missing_for_page():
        page.unlink(missing_ok=True)
        return summary
    from carmask.evaluation.page import render_page

    _write(page, render_page(evaluation, subject, cases=cases, training_log=training_log))
    return page


def render_csv(evaluation: Evaluation) -> str:
    """Return a CSV line for each photo, measured or not; cells without a value are empty."""
    file = io.StringIO(newline="")
    columns = (*CSV_COLUMNS, "fold") if evaluation.fold_of else CSV_COLUMNS
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    writer.writeheader()
    lines = []
    for row in evaluation.rows:
        height, width = row.size_HW
        metrics = {name: "" if math.isnan(value) else f"{value:.6f}" for name, value in asdict(row.metrics).items()}
        expected = "" if row.expected_dice is None else f"{row.expected_dice:.4f}"
        lines.append({**_identify(row), "height_px": height, "width_px": width, **metrics, "expected_dice": expected})
    lines += [{**_identify(failure), "error": f"{failure.file}: {failure.cause}"} for failure in evaluation.failures]
    if evaluation.fold_of:
        lines = [{**line, "fold": evaluation.fold_of[str(line["id"])]} for line in lines]
    writer.writerows(sorted(lines, key=lambda line: str(line["id"])))
    return file.getvalue()


def summarize_report(evaluation: Evaluation, subject: Subject) -> dict[str, Any]:
    """Return all but the single photos' metrics, as values that JSON can hold; an undefined metric is null."""
    contents = {
        "data": subject.data,
        "part": evaluation.part,
        "photos": len(evaluation.rows),
        "failed": len(evaluation.failures),
        "no_vehicle": asdict(evaluation.no_vehicle) if evaluation.no_vehicle else None,
        "unknown": asdict(evaluation.unknown) if evaluation.unknown else None,
        "expected_dice": asdict(evaluation.expected) if evaluation.expected else None,
        "figures": {name: asdict(metric) for name, metric in evaluation.summary.items()},
        "by_fold": [asdict(row) for row in evaluation.by_fold],
        "by_group": [asdict(row) for row in evaluation.by_group],
        "by_view": [asdict(row) for row in evaluation.by_view],
        "failures": [asdict(failure) for failure in evaluation.failures],
        "remarks": evaluation.remarks,
        "warnings": evaluation.warnings,
        "mask_rules": evaluation.rules,
        "odd_masks": evaluation.odd,
        "seconds": round(evaluation.seconds, 3),
        "model_name": subject.model,
        "model": subject.description,
        "environment": subject.environment,
    }
    return {key: _nan_to_none(value) for key, value in contents.items()}


def _identify(item: PhotoRow | EvaluationFailure) -> dict[str, str | int]:
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
    # A file name may hold bytes that are not valid text; they are escaped.
    write_bytes_atomically(path, text.encode(errors="backslashreplace"))
