"""The state of a run, and its checkpoint on disk.

A checkpoint is written to a temporary name, read back, verified and only then renamed; the previous one is kept beside
it. Each begins with the SHA-256 of what follows, so that damage is noticed.
"""

import io
import math
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch.optim.swa_utils import AveragedModel

from carmask.errors import CarmaskError, first_line
from carmask.files import flush_to_disk
from carmask.models.network import Network
from carmask.training.distributed import DistributedContext

_HEADING = b"carmask checkpoint, sha256 "
_HEADER_BYTES = len(_HEADING) + 64 + 1
# Fields of `TrainingState` that are saved as they are.
_PLAIN = (
    "photos", "accumulate", "step", "loss_sum", "loss_steps", "skipped_steps", "images_per_s", "train_s", "best_dice",
    "best_epoch",
)  # fmt: skip


class CheckpointError(CarmaskError):
    """A checkpoint that is missing, damaged or of another run."""


class EpochMetrics(BaseModel):
    """One row of `metrics.csv`. Dice is measured on held-out photos at their own size.

    With several data sets `dice` is the mean of their means, in `dice_of_dataset`.
    """

    model_config = ConfigDict(frozen=True)

    epoch: int
    step: int
    photos: int
    lr: float
    train_loss: float
    dice: float
    dice_median: float
    dice_worst: float
    dice_of_dataset: dict[str, float] = {}
    images_per_s: float
    train_s: float
    validation_s: float


@dataclass
class TrainingState:
    """All that changes from step to step. Everything else follows from the settings and the step."""

    network: Network
    optimizer: torch.optim.Optimizer
    averaged: AveragedModel | None
    scaler: torch.amp.GradScaler
    # Digest of photos and masks, and of how they were resized.
    photos: str
    # Parts in which a batch goes through the network; grows when memory runs out.
    accumulate: int = 1
    step: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    # Steps in a row that were skipped because the gradient was not finite.
    skipped_steps: int = 0
    # Speed and time of the current epoch, for the log.
    images_per_s: float = 0.0
    train_s: float = 0.0
    best_dice: float = -math.inf
    best_epoch: int = 0
    history: list[EpochMetrics] = field(default_factory=list)
    # Of this process, and not saved: the checkpoint that it has written, and when.
    own_checkpoint: Path | None = None
    saved_s: float = field(default_factory=time.monotonic)

    @property
    def evaluated_network(self) -> Network:
        """The network that is validated and saved: the averaged one if there is one."""
        network = self.network if self.averaged is None else self.averaged.module
        assert isinstance(network, Network)
        return network

    def finish_epoch(self, metrics: EpochMetrics, *, held_out_photos: int) -> bool:
        """Add an epoch to the history and to the network's configuration. Returns whether it is the best so far.

        held_out_photos: 0 if the figures are of photos that were trained on.
        """
        self.history.append(metrics)
        held_out = {"held_out_photos": held_out_photos, "held_out_dice": round(metrics.dice, 5)}
        self.evaluated_network.note_training(
            {"epoch": metrics.epoch, "photos_seen": metrics.photos} | (held_out if held_out_photos else {})
        )
        self.loss_sum, self.loss_steps = 0.0, 0
        is_best = metrics.dice > self.best_dice
        if is_best:
            self.best_dice, self.best_epoch = metrics.dice, metrics.epoch
        return is_best

    def save(self, path: Path, distributed: DistributedContext) -> None:
        """Write the checkpoint, on rank 0. Raises `CheckpointError`."""
        if distributed.is_main:
            save_checkpoint(path, self.state_dict(), is_own=self.own_checkpoint == path)
        self.own_checkpoint, self.saved_s = path, time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain values, for `torch.save`."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "scaler": self.scaler.state_dict(),
            "notes": self.evaluated_network.card.training,
            **{name: getattr(self, name) for name in _PLAIN},
            "history": [metrics.model_dump() for metrics in self.history],
        }

    def load_state_dict(self, saved: dict[str, Any], run: Path) -> None:
        """Restore what `state_dict` returned; `run` is the folder that errors name.

        Raises:
            CheckpointError: it belongs to other photos or settings.
        """
        if saved.get("photos", self.photos) != self.photos:
            raise CheckpointError(
                f"{run}: the photos have changed since the run began, or this version decodes them differently; "
                "restore the photos, or start a new run"
            )
        try:
            self.network.load_state_dict(saved["network"])
            self.optimizer.load_state_dict(saved["optimizer"])
            if self.averaged is not None:
                self.averaged.load_state_dict(saved["averaged"])
            if self.scaler.is_enabled():
                self.scaler.load_state_dict(saved["scaler"])
            for name in _PLAIN:
                setattr(self, name, saved[name])
            self.evaluated_network.note_training(saved["notes"])
            self.history = [EpochMetrics(**metrics) for metrics in saved["history"]]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{run}: the checkpoint does not fit the settings in config.yaml ({first_line(error)}); the run cannot "
                "be resumed"
            ) from error


def save_checkpoint(path: Path, state: dict[str, Any], *, is_own: bool = False) -> None:
    """Write `state` so that after a crash at any moment the new checkpoint or the previous one is complete.

    Not with `files.atomic_write`: between writing and renaming, the new file is read back and the old one is moved.

    Args:
        path: The checkpoint.
        state: Tensors and plain values.
        is_own: This process wrote the checkpoint that is there, so it need not be verified before it becomes the
            previous one. A damaged checkpoint is never kept: it would replace the one that the run was resumed from.

    Raises:
        CheckpointError: it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    content = _HEADING + sha256(content).hexdigest().encode() + b"\n" + content
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A full or failing disk does not always report errors while writing.
        _read_verified(partial)
        if path.exists() and (is_own or _is_intact(path)):
            path.replace(previous_checkpoint(path))
        partial.replace(path)
        flush_to_disk(path.parent)
    except (OSError, CheckpointError) as error:
        partial.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot be written ({first_line(error)}); the previous one is kept") from error


def load_checkpoint(path: Path, warn: Callable[[str], None]) -> dict[str, Any]:
    """Read a checkpoint to the CPU, or the previous one if it is damaged; only tensors and plain values, never code.

    Raises:
        CheckpointError: there is none, or both are damaged.
    """
    candidates = [file for file in (path, previous_checkpoint(path)) if file.exists()]
    if not candidates:
        raise CheckpointError(f"{path}: no checkpoint there; start the run again under another --name")
    problems = []
    for file in candidates:
        try:
            state = _read(file)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warn(f"{problem}; resuming from the previous one, {file.name}, at step {state.get('step')}")
        return state
    raise CheckpointError(f"{'; '.join(problems)}; the run cannot be resumed")


def previous_checkpoint(path: Path) -> Path:
    """Where the previous checkpoint is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _read(path: Path) -> dict[str, Any]:
    content = _read_verified(path)
    try:
        state: object = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: not written by this version ({first_line(error)})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not the checkpoint of a run")
    return state


def _is_intact(path: Path) -> bool:
    try:
        _read_verified(path)
    except CheckpointError:
        return False
    return True


def _read_verified(path: Path) -> bytes:
    """Return the content after the header, whose digest it must match."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    header, content = content[:_HEADER_BYTES], content[_HEADER_BYTES:]
    if header != _HEADING + sha256(content).hexdigest().encode() + b"\n":
        raise CheckpointError(f"{path}: damaged")
    return content
