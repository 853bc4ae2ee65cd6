"""Several processes that train one network: real ones, over the loopback."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked_runs_call import ForkedRun, train_forked
from PIL import Image

from carmask.errors import CarmaskError
from carmask.training.config import TrainSettings
from carmask.training.distributed import DistributedContext, DistributedError, init_distributed
from carmask.training.launch import count_devices
from carmask.training.run_folder import RunFolder
from tiny_runs import FAST, TINY, tiny_settings, untimed

STEPS = 6
GRADIENTS = Path(__file__).with_name("distributed_gradients.py")


@pytest.fixture(scope="module")
def half_dark(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny data set, every second view at a fifth of its brightness."""
    root = tmp_path_factory.mktemp("half_dark")
    for place, photo in enumerate(sorted(tiny.rglob("*.*"))):
        target = root / photo.relative_to(tiny)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(photo.read_bytes())
        if photo.suffix == ".jpg" and place % 2:
            with Image.open(photo) as image:
                image.point(lambda value: value // 5).save(target, quality=95)
    return root


@pytest.fixture(scope="module")
def ran(
    tiny: Path, half_dark: Path, cache_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, ForkedRun]:
    """Runs of six steps, `alone`, `together` and `not-synced`, and one that `finds-batch`; made in one call."""
    folder = tmp_path_factory.mktemp("forked")
    # Small steps: with those of a real training, rounding alone moves the loss by 1e-4 within ten steps (float32
    # against float64 in one process). Not Adam's, which are full steps also where a gradient is nothing but rounding.
    one_step_each = {
        **FAST, "optimizer": {"name": "sgd", "lr": 1e-3, "momentum": 0.0},
        "epochs": STEPS, "epoch_samples": 4, "augment": {"flip": 0, "geometric": 0, "color": 0, "gray": 0},
        "tensorboard": False,
    }  # fmt: skip
    finds_batch = {**FAST, "epochs": 1, "accumulate": 3, "batch_size": None, "network": {"widths": [4, 8]}}

    def run(name: str, recipe: dict[str, Any], data: Path, processes: int, *, synced: bool = True) -> ForkedRun:
        settings = tiny_settings(recipe, data=data, cache=cache_folder, runs=folder, name=name)
        return ForkedRun(settings, folder / name, processes, synced)

    runs = [
        run("alone", one_step_each, half_dark, 1),
        run("together", one_step_each, half_dark, 2),
        run("not-synced", one_step_each, half_dark, 2, synced=False),
        run("finds-batch", finds_batch, tiny, 2),
    ]
    for made, ends in zip(runs, train_forked(runs, folder), strict=True):
        assert ends == [0] * made.processes, made.said.with_name(f"{made.said.name}-0.txt").read_text()
    return {str(made.settings.name): made for made in runs}


def folder_of(run: ForkedRun) -> RunFolder:
    return RunFolder(run.settings.runs / str(run.settings.name))


def losses(run: ForkedRun) -> np.ndarray:
    """Of each step."""
    return np.array([float(row["train_loss"]) for row in untimed(folder_of(run))])


def test_two_processes_learn_what_one_does(ran: dict[str, ForkedRun]) -> None:
    alone, together = losses(ran["alone"]), losses(ran["together"])
    assert len(alone) == len(together) == STEPS
    assert len(set(alone)) == STEPS
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    # Each held-out photo once, whoever measured it.
    for mine, theirs in zip(untimed(folder_of(ran["together"])), untimed(folder_of(ran["alone"])), strict=True):
        assert float(mine["dice"]) == pytest.approx(float(theirs["dice"]), abs=1e-4)


def test_a_batch_size_that_is_found_can_be_divided_among_processes_and_into_parts(ran: dict[str, ForkedRun]) -> None:
    # Each would take four photos of its eight; twelve is the next batch that two processes and three parts divide.
    assert TrainSettings.from_yaml(folder_of(ran["finds-batch"]).config).batch_size == 12


def test_batch_norm_that_sees_its_own_half_alone_is_noticed(ran: dict[str, ForkedRun]) -> None:
    """The comparison above can fail."""
    assert np.abs(losses(ran["not-synced"]) - losses(ran["alone"])).max() > 1e-3


def test_gradients_of_two_are_those_of_one(tmp_path: Path) -> None:
    """In float64, where rounding hides nothing: through BatchNorm, with unequal halves in it."""
    done = subprocess.run([sys.executable, str(GRADIENTS), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    alone, *together = (torch.load(tmp_path / f"{name}.pt") for name in ("alone", "0", "1"))
    assert alone.keys() >= {"0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
    for mine in together:
        for name, tensor in alone.items():
            torch.testing.assert_close(mine[name], tensor, atol=1e-10, rtol=1e-8)
    # Long work of one process is waited for where it is expected, and not elsewhere.
    assert done.stdout.split() == ["slow", "waited", "for", "lost"]


def test_each_photo_is_in_one_share() -> None:
    items = tuple(range(11))
    shares = [DistributedContext(rank, 3).shard(items) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == list(items)
    slices = [DistributedContext(rank, 3).batch_slice(12) for rank in range(3)]
    assert [index for part in slices for index in range(12)[part]] == list(range(12))
    with pytest.raises(DistributedError):
        DistributedContext(1, 3).batch_slice(8)


def test_one_process_needs_no_others() -> None:
    alone = DistributedContext()
    assert alone.is_main
    assert alone.broadcast_object(lambda: 5) == 5
    assert alone.all_gather_object("mine") == ["mine"]
    assert alone.all_reduce_gradients([], (1.5, 0.0)) == [1.5, 0.0]


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": None},
        {"MASTER_ADDR": None},
        {"MASTER_ADDR": ""},
        {"MASTER_PORT": None},
        {"MASTER_PORT": "http"},
        {"RANK": "2"},
        {"RANK": "-1"},
        {"WORLD_SIZE": "two"},
        {"WORLD_SIZE": "0"},
    ],
)
def test_an_incomplete_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str | None]
) -> None:
    whole = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in {**whole, **variables}.items():
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name, raising=False)
    with pytest.raises(DistributedError), init_distributed():
        pytest.fail("it was not refused")


