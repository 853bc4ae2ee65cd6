"""Training, from top to bottom: set up, then for each epoch and step learn from a batch, validate, save.

Everything random follows from (seed, step), so a run that is stopped after any step and resumed computes the same
numbers as one that was not.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from carmask.data.cache_build import CacheUnfinished
from carmask.training.checkpoint import EpochMetrics, TrainingState
from carmask.training.config import TrainSettings
from carmask.training.data_loading import Batch, epoch_steps, iterate_batches, seed_step
from carmask.training.distributed import DistributedContext, distributed_errors
from carmask.training.loggers import RunLogger, Throughput
from carmask.training.memory import (
    explain_out_of_memory,
    halve_parts,
    is_out_of_memory,
    keep_freed_memory,
    return_freed_memory,
)
from carmask.training.optimizer import learning_rate
from carmask.training.run_folder import RunFolder
from carmask.training.setup import (
    TrainingSetup,
    create_run_folder,
    open_run,
    print_summary,
    restore_state,
    set_up_training,
)
from carmask.training.stopping import StopRequest, TrainingError
from carmask.training.validation import load_validation_set, validate

# Speed and loss are shown every so many steps.
LOG_STEPS = 10


@dataclass(frozen=True)
class TrainResult:
    """The run's folder, which exists once photos are decoded, and whether the run reached its end or was stopped.

    signaled: a signal asked this process to stop, perhaps too late for a step to be left.
    """

    run: RunFolder
    finished: bool
    signaled: bool = False


@dataclass(frozen=True)
class StepResult:
    """Mean loss over the whole batch, and whether any process asks to stop after this step."""

    loss: float
    stop: bool


def train(
    settings: TrainSettings | None = None,
    *,
    resume: Path | None = None,
    console: Console | None = None,
    distributed: DistributedContext | None = None,
    max_minutes: float | None = None,
    moved_to: Path | None = None,
    epochs: int | None = None,
) -> TrainResult:
    """Train a network, and record everything about it in the run's folder.

    Args:
        settings: Settings of a new run, without stages (see `experiments.run_experiment`).
        resume: Folder of a run to resume instead, with its own settings, as if it had not been stopped.
        console: Where progress is printed. Default: the terminal.
        distributed: The processes that train together. Default: this process alone.
        max_minutes: Stop after this time, with a checkpoint to resume from.
        moved_to: Where the photos of the run to resume are now; they must be the same.
        epochs: New number of epochs of the run to resume, whose learning rate must be constant.

    Raises:
        CarmaskError: data, split, settings or checkpoint cannot be used, or training cannot go on.
    """
    stop = StopRequest(max_minutes)
    distributed = distributed or DistributedContext()
    logger = RunLogger((console or Console()) if distributed.is_main else Console(quiet=True))
    run, settings, split, checkpoint = open_run(settings, resume, distributed, logger, moved_to=moved_to, epochs=epochs)
    logger.run = run if distributed.is_main else None
    try:
        setup, state = set_up_training(settings, distributed, logger, split, stop.is_time_over)
    except CacheUnfinished as error:
        logger.info(f"stopped before the first step: {error}; that is kept for the next time")
        return TrainResult(run, finished=False)
    settings, data = setup.settings, setup.data
    if checkpoint is None:
        create_run_folder(run, setup, state)
    else:
        restore_state(run, setup, state, checkpoint)
    print_summary(run, setup, state)

    assert settings.batch_size is not None
    batch_size, steps_per_epoch = settings.batch_size, epoch_steps(settings, data)
    total_steps = settings.epochs * steps_per_epoch
    part = distributed.batch_slice(batch_size)
    held_out = load_validation_set(data, distributed)
    state.network.train()
    with (
        keep_freed_memory(setup.hardware.device),
        stop.on_signals(),
        logger.running(settings, state.step, steps_per_epoch),
    ):
        for epoch in range(len(state.history) + 1, settings.epochs + 1):
            if is_patience_over(state, settings):
                break
            epoch_end = epoch * steps_per_epoch
            throughput = Throughput(state.step, batch_size)
            # No step is left if the run was stopped between the last step of an epoch and its validation.
            for step, batch in iterate_batches(
                data,
                range(state.step, epoch_end),
                batch_size,
                settings.seed,
                setup.hardware.device,
                part,
                settings.composite,
            ):
                seed_step(settings.seed, step, distributed.rank)
                lr = learning_rate(step, total_steps, settings.optimizer.lr, settings.schedule)
                for group in state.optimizer.param_groups:
                    group["lr"] = lr * group["scale"]
                result = train_step(setup, state, batch, stop)
                state.step = step + 1
                log_step(logger, state, result, throughput, is_last=state.step == epoch_end)
                if result.stop:
                    state.save(run.checkpoint, distributed)
                    logger.info(f"stopped after step {state.step}; go on with `carmask train --resume {run.path}`")
                    return TrainResult(run, finished=False)
                if state.step < epoch_end and time.monotonic() - state.saved_s >= 60 * settings.checkpoint_minutes:
                    state.save(run.checkpoint, distributed)
            if stop.has_deadline:
                # A validation that takes longer than there is time is repeated alone.
                state.save(run.checkpoint, distributed)

            began_s = time.perf_counter()
            validation = validate(state.evaluated_network, held_out, setup.hardware, batch_size, distributed)
            lr = learning_rate(state.step - 1, total_steps, settings.optimizer.lr, settings.schedule)
            metrics = EpochMetrics(
                epoch=epoch,
                step=state.step,
                photos=state.step * batch_size,
                lr=lr,
                train_loss=state.loss_sum / max(1, state.loss_steps),
                dice=validation.mean,
                dice_of_dataset=validation.mean_of_dataset,
                dice_median=validation.median,
                dice_worst=validation.worst,
                images_per_s=state.images_per_s,
                train_s=state.train_s,
                validation_s=time.perf_counter() - began_s,
            )
            is_best = state.finish_epoch(metrics, held_out_photos=len(validation.dice_of) if data.held_out else 0)
            save_weights(run, setup, state, is_best=is_best)
            logger.log_epoch(state.history, validation, data, is_best=is_best)
            # Last of all: if the machine dies before this, the epoch is repeated and nothing is lost.
            state.save(run.checkpoint, distributed)
            if distributed.is_main:
                run.remove_old_weights()
    if distributed.is_main:
        # Once more: a run that was killed while it removed them has no epoch left in which it would.
        run.remove_old_weights()
    print_best(run, setup, state)
    return TrainResult(run, finished=True, signaled=stop.is_signaled)


def train_step(setup: TrainingSetup, state: TrainingState, batch: Batch, stop: StopRequest | None = None) -> StepResult:
    """Learn from this process's part of one batch. Changes `state`; all processes stop after the same step.

    Raises:
        TrainingError: the gradient is not finite twice in a row, or memory runs out and smaller parts do not help.
        DistributedError: another process has ended.
    """
    network, optimizer, scaler = state.network, state.optimizer, state.scaler
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with explain_out_of_memory(state):
        batch = Batch(*setup.augment(*batch))
    # BatchNorm updates its statistics in the forward pass; they are restored if the pass does not count.
    buffers = [buffer.clone() for buffer in network.buffers()]
    with distributed_errors():
        losses_B = None
        while losses_B is None:
            optimizer.zero_grad(set_to_none=True)
            try:
                losses_B = forward_backward(setup, state, batch)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                halve_parts(state, len(batch.images_BCHW), setup.distributed, setup.logger, error)
                restore_buffers(network, buffers)
            if losses_B is None:
                # Not in the handler: while the error is handled, it holds all that the failed pass has computed.
                return_freed_memory(setup.hardware.device)
        wants_stop = stop is not None and stop.is_set()
        loss, stops = setup.distributed.all_reduce_gradients(parameters, (float(losses_B.mean()), float(wants_stop)))
    with explain_out_of_memory(state):
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, setup.settings.optimizer.clip_norm or math.inf)
        if bool(norm.isfinite()):
            scaler.step(optimizer)
            state.skipped_steps = 0
            if state.averaged is not None:
                state.averaged.update_parameters(network)
        else:
            restore_buffers(network, buffers)
            skip_step(setup, state)
        scaler.update()
    return StepResult(loss, stop=stops > 0)


def forward_backward(setup: TrainingSetup, state: TrainingState, batch: Batch) -> Tensor:
    """Compute the gradients of the mean loss, part by part. Returns the loss of each image."""
    losses = []
    for part in batch.chunk(state.accumulate):
        with setup.hardware.autocast():
            logits_B1HW = setup.model(part.images_BCHW.contiguous(memory_format=torch.channels_last))
        # The loss sums over many pixels, for which 16 bits are not enough.
        loss_B = setup.loss_fn(logits_B1HW.float(), part.soft_B1HW, part.known_B1HW)
        state.scaler.scale(loss_B.sum() / len(batch.images_BCHW)).backward()  # type: ignore[no-untyped-call]
        losses.append(loss_B.detach())
    return torch.cat(losses)


@torch.no_grad()
def restore_buffers(network: nn.Module, buffers: list[Tensor]) -> None:
    """Set BatchNorm's running statistics back to those of before the step."""
    for buffer, saved in zip(network.buffers(), buffers, strict=True):
        buffer.copy_(saved)


