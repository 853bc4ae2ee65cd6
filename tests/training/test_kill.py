"""Runs that are killed at any moment, also while they write, end with the weights of one that was left alone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked_runs_call import call

from carmask.training.run_folder import RunFolder
from tiny_runs import FAST, assert_same_training, rows, tiny_settings

KILLS = 6
# A checkpoint after every step; a state of every kind; a network that is soon written.
RECIPE = {
    **FAST, "epochs": 3, "epoch_samples": 8, "checkpoint_minutes": 0, "network": {"widths": [4, 8]},
    "input": {"height_px": 32, "width_px": 32},
}  # fmt: skip
# Fewer than a checkpoint or a network has.
CUT_BYTES = 5000
# A run is killed before the last of these calls with this file or folder, or, where it is one to write into, while the
# first file is written there. And what there is of its kind then.
CHECKPOINT_MOMENTS = (
    (["open"], ["checkpoint.pt.partial"], {"checkpoint.pt", "checkpoint.pt.partial"}),
    (["os.rename"], ["checkpoint.previous.pt"], {"checkpoint.pt", "checkpoint.pt.partial"}),
    (["os.rename"], ["checkpoint.pt"], {"checkpoint.previous.pt", "checkpoint.pt.partial"}),
)
LAST_MOMENTS = (
    (["os.mkdir"], ["last.partial"], {"last.partial"}),
    (["os.rename"], ["last.old"], {"last", "last.partial"}),
    (["os.rename"], ["last"], {"last.old", "last.partial"}),
    (["os.rename", "shutil.rmtree"], ["last", "last.old"], {"last", "last.old"}),
)
# Of the second epoch, which is better than the first.
BEST_MOMENTS = (
    (["os.mkdir"], ["best.partial"], {"best", "best.partial"}),
    (["os.rename"], ["best.old"], {"best", "best.partial"}),
    (["os.rename"], ["best"], {"best.old", "best.partial"}),
    (["os.rename", "shutil.rmtree"], ["best", "best.old"], {"best", "best.old"}),
)
# By so many processes. Only the first of two writes, as one alone does: with two, what matters is from which of the
# files both go on.
MOMENTS = {
    1: (*CHECKPOINT_MOMENTS, *LAST_MOMENTS, *BEST_MOMENTS),
    2: (*CHECKPOINT_MOMENTS, *BEST_MOMENTS[1:3]),
}
CUTTING = {"open", "os.mkdir"}


@pytest.fixture(scope="module")
def killed(
    tiny: Path, cache_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder of all runs, by one process and by two, and how they were killed."""
    folder = tmp_path_factory.mktemp("killed")
    moments = {
        processes: [
            {"calls": [*zip(calls, names, strict=True)], "limit_bytes": CUT_BYTES if calls[-1] in CUTTING else None}
            for calls, names, _ in chosen
        ]
        for processes, chosen in MOMENTS.items()
    }
    settings = tiny_settings(RECIPE, data=tiny, cache=cache_folder, runs=folder / "runs")
    whole = {"settings": settings.model_dump(mode="json"), "said": str(folder / "said")}
    whole |= {"kills": KILLS, "moments": moments}
    yield folder / "runs", call("forked_kills.py", whole, folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_random_and_resumed_is_as_if_left_alone(killed: tuple[Path, dict[str, Any]], processes: int) -> None:
    folder, answer = killed
    counted = answer[str(processes)]["random"]
    # Only those that came after a step had begun.
    assert counted["kills"] >= KILLS
    for run in range(counted["runs"]):
        assert_undisturbed(folder, f"random-{run}", processes)


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_in_writing_and_resumed_is_as_if_left_alone(killed: tuple[Path, dict[str, Any]], processes: int) -> None:
    folder, answer = killed
    assert_undisturbed(folder, "writing", processes)
    for (calls, names, there), left in zip(MOMENTS[processes], answer[str(processes)]["writing"], strict=True):
        of_kind = {place: size for place, size in left.items() if place.split(".")[0] == names[-1].split(".")[0]}
        assert of_kind.keys() == there, (calls, names)
        halves = {place for place, size in of_kind.items() if size <= CUT_BYTES}
        assert halves == ({names[-1]} if calls[-1] in CUTTING else set()), (calls, names)


def assert_undisturbed(folder: Path, name: str, processes: int) -> None:
    run = RunFolder(folder / f"{name}-{processes}")
    assert_same_training(run, RunFolder(folder / f"whole-{processes}"))
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]
    assert not [*run.path.rglob("*.partial"), *run.path.rglob("*.old")]
