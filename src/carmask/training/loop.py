"""The training loop, read from top to bottom.

Everything random follows from (seed, step), so a run that is stopped after any step and resumed goes through the same
numbers as one that was not.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from carmask.data.augment import Augmenter
from carmask.data.cache import Cache
from carmask.data.pairs import Pair
from carmask.errors import CarmaskError
from carmask.runtime.hardware import Hardware
from carmask.training.batches import BatchReader, seed_step
from carmask.training.history import EpochRow, Pace
from carmask.training.interrupt import Interrupt
from carmask.training.losses import make_loss
from carmask.training.reporter import RunReporter
from carmask.training.run import RunFolder
from carmask.training.schedule import learning_rate
from carmask.training.settings import TrainSettings
from carmask.training.state import TrainingState
from carmask.training.validation import Validator

# The loss is read every so many steps: reading it makes the processor wait for a GPU.
LOSS_READ_STEPS = 10


class TrainingError(CarmaskError):
    """Training cannot go on."""


@dataclass(frozen=True)
class TrainingData:
    """Cached photos, and which of them are learnt from and which are held out."""

    cache: Cache
    train: Sequence[Pair]
    validation: Sequence[Pair]


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
    steps_in_epoch = epoch_steps(settings, len(data.train))
    total_steps = settings.epochs * steps_in_epoch
    reader = BatchReader(data.cache, tuple(pair.id for pair in data.train), hardware.device)
    augment = Augmenter(settings.augment, channels=state.network.config.unet.in_channels)
    loss_of = make_loss(settings.loss)
    validate = Validator(
        data.validation, data.cache, hardware, settings.batch_size, settings.dataset.foreground, reporter.sample_ids
    )
    parameters = list(state.network.parameters())
    state.network.train()

    with Interrupt() as interrupt, reporter.showing(state.step, total_steps, steps_in_epoch):
        pace = Pace(state.step, settings.batch_size)
        for step, (images_BCHW, soft_B1HW) in reader.steps(state.step, total_steps, settings.batch_size, settings.seed):
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
            if settings.optimiser.clip_norm:
                nn.utils.clip_grad_norm_(parameters, settings.optimiser.clip_norm)
            state.optimiser.step()
            if state.averaged is not None:
                state.averaged.update(state.network)
            state.loss_sum += loss.detach()
            state.step = step + 1

            is_epoch_end = state.step % steps_in_epoch == 0
            if state.step % LOSS_READ_STEPS == 1 or is_epoch_end:
                value = float(loss.detach())
                _refuse_nan(value, state, run)
                pace.mark(state.step)
                reporter.loss(state.step, value, pace.images_per_s)
            reporter.step(state.step)
            if is_epoch_end:
                _end_epoch(state, steps_in_epoch, lr, pace, validate, run, reporter)
                pace = Pace(state.step, settings.batch_size)
                if _is_patience_over(state, settings):
                    reporter.say(f"no better Dice for {settings.patience} epochs: stopped early")
                    return True
            if interrupt.asked and state.step < total_steps:
                state.save(run)
                return False
    return True


def epoch_steps(settings: TrainSettings, photos: int) -> int:
    """Steps in one epoch: every photo once, or as many photos as the settings say, to the nearest full batch."""
    assert settings.batch_size is not None
    return max(1, round((settings.epoch_samples or photos) / settings.batch_size))


def _end_epoch(
    state: TrainingState,
    steps_in_epoch: int,
    lr: float,
    pace: Pace,
    validate: Validator,
    run: RunFolder,
    reporter: RunReporter,
) -> None:
    """Validate, write down, keep the best and the last weights, and checkpoint."""
    train_loss = float(state.loss_sum) / steps_in_epoch
    _refuse_nan(train_loss, state, run)
    began_s = time.perf_counter()
    result = validate(state.validated)
    row = EpochRow(
        epoch=state.step // steps_in_epoch,
        step=state.step,
        photos=state.step * pace.batch_size,
        lr=lr,
        train_loss=train_loss,
        dice=result.mean,
        dice_median=result.median,
        dice_worst=result.worst,
        images_per_s=pace.images_per_s,
        train_s=pace.total_s,
        validation_s=time.perf_counter() - began_s,
    )
    is_best = state.end_epoch(row)
    state.validated.note_training(
        {
            "epoch": row.epoch,
            "photos_seen": row.photos,
            "held_out_photos": len(result.dice_of),
            "held_out_dice": round(row.dice, 5),
        }
    )
    for which in ("last", "best") if is_best else ("last",):
        run.save_weights(state.validated, which)
    # After the weights: if the machine dies in between, the epoch is done again and nothing is lost.
    state.save(run)
    reporter.epoch(state.history, result, is_best=is_best)


def _is_patience_over(state: TrainingState, settings: TrainSettings) -> bool:
    return settings.patience is not None and len(state.history) - state.best_epoch >= settings.patience


def _refuse_nan(loss: float, state: TrainingState, run: RunFolder) -> None:
    if not math.isfinite(loss):
        kept = f"; the weights of epoch {len(state.history)} are in {run.path}" if state.history else ""
        raise TrainingError(
            f"the loss is {loss} at step {state.step - 1}: training has diverged. Start again with a lower "
            f"--optimiser.lr, with --optimiser.clip-norm 1, or with --hardware.precision float32{kept}"
        )