def skip_step(setup: TrainingSetup, state: TrainingState) -> None:
    """Leave out a step whose gradient is not finite.

    Raises:
        TrainingError: it is the second in a row.
    """
    # Float16 overflows now and then; then the scaler lowers its scale.
    if state.scaler.is_enabled() and state.scaler.get_scale() >= 1:
        return
    state.skipped_steps += 1
    if state.skipped_steps > 1:
        kept = f"; the weights of epoch {len(state.history)} are kept" if state.history else ""
        raise TrainingError(
            f"the gradient is not finite at steps {state.step - 1} and {state.step}: training has diverged. Start "
            "again with a lower --optimizer.lr, with --optimizer.clip-norm 1, or with --hardware.precision float32"
            f"{kept}"
        )
    setup.logger.info(f"warning   the gradient is not finite at step {state.step}: this step is skipped")


def log_step(
    logger: RunLogger, state: TrainingState, result: StepResult, throughput: Throughput, *, is_last: bool
) -> None:
    """Count the loss, and show it and the speed every few steps."""
    if math.isfinite(result.loss):
        state.loss_sum += result.loss
        state.loss_steps += 1
    if state.step % LOG_STEPS == 1 or is_last:
        throughput.end_block(state.step)
        state.images_per_s, state.train_s = throughput.images_per_s, throughput.total_s
        logger.log_loss(state.step, result.loss, throughput.images_per_s)
    logger.log_step(state.step)


def save_weights(run: RunFolder, setup: TrainingSetup, state: TrainingState, *, is_best: bool) -> None:
    """Write the weights that were validated, on rank 0."""
    if setup.distributed.is_main:
        for which in ("last", "best") if is_best else ("last",):
            run.save_weights(state.evaluated_network, which)


def is_patience_over(state: TrainingState, settings: TrainSettings) -> bool:
    """Whether `patience` epochs have passed without a better Dice."""
    return settings.patience is not None and len(state.history) - state.best_epoch >= settings.patience


def print_best(run: RunFolder, setup: TrainingSetup, state: TrainingState) -> None:
    """Print how the run has ended."""
    log = setup.logger.info
    if is_patience_over(state, setup.settings):
        log(f"no better Dice for {setup.settings.patience} epochs: stopped early")
    if state.best_dice == -math.inf:
        log(f"the best weights are lost; the last ones are in {run.weights('last')}")
    else:
        log(f"best Dice {state.best_dice:.5f} in epoch {state.best_epoch}: {run.weights('best')}")
