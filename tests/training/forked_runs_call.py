"""Call `forked_runs.py` and `forked_kills.py`, which train in processes of their own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carmask.training.config import TrainSettings


@dataclass(frozen=True)
class ForkedRun:
    """A run by so many processes, and the beginning of the paths of files that hold what each has said."""

    settings: TrainSettings
    said: Path
    processes: int
    synced: bool = True


def train_forked(runs: Sequence[ForkedRun], folder: Path) -> list[list[int]]:
    """Make runs one after the other; how the processes of each have ended."""
    orders = [
        {
            "settings": run.settings.model_dump(mode="json"),
            "said": str(run.said),
            "processes": run.processes,
            "synced": run.synced,
        }
        for run in runs
    ]
    answer: list[list[int]] = call("forked_runs.py", {"runs": orders}, folder)
    return answer


def call(script: str, order: dict[str, Any], folder: Path) -> Any:
    """Give an order to a script; its answer."""
    (folder / "order.json").write_text(json.dumps(order))
    command = [sys.executable, str(Path(__file__).with_name(script)), str(folder / "order.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
