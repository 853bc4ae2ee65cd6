"""What each part of the recipe of `fast` gives: one run for each, everything else as in configs/ablation.yaml.

    python benchmarks/ablation.py CARVANA [VARIANT ...]     runs, evaluates, writes docs/results/ablation.json

Runs that are finished are kept, one that was stopped goes on. All run on the same held-out cars. The base is run with three
seeds: what differs less than they do says nothing.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from carmask.environment import environment
from record import RESULTS

CONFIG = RESULTS.parent.parent / "configs" / "ablation.yaml"
# Options of `carmask train` for each variant.
VARIANTS: dict[str, str] = {
    "base": "",
    "base, seed 1": "--seed 1",
    "base, seed 2": "--seed 2",
    "border-weighted loss": "--loss.name border",
    "BCE alone": "--loss.name bce",
    "Dice alone": "--loss.name dice",
    "no averaged weights": "--ema 0",
    "nothing varied": "--augment.flip 0 --augment.geometric 0 --augment.colour 0 --augment.grey 0",
    "flips alone": "--augment.geometric 0 --augment.colour 0 --augment.grey 0",
    "Adam at 1e-4, constant": "--optimiser.name adam --optimiser.lr 1e-4 --optimiser.weight-decay 0 "
    "--optimiser.clip-norm 0 --schedule.name constant",
    "128 x 192": "--input.height-px 128 --input.width-px 192",
    "512 x 768": "--input.height-px 512 --input.width-px 768",
}


def main() -> None:
    """Run what is asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("variants", nargs="*", default=list(VARIANTS))
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    arguments = parser.parse_args()
    for variant in arguments.variants:
        measure(arguments.data, variant, arguments.runs)
    rows = [row_of(variant, arguments.runs) for variant in VARIANTS if evaluations(variant, arguments.runs)]
    contents = {"config": CONFIG.name, "data": arguments.data.name, "rows": rows, "environment": environment()}
    (RESULTS / "ablation.json").write_text(json.dumps(contents, indent=1) + "\n")


def folder_of(variant: str, runs: Path) -> Path:
    """The run of a variant."""
    return runs / variant.lower().replace(",", "").replace(" ", "-")


def evaluations(variant: str, runs: Path) -> list[Path]:
    """Its evaluation, once there is one."""
    return sorted(folder_of(variant, runs).glob("evaluation/*/summary.json"))


def measure(data: Path, variant: str, runs: Path) -> None:
    """Train and evaluate a variant, as far as that was not done."""
    folder = folder_of(variant, runs)
    if evaluations(variant, runs):
        return
    options = ["--resume", str(folder)] if folder.exists() else [str(data), "--config", str(CONFIG)]
    if not folder.exists():
        options += [*VARIANTS[variant].split(), "--runs", str(runs), "--name", folder.name]
    for command in (["train", *options], ["evaluate", str(data), "--model", str(folder)]):
        subprocess.run([sys.executable, "-m", "carmask", *command], check=True)


def row_of(variant: str, runs: Path) -> dict[str, Any]:
    """Figures of a variant that is done."""
    folder = folder_of(variant, runs)
    (summary,) = (json.loads(path.read_text()) for path in evaluations(variant, runs))
    if summary["part"] != "validation" or summary["warnings"]:
        sys.exit(f"{folder}: not figures of held-out photos ({summary['part']}; {summary['warnings']})")
    began = json.loads((folder / "environment.json").read_text())
    figures = {name: summary["figures"][name]["mean"] for name in ("dice", "boundary_error_px")}
    return {"variant": variant, "options": VARIANTS[variant], **figures, "commit": began["commit"]}


if __name__ == "__main__":
    main()
