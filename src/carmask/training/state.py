"""All that changes from step to step of a run, and how it is saved and taken up again."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from carmask.errors import first_line
from carmask.models.network import Network
from carmask.runtime.hardware import Hardware
from carmask.training.averaging import AveragedWeights
from carmask.training.checkpoint import CheckpointError, save_checkpoint
from carmask.training.history import EpochRow
from carmask.training.run import RunFolder
from carmask.training.settings import OptimizerSettings, TrainSettings

# What is saved as it is.
_PLAIN = (
    "photo_losses_N", "drawn_by_N", "parts", "step", "loss_sum", "loss_steps", "lost_steps", "best_dice",
    "best_epoch",
)  # fmt: skip
# As well, and older checkpoints do not have it.
_PLAIN_SINCE = ("images_per_s", "train_s")


@dataclass
class TrainingState:
    """All that changes from step to step. What is not here follows from the settings and the step."""

    network: Network
    optimizer: torch.optim.Optimizer
    averaged: AveragedWeights | None
    scaler: torch.amp.GradScaler
    # Digest of the photos: others would make it another run.
    photos: str
    # Loss of each photo when it was last learned from, and as it stood when the epoch began: float64, on the CPU.
    photo_losses_N: Tensor
    drawn_by_N: Tensor
    # So many parts of a batch go through the network one after the other.
    parts: int = 1
    step: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    # Steps in a row whose gradient was not a number.
    lost_steps: int = 0
    # Of the epoch, as far as one process has trained it: for people.
    images_per_s: float = 0.0
    train_s: float = 0.0
    best_dice: float = -math.inf
    best_epoch: int = 0
    history: list[EpochRow] = field(default_factory=list)
    # Of this process alone: the checkpoint that it wrote last.
    _saved: Path | None = None

    @property
    def validated(self) -> Network:
        """The network that is measured and shipped: the averaged one, where there is one."""
        if self.averaged is None:
            return self.network
        assert isinstance(self.averaged.network, Network)
        return self.averaged.network

    def end_epoch(self, row: EpochRow) -> bool:
        """Take an epoch into the history. Returns whether it is the best so far."""
        self.history.append(row)
        self.loss_sum, self.loss_steps = 0.0, 0
        self.drawn_by_N = self.photo_losses_N.clone()
        is_best = row.dice > self.best_dice
        if is_best:
            self.best_dice, self.best_epoch = row.dice, row.epoch
        return is_best

    def save(self, run: RunFolder) -> None:
        """Write the checkpoint.

        Raises:
            CheckpointError: it cannot be written.

        """
        save_checkpoint(
            run.checkpoint,
            {
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "averaged": None if self.averaged is None else self.averaged.state_dict(),
                "scaler": self.scaler.state_dict(),
                "photos": self.photos,
                "notes": self.validated.card.training,
                **{name: getattr(self, name) for name in _PLAIN + _PLAIN_SINCE},
                "history": [row.model_dump() for row in self.history],
            },
            is_own=self._saved == run.checkpoint,
        )
        self._saved = run.checkpoint

    def take(self, run: RunFolder, saved: dict[str, Any]) -> None:
        """Become what a checkpoint of `run` says.

        Raises:
            CheckpointError: it is of other photos or settings.

        """
        if saved.get("photos", self.photos) != self.photos:
            raise CheckpointError(
                f"{run.path}: the photos, or how this version decodes them, are not those that the run began with; "
                "put them back, or start a new run"
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
            for name in _PLAIN_SINCE:
                setattr(self, name, saved.get(name, getattr(self, name)))
            self.validated.note_training(saved["notes"])
            self.history = [EpochRow(**row) for row in saved["history"]]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{run.checkpoint}: does not fit the settings in {run.config} ({first_line(error)}); "
                "the run cannot go on from it"
            ) from error


def start_state(
    settings: TrainSettings, network: Network, hardware: Hardware, *, photos: str, photo_count: int
) -> TrainingState:
    """The state before the first step. `photos` is a digest of the `photo_count` photos that are learned from."""
    network.to(hardware.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    needs_scale = hardware.precision == torch.float16
    return TrainingState(
        network=network,
        optimizer=_make_optimizer(network, settings.optimizer),
        averaged=AveragedWeights(network, settings.ema) if settings.ema else None,
        scaler=torch.amp.GradScaler(hardware.device.type, enabled=needs_scale),
        photos=photos,
        photo_losses_N=torch.ones(photo_count, dtype=torch.float64),
        drawn_by_N=torch.ones(photo_count, dtype=torch.float64),
        parts=settings.accumulate,
    )


def _make_optimizer(network: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    # Decay pulls weights to zero; for biases and normalization that would be a pull toward a wrong answer.
    decayed = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    free = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
    maker = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return maker(groups, lr=settings.lr)
