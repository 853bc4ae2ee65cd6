"""Keep the figures of training runs, and draw the documents' tables and pictures from them.

    python benchmarks/results.py add RUN [RUN ...]   figures of runs and their evaluations -> docs/results/runs/*.json
    python benchmarks/results.py draw                the tables of README and docs, and the curves

`add` expects that `carmask evaluate DATA --model RUN` was run, and takes its summary. No photo is copied anywhere.
"""

import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from carmask.models.network import Network
from record import RESULTS

ROOT = RESULTS.parent.parent
RUNS = RESULTS / "runs"
PICTURES = RESULTS.parent / "pictures"
# Benchmarks that have tables of their own, or are too long for one.
ELSEWHERE = ("carmask benchmark", "packaged", "kill_predict", "video_speed", "ablation", "serve_load", "serve_abuse")
# The order of the tables. A run that is not named here comes after.
ORDER = ("small-published", "small-best", "fast-cpu", "fast-best")


def add(run: Path) -> None:
    """Gather what a run's folder and its evaluation say into one JSON."""
    summaries = sorted(run.glob("evaluation/*/summary.json"))
    if len(summaries) != 1:
        sys.exit(f"{run}: {len(summaries)} evaluations in it; run `carmask evaluate DATA --model {run}` once")
    summary = json.loads(summaries[0].read_text())
    if summary["part"] != "validation" or summary["warnings"]:
        sys.exit(f"{summaries[0]}: not figures of held-out photos ({summary['part']}; {summary['warnings']})")
    network = Network.load(run)
    figures = network.summary()
    split = json.loads((run / "split.json").read_text())
    stages = stages_of(run)
    history = stages[-1]["history"]
    settings = yaml.safe_load((run / "config.yaml").read_text())
    environment = json.loads((run / "environment.json").read_text())
    for machine_path in ("data", "runs"):
        settings.pop(machine_path)
    settings["init"] = settings["init"] and Path(settings["init"]).name
    held_out = run_fold(settings)
    settings["dataset"].pop("cache")
    settings["dataset"].pop("split")
    contents = {
        "run": run.name,
        "data": summary["data"],
        "train_photos": len(split["train"]),
        "train_groups": len({split["group_of"][id_] for id_ in split["train"]}),
        "held_out_photos": summary["photos"],
        "held_out_groups": len({split["group_of"][id_] for id_ in split["validation"]}),
        "parameters": figures.parameters,
        "gmac": round(figures.multiply_adds / 1e9, 2),
        "input": " x ".join(map(str, figures.input_CHW)),
        "photos_seen": sum(stage["photos"] for stage in stages),
        "minutes": round(sum(stage["photos"] / stage["images_per_s"] for stage in stages) / 60, 1),
        "images_per_s": stages[-1]["images_per_s"],
        "stages": [{name: value for name, value in stage.items() if name != "history"} for stage in stages],
        "settings": settings,
        "environment": environment,
        "evaluated": summary["environment"],
        "figures": summary["figures"],
        "by_view": summary["by_view"],
        "by_group": summary["by_group"],
        "history": history,
    }
    RUNS.mkdir(parents=True, exist_ok=True)
    (RUNS / f"{run.name}.json").write_text(json.dumps(contents, indent=1) + "\n")
    (RESULTS / f"split-{summary['data']}-{held_out}.json").write_text((run / "split.json").read_text())
    print(f"{run.name}: Dice {summary['figures']['dice']['mean']:.5f} on {summary['photos']} held-out photos")


def stages_of(run: Path) -> list[dict[str, Any]]:
    """The training of a run, and before it of those from whose weights it started: photos, speed, commit, history."""
    with (run / "metrics.csv").open() as file:
        history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    settings = yaml.safe_load((run / "config.yaml").read_text())
    stage = {
        "run": run.name,
        "photos": int(history[-1]["photos"]),
        "images_per_s": round(statistics.median(row["images_per_s"] for row in history), 1),
        "commit": json.loads((run / "environment.json").read_text())["commit"],
        "history": history,
    }
    return [*(stages_of(Path(settings["init"])) if settings.get("init") else []), stage]


def run_fold(settings: dict[str, Any]) -> str:
    """Name of the part that was held out."""
    options = settings["dataset"]
    if options["split"]:
        return Path(options["split"]).stem
    return f"fraction{options['fraction']}" if options["fraction"] else f"fold{options['fold']}of{options['folds']}"


def load_runs() -> list[dict[str, Any]]:
    """All runs that were added, in the order of the tables."""
    runs = [json.loads(path.read_text()) for path in sorted(RUNS.glob("*.json"))]
    return sorted(runs, key=lambda run: (ORDER.index(run["run"]) if run["run"] in ORDER else len(ORDER), run["run"]))


