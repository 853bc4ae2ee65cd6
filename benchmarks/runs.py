"""Keep the figures of a training run: what its folder and its evaluation say, in docs/results/runs/NAME.json."""

import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml

from carmask.models.network import Network
from record import RESULTS

RUNS = RESULTS / "runs"


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
    held_out = run_fold(settings)
    settings["init"] = settings["init"] and Path(settings["init"]).name
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
        split = Path(options["split"])
        if settings["init"] and split.parent == Path(settings["init"]):
            # A stage goes on with the split of the one before it.
            return run_fold(yaml.safe_load((split.parent / "config.yaml").read_text()))
        return split.stem
    return f"fraction{options['fraction']}" if options["fraction"] else f"fold{options['fold']}of{options['folds']}"