def test_devices_are_counted() -> None:
    assert count_devices("3") == 3
    assert count_devices("auto") >= 1
    for wrong in ("0", "-1", "two", "1.5"):
        with pytest.raises(CarmaskError, match=re.escape(wrong)):
            count_devices(wrong)


def command(make: Any, **given: Any) -> tuple[list[str], Path]:
    """`carmask train --devices 2` for long enough to be disturbed, and its run."""
    settings = make({**TINY, "epochs": 400}, **given)
    config = settings.runs.parent / "config.yaml"
    config.write_text(settings.to_yaml())
    arguments = ["train", "--config", str(config), "--devices", "2"]
    return [sys.executable, "-m", "carmask", *arguments], settings.runs / str(settings.name)


def begun(arguments: list[str], run: Path) -> subprocess.Popen[str]:
    """Start a command, and wait for its first epoch."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (run / "metrics.csv").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return process


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="finds child processes in /proc")
def test_a_killed_process_stops_the_others_and_the_run_goes_on(make: Any) -> None:
    arguments, run = command(make, name="killed")
    process = begun(arguments, run)
    processes = [child for child in children_of(process.pid) if b"train" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(processes) == 2
    # Of the two the one that otherwise speaks for both.
    (first,) = (child for child in processes if b"RANK=0" in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"))
    os.kill(first, signal.SIGKILL)
    said, complained = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in said + complained
    # One of the process that has lost the other, one of the launcher.
    assert complained.count("error: ") == 2
    assert "SIGKILL" in complained
    assert "--resume" in complained
    # And on, in one process or two, until it is asked to stop.
    done = rows_of(run)
    again = begun([*arguments, "--resume", "auto"], run)
    while rows_of(run) <= done + 1:
        time.sleep(0.1)
    again.send_signal(signal.SIGINT)
    said, complained = again.communicate(timeout=120)
    assert again.returncode == 130, complained
    assert "Traceback" not in complained


def rows_of(run: Path) -> int:
    with (run / "metrics.csv").open(newline="") as file:
        return len(list(csv.DictReader(file)))
