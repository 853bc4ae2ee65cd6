"""Dice of the weights inside the package on photos that they were not trained on, each at its own size.

    python benchmarks/packaged.py CARVANA STREET

The same as `carmask evaluate DATA --model NAME`, for every packaged network and both data sets, in one JSON.
"""

import sys
from pathlib import Path
from typing import Any

from carmask.data.pairs import find_pairs
from carmask.evaluation.evaluate import evaluate
from carmask.evaluation.selection import select_pairs, what_was_learnt
from carmask.runtime.locate import packaged_models
from carmask.segmenter import Segmenter
from record import record


def measure(name: str, place: Path, data: Path) -> dict[str, Any]:
    """Figures of one network on the photos of one data set that it was not trained on."""
    segmenter = Segmenter.load(name)
    learnt = what_was_learnt([(member.place, member.card) for member in segmenter.members])
    selection = select_pairs(find_pairs(data).pairs, learnt=learnt)
    if selection.part != "validation" or selection.warnings:
        sys.exit(f"{name} on {data}: not held out ({selection.part}; {selection.warnings})")
    evaluation = evaluate(selection.pairs, segmenter)
    summary = evaluation.summary
    return {
        "engine": segmenter.describe_engine(),
        "file_mb": round(place.stat().st_size / 1e6, 1),
        "held_out_photos": len(evaluation.rows),
        "dice": round(summary["dice"].mean, 5),
        "median_dice": round(summary["dice"].median, 5),
        "worst_dice": round(summary["dice"].worst, 5),
        "boundary_error_px": round(summary["boundary_error_px"].mean, 3),
    }


def main() -> None:
    """Measure and record."""
    folders = [Path(argument) for argument in sys.argv[1:]]
    if not folders:
        sys.exit(__doc__)
    figures = {
        f"{name} on {folder.resolve().name}": measure(name, place, folder)
        for name, place in packaged_models().items()
        for folder in folders
    }
    for title, row in figures.items():
        print(title, row)
    record("packaged", figures)


if __name__ == "__main__":
    main()
