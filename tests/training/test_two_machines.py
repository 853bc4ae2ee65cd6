"""Several machines that train together: processes of which only the first sees the run's folder."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forked_runs_call import call

from carmask.training.config import TrainSettings
from carmask.training.run_folder import RunFolder
from tiny_runs import TINY, assert_same_training, tiny_settings

STAGED = {**TINY, "stages": ({}, {"input": {"height_px": 48, "width_px": 48}})}
# So little time that each turn is one step.
ONE_STEP = ["--max-minutes", "1e-9"]


@dataclass(frozen=True)
class Machines:
    """The working folders of two machines, and how both have ended each command."""

    folders: tuple[Path, Path]
    ends: list[list[int]]

    def said(self, rank: int) -> str:
        return self.folders[rank].with_suffix(".txt").read_text()


def command_of(settings: TrainSettings, config: Path) -> list[str]:
    """`carmask train --config`, its runs in the working folder."""
    config.write_text(settings.model_copy(update={"runs": Path("runs")}).to_yaml())
    return ["train", "--config", str(config)]


@pytest.fixture(scope="module")
def pairs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Machines]:
    """Pairs of machines that see the `same` photos and `other` ones; what they do is done by one call."""
    folder = tmp_path_factory.mktemp("machines")

    def config_of(recipe: dict[str, Any], name: str, **given: Any) -> list[str]:
        settings = tiny_settings(recipe, **{"data": tiny, "cache": folder / f"{name}-cache", "runs": folder, **given})
        return command_of(settings, folder / f"{name}.yaml")

    staged, single = config_of(STAGED, "staged"), config_of(TINY, "single")
    commands = {
        "same": [
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
        ],
        # One path, and another folder for each.
        "other": [[*config_of(TINY, "other", data=Path("/proc/self/cwd/photos")), "--name", "other"]],
    }
    folders = {name: (folder / f"{name}-first", folder / f"{name}-second") for name in commands}
    for machine, car in zip(folders["other"], ("car0", "car1"), strict=True):
        shutil.copytree(tiny, machine / "photos")
        shutil.copy(tiny / "train" / f"{car}_01.jpg", machine / "photos" / "train" / "car0_02.jpg")
    for machine in folders["same"]:
        machine.mkdir()
    order = [{"folders": [*map(str, folders[name])], "commands": commands[name]} for name in commands]
    answer = call("forked_machines.py", {"pairs": order}, folder)
    return {name: Machines(folders[name], ends) for name, ends in zip(commands, answer, strict=True)}


def test_only_the_first_machine_sees_the_runs_folder(pairs: dict[str, Machines]) -> None:
    same = pairs["same"]
    assert same.ends == [[0, 0], *[[130, 130]] * 4, [0, 0], [130, 130], [0, 0]], same.said(0)
    runs = same.folders[0] / "runs"
    for stage in ("", ".stages/1"):
        assert_same_training(RunFolder(runs / f"staged{stage}"), RunFolder(runs / f"whole{stage}"))
    # In one stage it is the same training as the first of two.
    assert_same_training(RunFolder(runs / "single"), RunFolder(runs / "whole.stages" / "1"))
    assert list(same.folders[1].iterdir()) == []
    assert same.said(1) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="names each process's working folder by /proc")
def test_machines_with_other_photos_do_not_train_together(pairs: dict[str, Machines]) -> None:
    other = pairs["other"]
    assert other.ends == [[1, 1]]
    assert "/proc/self/cwd/photos" in other.said(0)
    assert not (other.folders[0] / "runs").exists()