def results_table(runs: list[dict[str, Any]]) -> str:
    """One row for each run."""
    lines = [
        "| run | input | parameters | multiply-adds | photos seen | Dice, mean | median | worst | boundary error | "
        "boundary F1 at 2 px | training |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        dice, error, f1 = (run["figures"][name] for name in ("dice", "boundary_error_px", "boundary_f1"))
        minutes = run.get("minutes", run["photos_seen"] / run["images_per_s"] / 60)
        lines.append(
            f"| `{run['run']}` | {run['input']} | {run['parameters'] / 1e6:.2f} M | {run['gmac']} G "
            f"| {run['photos_seen']:,} | **{dice['mean']:.4f}** | {dice['median']:.4f} | {dice['worst']:.4f} "
            f"| {error['mean']:.2f} px | {f1['mean']:.3f} | {minutes:.0f} min, at last at {run['images_per_s']} img/s |"
        )
    return "\n".join([*lines, "", *sorted({_photos_of(run) for run in runs})])


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


def packaged_table() -> str:
    """The weights inside the package, on photos that they were not trained on."""
    lines = [
        "| weights and photos | held-out photos | Dice, mean | median | worst | boundary error |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in json.loads((RESULTS / "packaged.json").read_text())["figures"].items():
        lines.append(
            f"| {name} | {row['held_out_photos']} | **{row['dice']:.4f}** | {row['median_dice']:.4f} "
            f"| {row['worst_dice']:.4f} | {row['boundary_error_px']:.1f} px |"
        )
    return "\n".join(lines)


def ablation_table() -> str:
    """What each change to the recipe of `fast` gave, against the recipe as it is."""
    rows = json.loads((RESULTS / "ablation.json").read_text())["figures"]["rows"]
    base = next(row["dice"] for row in rows if row["variant"] == "base")
    lines = [
        f"| {row['variant']} | {row['dice']:.4f} | {row['dice'] - base:+.4f} | {row['boundary_error_px']:.2f} px "
        f"| `{row['commit']}` |"
        for row in rows
    ]
    heading = ["| changed | Dice | against the base | boundary error | commit |", "|---|--:|--:|--:|---|"]
    return "\n".join([*heading, *lines])


def benchmark_tables() -> str:
    """What the benchmarks recorded."""
    lines: list[str] = []
    for path in sorted(RESULTS.glob("*.json")):
        contents = json.loads(path.read_text())
        if contents.get("benchmark", "carmask benchmark") in ELSEWHERE:
            continue
        machine = contents["machine"]
        lines += [
            f"### {contents['benchmark'].replace('_', ' ')}",
            "",
            f"{machine['cpu']}, {machine['cores']} cores; commit `{contents['commit']}`, {contents['date'][:10]}",
            "",
            *_bullets(contents["figures"]),
            "",
        ]
    return "\n".join(lines).rstrip()


def _bullets(figures: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in figures.items():
        if isinstance(value, dict):
            flat = all(not isinstance(inner, dict) for inner in value.values())
            text = ", ".join(f"{key.replace('_', ' ')} {inner}" for key, inner in value.items()) if flat else ""
            lines.append(f"{indent}- {name.replace('_', ' ')}: {text}".rstrip())
            if not flat:
                lines += _bullets(value, indent + "  ")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append(f"{indent}- {name.replace('_', ' ')}: {text}")
    return lines


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


def fill(document: Path, tables: dict[str, str]) -> None:
    """Put tables between their markers, `<!-- name -->` and `<!-- /name -->`."""
    text = document.read_text()
    for name, table in tables.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        text = f"{before}{begin}{table}\n{end}{after}" if end else text
    document.write_text(text)


def draw() -> None:
    """Make every table and picture anew from the committed JSON."""
    runs = load_runs()
    if not runs:
        sys.exit(f"{RUNS}: no runs added yet")
    tables = {
        "results": results_table(runs),
        "provenance": provenance_table(runs),
        "by-view": by_view_table(runs),
        "packaged": packaged_table(),
        "ablation": ablation_table(),
        "benchmarks": benchmark_tables(),
    }
    for document in (ROOT / "README.md", RESULTS.parent / "results.md", RESULTS.parent / "experiments.md"):
        fill(document, tables)
    draw_curves(runs, PICTURES / "curves.png")


def main() -> None:
    """Dispatch."""
    if sys.argv[1:2] == ["add"] and len(sys.argv) > 2:
        for run in sys.argv[2:]:
            add(Path(run))
    elif sys.argv[1:] == ["draw"]:
        draw()
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
