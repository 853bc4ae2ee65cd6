"""Trainings that a benchmark asks for: begun, gone on with, or kept, and what their evaluation says."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def measure(
    data: Path, run: Path, options: Sequence[str], *, evaluate_on: Path | None = None, split: Path | None = None
) -> None:
    """Train the run (`options` of `carmask train`) and evaluate it, as far as that was not done before.

    A run that learns from crops is evaluated together with the network that it refines, on the whole photos that
    `split` holds out.
    """
    if evaluations(run):
        return
    given = (
        ["--resume", str(run)] if run.exists() else [str(data), *options, "--runs", str(run.parent), "--name", run.name]
    )
    photos = evaluate_on or data
    evaluation = ["--model", str(run), "--out", str(run / "evaluation" / photos.name)]
    if split is not None:
        evaluation += ["--split", str(split)]
    for command in (["train", *given], ["evaluate", str(photos), *evaluation]):
        subprocess.run([sys.executable, "-m", "carmask", *command], check=True)


def evaluations(run: Path) -> list[Path]:
    """Its evaluation, once there is one."""
    return sorted(run.glob("evaluation/*/summary.json"))


def figures_of(run: Path) -> dict[str, Any]:
    """Mean Dice and boundary error on the photos that the run held out, and the commit that trained it."""
    (summary,) = (json.loads(path.read_text()) for path in evaluations(run))
    if summary["part"] != "validation" or summary["warnings"]:
        sys.exit(f"{run}: not figures of held-out photos ({summary['part']}; {summary['warnings']})")
    began = json.loads((run / "environment.json").read_text())
    means = {name: summary["figures"][name]["mean"] for name in ("dice", "boundary_error_px")}
    return {**means, "photos": summary["photos"], "commit": began["commit"]}
