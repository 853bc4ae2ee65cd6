"""The training loop, read from top to bottom.

Everything random follows from (seed, step), so a run that is stopped after any step and resumed goes through the same
numbers as one that was not.
"""

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from carmask.data.augment import Augmenter
from carmask.data.cache import Cache
from carmask.data.pairs import Pair
from carmask.errors import CarmaskError, first_line
from carmask.models.network import Network
from carmask.runtime.hardware import Hardware
from carmask.training.averaging import AveragedWeights
from carmask.training.batches import BatchReader, seed_step
from carmask.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from carmask.training.interrupt import Interrupt
from carmask.training.losses import make_loss
from carmask.training.progress import EpochRow, RunReporter
from carmask.training.run import RunFolder
from carmask.training.schedule import learning_rate
from carmask.training.settings import OptimiserSettings, TrainSettings
from carmask.training.validation import Validation, Validator

# The loss is looked at every so many steps: reading it each time would make a GPU wait.
LOSS_CHECK_STEPS = 10


class TrainingError(CarmaskError):
    """Training cannot go on."""


@dataclass
class TrainingState:
    """All that changes from step to step. What is not here follows from the settings and the step."""

    network: Network
    optimiser: torch.optim.Optimizer
    averaged: AveragedWeights | None
    loss_sum: Tensor
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

    def save(self, run: RunFolder) -> None:
        """Write the checkpoint."""
        save_checkpoint(
            run.checkpoint,
            {
                "network": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "averaged": None if self.averaged is None else self.averaged.state_dict(),
                "loss_sum": self.loss_sum,
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
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{run.checkpoint}: does not fit the settings in {run.config} ({first_line(error)}); "
                "the run cannot go on from it"
            ) from error


@dataclass(frozen=True)
class TrainingData:
    """Cached photos, and which of them are learnt from and which are held out."""

    cache: Cache
    train: Sequence[Pair]
    validation: Sequence[Pair]


def start_state(settings: TrainSettings, network: Network, hardware: Hardware) -> TrainingState:
    """The state before the first step."""
    network.to(hardware.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainingState(
        network=network,
        optimiser=_make_optimiser(network, settings.optimiser),
        averaged=AveragedWeights(network, settings.ema) if settings.ema else None,
        loss_sum=torch.zeros((), device=hardware.device),
    )


def fit(
    state: TrainingState,
    settings: TrainSettings,
    data: TrainingData,
    hardware: Hardware,
    run: RunFolder,
    reporter: RunReporter,
) -> bool:
    """Train from `state.step` to the end. Returns whether it was reached; if not, a checkpoint says where it stopped.

    Raises:
        TrainingError: the loss is no longer a number.

    """
    assert settings.batch_size is not None
    if _is_patience_over(state, settings):
        return True
    batch_size = settings.batch_size
    steps_in_epoch = epoch_steps(settings, len(data.train))
    total_steps = settings.epochs * steps_in_epoch
    reader = BatchReader(data.cache, tuple(pair.id for pair in data.train), hardware.device)
    augment = Augmenter(settings.augment, channels=state.network.config.unet.in_channels)
    loss_of = make_loss(settings.loss)
    validate = Validator(
        data.validation, data.cache, hardware, foreground=settings.dataset.foreground, batch_size=batch_size
    )
    parameters = list(state.network.parameters())
    state.network.train()
    durations_s: list[float] = []

    with Interrupt() as interrupt, reporter.showing(state.step, total_steps, steps_in_epoch):
        began_s = time.perf_counter()
        for step, (images_BCHW, soft_B1HW) in reader.steps(state.step, total_steps, batch_size, settings.seed):
            seed_step(settings.seed, step)
            lr = learning_rate(step, total_steps, settings.optimiser.lr, settings.schedule)
            for group in state.optimiser.param_groups:
                group["lr"] = lr
            images_BCHW, soft_B1HW = augment(images_BCHW, soft_B1HW)
            with hardware.autocast():
                logits_B1HW = state.network(images_BCHW.contiguous(memory_format=torch.channels_last))
            # The loss sums over many pixels, which bfloat16 cannot.
            loss = loss_of(logits_B1HW.float(), soft_B1HW)
            state.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if settings.optimiser.clip_norm is not None:
                nn.utils.clip_grad_norm_(parameters, settings.optimiser.clip_norm)
            state.optimiser.step()
            if state.averaged is not None:
                state.averaged.update(state.network)
            state.loss_sum += loss.detach()
            state.step = step + 1

            durations_s.append(time.perf_counter() - began_s)
            if step % LOSS_CHECK_STEPS == 0:
                _refuse_nan(float(loss.detach()), step, run)
            reporter.step(state.step, loss.detach(), batch_size / statistics.median(durations_s))
            if state.step % steps_in_epoch == 0:
                rate = batch_size / statistics.median(durations_s)
                _end_epoch(state, validate, reporter, run, lr, steps_in_epoch, batch_size, rate, sum(durations_s))
                durations_s.clear()
                if _is_patience_over(state, settings):
                    reporter.say(f"no better Dice for {settings.patience} epochs: stopped early")
                    return True
            if interrupt.asked and state.step < total_steps:
                state.save(run)
                return False
            began_s = time.perf_counter()
    return True


def epoch_steps(settings: TrainSettings, photos: int) -> int:
    """Steps in one epoch: every photo once, or as many photos as the settings say, to the nearest full batch."""
    assert settings.batch_size is not None
    return max(1, round((settings.epoch_samples or photos) / settings.batch_size))


def _end_epoch(
    state: TrainingState,
    validate: Validator,
    reporter: RunReporter,
    run: RunFolder,
    lr: float,
    steps_in_epoch: int,
    batch_size: int,
    images_per_s: float,
    train_s: float,
) -> None:
    """Validate, write down, keep the best and the last weights, and checkpoint."""
    train_loss = float(state.loss_sum) / steps_in_epoch
    _refuse_nan(train_loss, state.step - 1, run)
    began_s = time.perf_counter()
    result = validate(state.validated)
    row = EpochRow(
        epoch=state.step // steps_in_epoch,
        step=state.step,
        photos=state.step * batch_size,
        lr=lr,
        train_loss=train_loss,
        dice=result.mean,
        dice_median=result.median,
        dice_worst=result.worst,
        images_per_s=images_per_s,
        train_s=train_s,
        validation_s=time.perf_counter() - began_s,
    )
    state.history.append(row)
    state.loss_sum = torch.zeros_like(state.loss_sum)
    is_best = result.mean > state.best_dice
    if is_best:
        state.best_dice, state.best_epoch = result.mean, row.epoch
    _note_training(state.validated, row, result)
    for which in ("last", "best") if is_best else ("last",):
        run.save_weights(state.validated, which)
    # After the weights: if the machine dies in between, the epoch is done again and nothing is lost.
    state.save(run)
    reporter.epoch(row, state, result)


def _note_training(network: Network, row: EpochRow, result: Validation) -> None:
    notes: dict[str, Any] = {
        "epoch": row.epoch,
        "photos_seen": row.photos,
        "held_out_photos": len(result.dice_of),
        "held_out_dice": round(row.dice, 5),
    }
    network.note_training(notes)


def _is_patience_over(state: TrainingState, settings: TrainSettings) -> bool:
    return settings.patience is not None and len(state.history) - state.best_epoch >= settings.patience


def _refuse_nan(loss: float, step: int, run: RunFolder) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} at step {step}: training has diverged. Start again with a lower --optimiser.lr, with "
            f"--optimiser.clip-norm 1, or with --hardware.precision float32; the last good epoch is in {run.path}"
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
