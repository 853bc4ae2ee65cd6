"""`carmask train` as it is typed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from carmask.models.series_file import SeriesFile
from carmask.training.config import TrainSettings
from noise_pairs import run
from tiny_runs import TINY


@pytest.fixture
def typed(make: Any, tmp_path: Path) -> Any:
    """`typed(recipe, *options)`: `train DATA --config FILE` with these settings, and these options beside it."""

    def command(recipe: dict[str, Any], *options: object) -> list[str]:
        settings: TrainSettings = make(recipe)
        config = tmp_path / "config.yaml"
        config.write_text(settings.to_yaml())
        return ["train", str(settings.data), "--config", str(config), *map(str, options)]

    return command


def test_folds_are_trained_on_until_all_are_done_and_measured_out_of_fold(
    typed: Any, tiny: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = typed(TINY, "--name", "two", "--all-folds", "--dataset.folds", 2, "--resume", "auto")
    # So little time that there is one step.
    status, out, _ = run(capsys, *command, "--max-minutes", "1e-9")
    assert status == 130
    assert f"carmask train --resume {runs / 'two'}" in out
    status, out, errors = run(capsys, *command)
    assert (status, errors) == (0, "")
    assert f"carmask evaluate {tiny} --model {runs / 'two'}" in out
    assert SeriesFile.load(runs / "two" / "series.json").finished == ("fold-0", "fold-1")

    status, out, errors = run(
        capsys, "evaluate", str(tiny), "--model", str(runs / "two"), "--out", str(tmp_path / "out"), "--worst", "0"
    )
    assert status == 0
    assert "two (" in errors
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["photos"], summary["part"]) == (24, "out-of-fold")
    assert [(row["name"], row["photos"]) for row in summary["by_fold"]] == [("fold-0", 12), ("fold-1", 12)]


@pytest.mark.parametrize(("lr", "learns"), [("0.01", True), ("1e-9", False)])
def test_a_batch_that_is_learned_ends_with_0_and_else_with_1(
    typed: Any, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, lr: str, learns: bool
) -> None:
    if not learns:
        monkeypatch.setattr("carmask.training.overfit.STEPS", 40)
    status, _, errors = run(capsys, *typed(TINY, "--overfit-batch", "--optimizer.lr", lr))
    assert status == (0 if learns else 1)
    assert errors.startswith("error: ") != learns
    assert not runs.exists()


# Refuses whatever would leave the machine, from before the first import on, and notes it, for some would not say.
ALONE = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"):
        with open(sys.argv[1], "a") as file:
            print(event, *arguments, file=file)
        raise OSError("no network here")

sys.addaudithook(refuse)
from carmask.cli import main
main(sys.argv[2:])
"""


def test_nothing_is_sent_anywhere(typed: Any, runs: Path, tmp_path: Path) -> None:
    recipe = {name: value for name, value in TINY.items() if name != "tensorboard"}
    command = typed(recipe, "--name", "alone")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path / "refused"), *command],
        env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "refused").exists(), (tmp_path / "refused").read_text()
    assert len(list((runs / "alone" / "tensorboard").iterdir())) == 1
