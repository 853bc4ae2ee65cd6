"""Several machines that train together: processes of which only the first sees the run's folder."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from carmask.training.config import TrainSettings
from carmask.training.run_folder import RunFolder
from tiny_runs import TINY, assert_same_training

SCRIPT = Path(__file__).with_name("forked_machines.py")
STAGED = {**TINY, "stages": ({}, {"input": {"height_px": 48, "width_px": 48}})}
# So little time that each turn is one step.
ONE_STEP = ["--max-minutes", "1e-9"]


@pytest.fixture
def machines(tmp_path: Path) -> list[Path]:
    """The working folders of two machines."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    return folders


@pytest.fixture
def given(machines: list[Path], tmp_path: Path) -> Any:
    """`given([command, ...])` gives each command to both machines: how both ended, and what each has said."""

    def give(commands: list[list[str]]) -> tuple[list[list[int]], list[str]]:
        order = {"folders": [str(folder) for folder in machines], "commands": commands}
        (tmp_path / "order.json").write_text(json.dumps(order))
        done = subprocess.run(
            [sys.executable, str(SCRIPT), str(tmp_path / "order.json")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said = [(tmp_path / f"said-{rank}.txt").read_text() for rank in range(2)]
        return json.loads(done.stdout.splitlines()[-1]), said

    return give


def command_of(settings: TrainSettings, config: Path) -> list[str]:
    """`carmask train --config`, its runs in the working folder."""
    config.write_text(settings.model_copy(update={"runs": Path("runs")}).to_yaml())
    return ["train", "--config", str(config)]


def test_only_the_first_machine_sees_the_runs_folder(
    make: Any, given: Any, machines: list[Path], tmp_path: Path
) -> None:
    staged = command_of(make(STAGED), tmp_path / "staged.yaml")
    single = command_of(make(TINY, dataset={"cache": tmp_path / "another-cache", "folds": 3}), tmp_path / "single.yaml")
    commands = [
        [*staged, "--name", "whole"],
        [*staged, "--name", "staged", "--resume", "auto", *ONE_STEP],
        ["train", "--resume", "runs/staged", *ONE_STEP],
        # The first stage is measured, and the second begins.
        [*staged, "--name", "staged", "--resume", "auto", *ONE_STEP],
        [*staged, "--name", "staged", "--resume", "auto", *ONE_STEP],
        ["train", "--resume", "runs/staged"],
        # While photos are decoded.
        [*single, "--name", "single", "--resume", "auto", *ONE_STEP],
        [*single, "--name", "single", "--resume", "auto"],
    ]
    ends, said = given(commands)
    assert ends == [[0, 0], *[[130, 130]] * 4, [0, 0], [130, 130], [0, 0]], said
    runs = machines[0] / "runs"
    for stage in ("", ".stages/1"):
        assert_same_training(RunFolder(runs / f"staged{stage}"), RunFolder(runs / f"whole{stage}"))
    # In one stage it is the same training as the first of two.
    assert_same_training(RunFolder(runs / "single"), RunFolder(runs / "whole.stages" / "1"))
    assert list(machines[1].iterdir()) == []
    assert said[1] == ""


@pytest.mark.skipif(sys.platform != "linux", reason="names each process's working folder by /proc")
def test_machines_with_other_photos_do_not_train_together(
    make: Any, given: Any, machines: list[Path], tiny: Path, tmp_path: Path
) -> None:
    for folder, car in zip(machines, ("car0", "car1"), strict=True):
        shutil.copytree(tiny, folder / "photos")
        shutil.copy(tiny / "train" / f"{car}_01.jpg", folder / "photos" / "train" / "car0_02.jpg")
    # One path, and another folder for each.
    place = Path("/proc/self/cwd/photos")
    config = command_of(make(TINY, data=place), tmp_path / "config.yaml")
    ends, said = given([[*config, "--name", "other"]])
    assert ends == [[1, 1]]
    assert str(place) in said[0]
    assert not (machines[0] / "runs").exists()
