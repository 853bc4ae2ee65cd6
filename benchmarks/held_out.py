"""Figures of networks on photos that none of them was trained on, as `carmask evaluate` measures them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from carmask.data.pairs import Pair, find_pairs
from carmask.evaluation.evaluate import evaluate_selection, select
from carmask.evaluation.selection import Selection
from carmask.segmenter import Segmenter


class HasNone(SystemExit):
    """None of these photos was held out from the training. Whoever does not catch it ends with a sentence."""


def figures_on(segmenter: Segmenter, data: Path) -> dict[str, Any]:
    """Dice, boundary error and recall of thin parts of a network, or of several as one, each photo at its own size.

    Raises:
        HasNone: the network learned from all of them, or it is not known from which.
    """
    selection = select(find_pairs(data), segmenter)
    if selection.part != "validation" or selection.warnings:
        raise HasNone(f"{segmenter.name} on {data}: not held out ({selection.part}; {selection.warnings})")
    return figures_of_pairs(segmenter, selection.pairs)


def figures_of_pairs(segmenter: Segmenter, pairs: Sequence[Pair]) -> dict[str, Any]:
    """The same of photos that whoever asks has chosen."""
    evaluation = evaluate_selection(Selection(tuple(pairs)), segmenter)
    summary = evaluation.summary
    return {
        "engine": segmenter.describe_engine(),
        "photos": len(evaluation.rows),
        "groups": len({pair.group for pair in pairs}),
        "dice": round(summary["dice"].mean, 5),
        "median_dice": round(summary["dice"].median, 5),
        "worst_dice": round(summary["dice"].worst, 5),
        "boundary_error_px": round(summary["boundary_error_px"].mean, 3),
        "thin_recall": round(summary["thin_recall"].mean, 4),
    }
