"""How far the expected Dice of masks is from the measured one: figures and curves of both, one value for each mask."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import spearmanr

DOUBTFUL, WORST = 0.2, 0.1
BINS = 10


def errors(dice: NDArray[np.float64], expected: NDArray[np.float64]) -> dict[str, Any]:
    """Both means, their mean absolute difference, and whether both put the masks into one order."""
    figures = {
        "expected": expected.mean(),
        "dice": dice.mean(),
        "error": np.abs(expected - dice).mean(),
        "rank_correlation": spearmanr(expected, dice).statistic,
    }
    return {"photos": len(dice), **{name: round(float(value), 5) for name, value in figures.items()}}


def doubtful_figures(dice: NDArray[np.float64], expected: NDArray[np.float64]) -> dict[str, float]:
    """Which share of the worst tenth is among the most doubtful fifth, and what is left without that fifth."""
    by_doubt, by_dice = np.argsort(expected, kind="stable"), np.argsort(dice, kind="stable")
    doubtful = by_doubt[: round(DOUBTFUL * len(dice))]
    worst = by_dice[: round(WORST * len(dice))]
    left = np.delete(dice, doubtful)
    return {
        "worst_tenth_in_doubtful_fifth": round(float(np.isin(worst, doubtful).mean()), 4),
        "dice_without_doubtful_fifth": round(float(left.mean()), 5),
    }


def reliability(dice: NDArray[np.float64], expected: NDArray[np.float64]) -> list[list[float]]:
    """Expected and measured Dice, and the number of masks, in bins of as many masks."""
    parts = np.array_split(np.argsort(expected, kind="stable"), BINS)
    return [[round(float(expected[part].mean()), 4), round(float(dice[part].mean()), 4), len(part)] for part in parts]


def risk(dice: NDArray[np.float64], expected: NDArray[np.float64]) -> dict[str, list[float]]:
    """The mean Dice of what is left when the most doubtful share is taken out; also at best, and by chance."""
    shares = np.linspace(0, 0.5, 26)
    curves = {"expected": dice[np.argsort(expected, kind="stable")], "best": np.sort(dice)}
    return {"taken_out": [round(float(share), 3) for share in shares]} | {
        name: [round(float(ordered[round(share * len(dice)) :].mean()), 5) for share in shares]
        for name, ordered in curves.items()
    }


def draw_reliability(networks: dict[str, Any], path: Path) -> None:
    """Draw measured over expected Dice, in bins of as many masks."""
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for name, figures in networks.items():
        expected, dice, _ = np.array(figures["reliability"]).T
        axes.plot(expected, dice, marker="o", markersize=3.5, linewidth=1, label=name)
    axes.set(xlabel="expected Dice", ylabel="Dice", xlim=(0, 1.01), ylim=(0, 1.01))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def draw_risk(networks: dict[str, Any], path: Path) -> None:
    """Draw the Dice of what is left over the share that is taken out."""
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    for axes, kind, title in zip(
        figure.subplots(1, 2, sharey=True), ("plain", "altered"), ("photos as they are", "altered"), strict=True
    ):
        for name, figures in networks.items():
            curve = figures["risk"][kind]
            (line,) = axes.plot(curve["taken_out"], curve["expected"], linewidth=1.2, label=name)
            axes.plot(curve["taken_out"], curve["best"], color=line.get_color(), linewidth=0.8, linestyle=":")
        axes.set(title=title, xlabel="share taken out, the most doubtful first", ylabel="Dice of the rest")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
