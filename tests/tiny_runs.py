"""Runs of a few steps on the tiny data set, and what is compared of them."""

import csv
import io
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file

from carmask.training import train as training
from carmask.training.config import TrainSettings
from carmask.training.run_folder import RunFolder

# Sixteen photos of four cars to learn from, eight of two cars held out: four steps in an epoch.
STEPS_IN_EPOCH = 4
SMALL: dict[str, Any] = {
    "preset": "small",
    "epochs": 3,
    "batch_size": 4,
    "network": {"widths": (8, 16)},
    "input": {"height_px": 32, "width_px": 32},
    "optimizer": {"lr": 1e-2},
}
# Everything that has a state of its own or draws at random: BatchNorm, averaged weights, schedule, augmentation.
FAST: dict[str, Any] = {
    "preset": "fast",
    "network": {"widths": (8, 16, 32)},
    "epochs": 2,
    "batch_size": 4,
    "input": {"height_px": 64, "width_px": 64},
}
# A network of next to nothing, with everything that has a state or draws at random. Two steps.
TINY: dict[str, Any] = {
    "preset": "fast",
    "network": {"widths": (4, 8)},
    "epochs": 1,
    "epoch_samples": 8,
    "batch_size": 4,
    "tensorboard": False,
    "input": {"height_px": 32, "width_px": 32},
}
# The same with an EfficientNet encoder.
GENERAL: dict[str, Any] = {**TINY, "preset": "general", "network": {"widths": (4, 4, 4, 4)}}
TIMES = {"images_per_s", "train_s", "validation_s"}


def tiny_settings(recipe: dict[str, Any], *, data: Path, cache: Path, runs: Path, **given: Any) -> TrainSettings:
    """Settings for the tiny data set, on one thread in float32, so that they say the same everywhere."""
    fixed = {
        "data": data,
        "runs": runs,
        "dataset": {"cache": cache, "folds": 3},
        "hardware": {"device": "cpu", "precision": "float32", "threads": 1},
    }
    return TrainSettings.model_validate({**fixed, **recipe, **given})


def train(settings: TrainSettings) -> tuple[RunFolder, str]:
    """Train; the run and what was printed."""
    printed = io.StringIO()
    run = training.train(settings, console=Console(file=printed, width=200)).run
    return run, printed.getvalue()


def resume(run: RunFolder) -> str:
    printed = io.StringIO()
    assert training.train(resume=run.path, console=Console(file=printed, width=200)).run == run
    return printed.getvalue()


def rows(run: RunFolder) -> list[dict[str, str]]:
    with run.metrics.open(newline="") as file:
        return list(csv.DictReader(file))


def untimed(run: RunFolder) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows(run)]


def weights(run: RunFolder, which: str) -> dict[str, torch.Tensor]:
    return load_file(run.weights(which) / "model.safetensors")


def assert_same_training(run: RunFolder, other: RunFolder) -> None:
    assert untimed(run) == untimed(other)
    for which in ("last", "best"):
        one, another = weights(run, which), weights(other, which)
        assert one.keys() == another.keys()
        for name, tensor in one.items():
            assert torch.equal(tensor, another[name]), f"{which}: {name}"
