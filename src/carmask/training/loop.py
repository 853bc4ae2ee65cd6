"""The training loop, read from top to bottom.

Everything random follows from (seed, step), so a run that is stopped after any step and resumed goes through the same
numbers as one that was not.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from carmask.data.cache import Cache
from carmask.data.pairs import Pair
from carmask.runtime.hardware import Hardware
from carmask.training.batches import BatchReader, batch_indices, harder_indices, seed_step
from carmask.training.history import EpochRow, Pace
from carmask.training.interrupt import Interrupt
from carmask.training.reporter import Reporter
from carmask.training.run import RunFolder
from carmask.training.schedule import learning_rate
from carmask.training.settings import TrainSettings
from carmask.training.state import TrainingState
from carmask.training.step import Outcome, Stepper
from carmask.training.team import Team
from carmask.training.validation import Validator

# The speed is measured and the loss shown every so many steps.
SHOWN_STEPS = 10


@dataclass(frozen=True)
class TrainingData:
    """Cached photos, and which of them are learned from and which are held out."""

    cache: Cache
    train: Sequence[Pair]
    validation: Sequence[Pair]


class Fit:
    """One run from where its state stands to the end."""

    def __init__(
        self,
        state: TrainingState,
        settings: TrainSettings,
        data: TrainingData,
        hardware: Hardware,
        run: RunFolder,
        reporter: Reporter,
        team: Team,
    ) -> None:
        assert settings.batch_size is not None
        self._state, self._settings, self._run, self._reporter, self._team = state, settings, run, reporter, team
        self._batch_size, self._photos = settings.batch_size, len(data.train)
        self._slice = team.slice_of_batch(settings.batch_size)
        self._epoch_steps = epoch_steps(settings, len(data.train))
        self._total_steps = settings.epochs * self._epoch_steps
        self._reader = BatchReader(data.cache, tuple(pair.id for pair in data.train), hardware.device)
        self._stepper = Stepper(state, settings, hardware, team, reporter)
        self._validate = Validator(
            data.validation, data.cache, hardware, settings.batch_size, settings.dataset.foreground, team
        )
        self._saved_s = time.monotonic()

    def __call__(self, *, until_s: float | None = None) -> bool:
        """Train to the end, or until `time.monotonic()` is `until_s`, or a signal asks for it.

        Returns whether the end was reached; if not, a checkpoint says where it stopped.

        Raises:
            TrainingError: the loss is no longer a number, or memory does not suffice.
            TeamError: another process has ended.

        """
        state = self._state
        state.network.train()
        with (
            Interrupt() as interrupt,
            self._reporter.showing(state.step, self._total_steps, self._epoch_steps),
        ):
            while len(state.history) < self._settings.epochs and not self._is_patience_over():
                # A run may have been stopped between the last step of an epoch and its validation.
                if state.step // self._epoch_steps == len(state.history):
                    if self._train_epoch(interrupt, until_s):
                        self._save()
                        return False
                    if until_s is not None:
                        # If the validation takes longer than there is time, that alone is done again.
                        self._save()
                self._end_epoch()
            return True

    def _train_epoch(self, interrupt: Interrupt, until_s: float | None) -> bool:
        """Train to the end of the epoch. Returns whether it was stopped, after its last step or before."""

        def wants_stop() -> bool:
            return interrupt.asked or (until_s is not None and time.monotonic() >= until_s)

        state, settings = self._state, self._settings
        pace = Pace(state.step, self._batch_size)
        last = state.step - state.step % self._epoch_steps + self._epoch_steps
        for step, batch in self._reader.steps(range(state.step, last), self._choose):
            seed_step(settings.seed, step, self._team.rank)
            for group in state.optimizer.param_groups:
                group["lr"] = self._learning_rate(step)
            outcome = self._stepper(batch, vote=wants_stop)
            self._remember(outcome, step)
            state.step = step + 1
            if state.step % SHOWN_STEPS == 1 or state.step == last:
                pace.mark(state.step)
                state.images_per_s, state.train_s = pace.images_per_s, pace.total_s
                self._reporter.loss(state.step, outcome.loss, pace.images_per_s)
            self._reporter.step(state.step)
            if outcome.wants_stop:
                return True
            if time.monotonic() - self._saved_s >= 60 * settings.checkpoint_minutes and state.step < last:
                self._save()
        return False

    def _learning_rate(self, step: int) -> float:
        settings = self._settings
        return learning_rate(step, self._total_steps, settings.optimizer.lr, settings.schedule)

    def _choose(self, step: int) -> NDArray[np.int64]:
        """Places of the photos that this process learns from in a step."""
        return self._all_of(step)[self._slice]

    def _all_of(self, step: int) -> NDArray[np.int64]:
        indices_B = batch_indices(step, self._batch_size, self._photos, self._settings.seed)
        losses_N = self._state.drawn_by_N.numpy()
        return harder_indices(indices_B, step, self._settings.seed, share=self._settings.hard, losses_N=losses_N)

    def _remember(self, outcome: Outcome, step: int) -> None:
        """Take the losses of a step into account, where they are numbers."""
        state = self._state
        if np.isfinite(outcome.loss):
            state.loss_sum += outcome.loss
            state.loss_steps += 1
            if self._settings.hard:
                losses_B = self._team.stack(outcome.losses_B)
                state.photo_losses_N[torch.from_numpy(self._all_of(step))] = losses_B.double().cpu()

    def _end_epoch(self) -> None:
        """Validate, write down, keep the best and the last weights, and checkpoint."""
        state = self._state
        began_s = time.perf_counter()
        result = self._validate(state.validated)
        row = EpochRow(
            epoch=state.step // self._epoch_steps,
            step=state.step,
            photos=state.step * self._batch_size,
            lr=self._learning_rate(state.step - 1),
            train_loss=state.loss_sum / max(1, state.loss_steps),
            dice=result.mean,
            dice_median=result.median,
            dice_worst=result.worst,
            images_per_s=state.images_per_s,
            train_s=state.train_s,
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
        if self._team.is_first:
            for which in ("last", "best") if is_best else ("last",):
                self._run.save_weights(state.validated, which)
        self._reporter.epoch(state.history, result, is_best=is_best)
        # After all else: if the machine dies in between, the epoch is done again and nothing is lost.
        self._save()
        if self._team.is_first:
            self._run.forget_old_weights()
        if self._is_patience_over():
            self._reporter.say(f"no better Dice for {self._settings.patience} epochs: stopped early")

    def _save(self) -> None:
        if self._team.is_first:
            self._state.save(self._run)
        self._saved_s = time.monotonic()

    def _is_patience_over(self) -> bool:
        state, patience = self._state, self._settings.patience
        return patience is not None and len(state.history) - state.best_epoch >= patience


def epoch_steps(settings: TrainSettings, photos: int) -> int:
    """Steps in one epoch: every photo once, or as many photos as the settings say, to the nearest full batch."""
    assert settings.batch_size is not None
    return max(1, round((settings.epoch_samples or photos) / settings.batch_size))
