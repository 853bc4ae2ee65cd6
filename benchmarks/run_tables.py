"""Tables and curves of the runs that were added, and of several of their networks together."""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from record import RESULTS, recorded
from runs import RUNS

# The order of the tables. A run that is not named here comes after.
ORDER = (
    *("small-published", "small-best", "classic-cpu", "classic-gpu"),
    *("fast-cpu", "fast-best", "fast-large", "fast-full", "deep-cpu", "deep-large"),
)
# Dice that a careful run should reach, and Dice that is aimed at.
BARS = {
    "small": (0.9890, 0.9930),
    "classic": (0.9935, 0.9965),
    "fast": (0.9930, 0.9965),
    "deep": (0.9950, 0.9975),
}
ENSEMBLE_BARS = (0.9962, 0.9978)


def load_runs() -> list[dict[str, Any]]:
    """All runs that were added, in the order of the tables."""
    runs = [json.loads(path.read_text()) for path in sorted(RUNS.glob("*.json"))]
    return sorted(runs, key=lambda run: (ORDER.index(run["run"]) if run["run"] in ORDER else len(ORDER), run["run"]))


def results_table(runs: list[dict[str, Any]]) -> str:
    """One row for each run."""
    lines = [
        "| run | input | parameters | multiply-adds | photos seen | Dice, mean | median | worst | boundary error | "
        "boundary F1 at 2 px | thin parts found | steps alone, at their median speed |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        dice, error, f1 = (run["figures"][name] for name in ("dice", "boundary_error_px", "boundary_f1"))
        minutes = run.get("minutes", run["photos_seen"] / run["images_per_s"] / 60)
        lines.append(
            f"| `{run['run']}` | {run['input']} | {run['parameters'] / 1e6:.2f} M | {run['gmac']} G "
            f"| {run['photos_seen']:,} | **{dice['mean']:.4f}** | {dice['median']:.4f} | {dice['worst']:.4f} "
            f"| {error['mean']:.2f} px | {f1['mean']:.3f} | {_thin(run['figures'].get('thin_recall', {}).get('mean'))} "
            f"| {minutes:.0f} min, at last {run['images_per_s']} img/s |"
        )
    return "\n".join([*lines, "", *sorted({_photos_of(run) for run in runs})])


def _thin(recall: float | None) -> str:
    """The recall of thin parts; older runs were measured without it."""
    return "-" if recall is None else f"{recall:.3f}"


def _photos_of(run: dict[str, Any]) -> str:
    cars = run["train_groups"] + run["held_out_groups"]
    of_all = f" ({cars} cars were at hand, of the challenge's 318)" if run["data"] == "carvana" else ""
    return (
        f"Measured on {run['held_out_photos']} photos of {run['held_out_groups']} cars that were not trained on, "
        f"each at its own size; trained on {run['train_photos']} photos of {run['train_groups']} cars{of_all}."
    )


def provenance_table(runs: list[dict[str, Any]]) -> str:
    """Where and when each figure was made."""
    lines = ["| run | commit | date | machine | settings |", "|---|---|---|---|---|"]
    for run in runs:
        environment = run["environment"]
        machine = environment["machine"]
        lines.append(
            f"| `{run['run']}` | `{environment['commit']}` | {environment['date'][:10]} | {machine['cpu']}, "
            f"{machine['cores']} cores | [`runs/{run['run']}.json`](results/runs/{run['run']}.json) |"
        )
    return "\n".join(lines)


def by_view_table(runs: list[dict[str, Any]]) -> str:
    """Mean Dice of each of the sixteen views."""
    lines = ["| view | " + " | ".join(f"`{run['run']}`" for run in runs) + " |", "|---" * (len(runs) + 1) + "|"]
    views = [row["name"] for row in runs[0]["by_view"]]
    for view in views:
        scores = [next(row["dice"] for row in run["by_view"] if row["name"] == view) for run in runs]
        lines.append(f"| {view} | " + " | ".join(f"{score:.4f}" for score in scores) + " |")
    return "\n".join(lines)


def bars_table(runs: list[dict[str, Any]]) -> str:
    """The best of each preset, and of several networks together, beside what was to be reached."""
    best = {
        f"`{preset}`": (f"`{run['run']}`", run["figures"]["dice"]["mean"], BARS[preset])
        for preset in BARS
        for run in sorted(runs, key=lambda run: float(run["figures"]["dice"]["mean"]))
        if run["settings"]["preset"] == preset
    }
    row = max(ensemble_rows(), key=lambda row: float(row["dice"]))
    together = " + ".join(f"`{name}`" for name in row["runs"]) + (", mirrored too" if row["tta"] == "flip" else "")
    best["all that helps"] = together, row["dice"], ENSEMBLE_BARS
    lines = [
        f"| {name} | {run} | **{dice:.4f}** | {least:.4f}, {_reached(dice, least)} | {aim:.4f}, {_reached(dice, aim)} |"
        for name, (run, dice, (least, aim)) in best.items()
    ]
    return "\n".join(["| network | best run | Dice | least | aim |", "|---|---|--:|---|---|", *lines])


def _reached(dice: float, bar: float) -> str:
    return "reached" if dice >= bar else f"missed by {bar - dice:.4f}"


def ensemble_table() -> str:
    """Several networks and mirror images."""
    lines = [
        "| networks | mirror images | Dice, mean | worst | boundary error | thin parts found |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in ensemble_rows():
        names, mirrored = " + ".join(f"`{name}`" for name in row["runs"]), "yes" if row["tta"] == "flip" else "no"
        lines.append(
            f"| {names} | {mirrored} | {row['dice']:.4f} | {row['worst_dice']:.4f} "
            f"| {row['boundary_error_px']:.2f} px | {_thin(row.get('thin_recall'))} |"
        )
    return "\n".join(lines)


def ensemble_rows() -> list[dict[str, Any]]:
    """Rows of all files that benchmarks/ensemble.py wrote."""
    return [row for path in sorted(RESULTS.glob("ensemble-*.json")) for row in recorded(path.stem)["rows"]]


def draw_curves(runs: list[dict[str, Any]], path: Path) -> None:
    """Held-out Dice over the photos seen, one line for each run."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        seen = [row["photos"] / 1000 for row in run["history"]]
        axes.plot(seen, [row["dice"] for row in run["history"]], marker=".", label=run["run"])
    axes.set(xlabel="photos seen, thousands", ylabel="Dice", ylim=(0.95, 1.0))
    axes.set_title("Dice on cars not trained on, at 1918 x 1280 px")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
