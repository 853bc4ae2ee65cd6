"""All that changes from step to step of a run, and how it is saved and taken up again."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from carmask.errors import first_line
from carmask.models.network import Network
from carmask.runtime.hardware import Hardware
from carmask.training.averaging import AveragedWeights
from carmask.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from carmask.training.history import EpochRow
from carmask.training.run import RunFolder
from carmask.training.settings import OptimiserSettings, TrainSettings


@dataclass
class TrainingState:
    """All that changes from step to step. What is not here follows from the settings and the step."""

    network: Network
    optimiser: torch.optim.Optimizer
    averaged: AveragedWeights | None
    loss_sum: Tensor
    # Digest of the photos: others would make it another run.
    photos: str
    step: int = 0
    best_dice: float = -math.inf
    best_epoch: int = 0
    history: list[EpochRow] = field(default_factory=list)

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
        self.loss_sum = torch.zeros_like(self.loss_sum)
        is_best = row.dice > self.best_dice
        if is_best:
            self.best_dice, self.best_epoch = row.dice, row.epoch
        return is_best

    def save(self, run: RunFolder) -> None:
        """Write the checkpoint."""
        save_checkpoint(
            run.checkpoint,
            {
                "network": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "averaged": None if self.averaged is None else self.averaged.state_dict(),
                "loss_sum": self.loss_sum,
                "photos": self.photos,
                "step": self.step,
                "best_dice": self.best_dice,
                "best_epoch": self.best_epoch,
                "history": [row.model_dump() for row in self.history],
            },
        )

    def load(self, run: RunFolder, device: torch.device) -> None:
        """Take up where `save` was called."""
        saved = load_checkpoint(run.checkpoint, device)
        try:
            self.network.load_state_dict(saved["network"])
            self.optimiser.load_state_dict(saved["optimiser"])
            if self.averaged is not None:
                self.averaged.load_state_dict(saved["averaged"])
            self.loss_sum = saved["loss_sum"]
            self.step, self.best_dice, self.best_epoch = saved["step"], saved["best_dice"], saved["best_epoch"]
            self.history = [EpochRow(**row) for row in saved["history"]]
            began_with = saved["photos"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{run.checkpoint}: does not fit the settings in {run.config} ({first_line(error)}); "
                "the run cannot go on from it"
            ) from error
        if began_with != self.photos:
            raise CheckpointError(
                f"{run.path}: the photos, or how this version decodes them, are not those that the run began with; "
                "put them back, or start a new run"
            )


def start_state(settings: TrainSettings, network: Network, hardware: Hardware, photos: str) -> TrainingState:
    """The state before the first step. `photos` is a digest of what is learnt from."""
    network.to(hardware.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainingState(
        network=network,
        optimiser=_make_optimiser(network, settings.optimiser),
        averaged=AveragedWeights(network, settings.ema) if settings.ema else None,
        loss_sum=torch.zeros((), device=hardware.device),
        photos=photos,
    )


def _make_optimiser(network: nn.Module, settings: OptimiserSettings) -> torch.optim.Optimizer:
    # Decay pulls weights to zero; for biases and normalisation that would be a pull towards a wrong answer.
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
