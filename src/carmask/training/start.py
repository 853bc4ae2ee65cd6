"""From settings to a run: begin one, or go on with one."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from carmask.data.augment import AugmentSettings
from carmask.data.cache import CacheUnfinished
from carmask.data.split import Split
from carmask.errors import CarmaskError
from carmask.training.checkpoint import load_checkpoint
from carmask.training.loop import Fit, epoch_steps
from carmask.training.prepare import Ready, prepare
from carmask.training.reporter import Reporter, RunReporter, SilentReporter, say
from carmask.training.run import RunFolder
from carmask.training.settings import TrainSettings
from carmask.training.state import TrainingState
from carmask.training.team import Team
from carmask.training.trackers import check_trackers


@dataclass(frozen=True)
class Outcome:
    """A run's folder, which is there once photos are decoded, and whether the run reached its end or was stopped."""

    run: RunFolder
    finished: bool


def train(
    settings: TrainSettings,
    console: Console | None = None,
    *,
    team: Team | None = None,
    max_minutes: float | None = None,
) -> Outcome:
    """Train a network from the beginning. The run's folder says all about it.

    Args:
        settings: All about the run.
        console: Where it is spoken; the terminal when not given.
        team: The processes that train together; this one alone when not given.
        max_minutes: Stop in order after this time, so that the run can be resumed.

    Raises:
        CarmaskError: data, split or settings that cannot be used.

    """
    if settings.stages:
        raise CarmaskError("settings with stages make several runs: give them to carmask.training.series.train_series")
    until_s = _deadline(max_minutes)
    team = team or Team()
    console = _console_of(team, console)
    # In the words of the first process, for others may have begun in another working folder.
    settings = team.from_first(settings.with_absolute_paths)
    if settings.batch_size is not None:
        team.slice_of_batch(settings.batch_size)
    run = team.from_first(lambda: RunFolder.new(settings))
    if team.is_first:
        check_trackers(settings.trackers)
        _warn_of_no_effect(settings.augment, console)
    try:
        ready = prepare(settings, team, console, until_s=until_s)
    except CacheUnfinished as error:
        return _stopped_before(run, error, console)
    if team.is_first:
        with run.being_made(ready.settings) as made:
            ready.split.save(made.split)
            made.write_left_out(ready.materials.left_out())
            # So that a run that dies in its first epoch can be resumed too.
            ready.state.save(made)
    return _run(ready, run, team, console, until_s)


def resume(
    folder: Path, console: Console | None = None, *, team: Team | None = None, max_minutes: float | None = None
) -> Outcome:
    """Go on with a run that was stopped, as if it had not been; see `train`.

    Raises:
        CarmaskError: the folder is no run, or its data or checkpoint cannot be used.

    """
    until_s = _deadline(max_minutes)
    team = team or Team()
    console = _console_of(team, console)
    run = team.from_first(lambda: RunFolder.existing(folder))
    # The run's folder need not be seen by every machine.
    settings, split = team.from_first(lambda: (TrainSettings.from_yaml(run.config), Split.load(run.split)))
    tell = partial(say, console)
    saved = team.from_first(lambda: load_checkpoint(run.checkpoint, tell))
    team.slice_of_batch(settings.batch_size or team.count)
    if team.is_first:
        check_trackers(settings.trackers)
    try:
        ready = prepare(settings, team, console, split=split, until_s=until_s)
    except CacheUnfinished as error:
        return _stopped_before(run, error, console)
    ready.state.take(run, saved)
    if not team.from_first(lambda: _has_best(run, ready.state, tell)):
        # Of the next validation, in all processes.
        ready.state.best_dice = -math.inf
    if team.is_first:
        run.note_resumption()
    return _run(ready, run, team, console, until_s)


def train_or_resume(
    settings: TrainSettings,
    console: Console | None = None,
    *,
    team: Team | None = None,
    max_minutes: float | None = None,
) -> Outcome:
    """Begin the run of that name, or go on with it where it was begun: the same command, given until all is done.

    Raises:
        CarmaskError: as `train` and `resume`; also where the run was begun with other settings.

    """
    team = team or Team()
    # The run's folder need not be seen by every machine.
    begun = team.from_first(lambda: _begun(settings))
    if begun is None:
        return train(settings, console, team=team, max_minutes=max_minutes)
    return resume(begun, console, team=team, max_minutes=max_minutes)


def _begun(settings: TrainSettings) -> Path | None:
    """The folder of the run of that name, where it was begun with these settings; nothing where there is none."""
    if settings.name is None:
        raise CarmaskError("--resume auto goes on with the run of a --name, and none is given")
    run = RunFolder(settings.runs / settings.name)
    if not run.path.exists():
        return None
    began = TrainSettings.from_yaml(RunFolder.existing(run.path).config)
    changed = [name for name in settings.differences(began) if name != "batch_size" or settings.batch_size is not None]
    if changed:
        raise CarmaskError(
            f"{run.path}: was begun with another {', '.join(changed)}; give the same settings, or another --name"
        )
    return run.path


def _has_best(run: RunFolder, state: TrainingState, tell: Callable[[str], None]) -> bool:
    """Whether the best weights are there, or could be put back."""
    epoch = state.best_epoch
    if not epoch or run.has_best_of(epoch):
        return True
    if state.history[-1].epoch == epoch and state.history[-1].step == state.step:
        # They are what the checkpoint holds.
        run.save_weights(state.validated, "best")
        return True
    tell(
        f"warning   {run.weights('best')}: the best weights, of epoch {epoch}, are missing or damaged, or of an epoch "
        "after the checkpoint; those of the next validation take their place"
    )
    return False


def _stopped_before(run: RunFolder, error: CacheUnfinished, console: Console) -> Outcome:
    """What comes of a run that had no time for a step."""
    say(console, f"stopped before a step: {error}; that is kept for the next time")
    return Outcome(run, finished=False)


def _deadline(max_minutes: float | None) -> float | None:
    return None if max_minutes is None else time.monotonic() + 60 * max_minutes


def _console_of(team: Team, console: Console | None) -> Console:
    return (console or Console()) if team.is_first else Console(quiet=True)


def _run(ready: Ready, run: RunFolder, team: Team, console: Console, until_s: float | None) -> Outcome:
    settings, state, data = ready.settings, ready.state, ready.data
    reporter: Reporter = RunReporter(run, console, settings, data.cache) if team.is_first else SilentReporter()
    _introduce(ready, run, team, reporter)
    finished = Fit(state, settings, data, ready.hardware, run, reporter, team)(until_s=until_s)
    if finished and state.best_dice == -math.inf:
        reporter.say(f"the best weights are lost; the last ones are in {run.weights('last')}")
    elif finished:
        reporter.say(f"best Dice {state.best_dice:.5f} in epoch {state.best_epoch}: {run.weights('best')}")
    else:
        reporter.say(f"stopped after step {state.step}; go on with `carmask train --resume {run.path}`")
    return Outcome(run, finished)


def _warn_of_no_effect(augment: AugmentSettings, console: Console) -> None:
    """Before photos are decoded, which takes long."""
    for probability, sizes in augment.without_effect().items():
        names = ", ".join(f"augment.{size}" for size in sizes)
        one = len(sizes) == 1
        say(
            console,
            f"warning   {names} {'changes' if one else 'change'} nothing while augment.{probability}, "
            f"{'its' if one else 'their'} probability, is 0; give --augment.{probability} 0.5 too",
        )


def _introduce(ready: Ready, run: RunFolder, team: Team, reporter: Reporter) -> None:
    """Say what will be done, before it is."""
    settings, data, state = ready.settings, ready.data, ready.state
    groups, held_groups = (len({pair.group for pair in side}) for side in (data.train, data.validation))
    summary = state.network.summary()
    channels, height, width = summary.input_CHW
    steps = epoch_steps(settings, len(data.train))
    reporter.say(f"run       {run.path}")
    reporter.say(
        f"photos    {len(data.train)} of {groups} groups to learn from, {len(data.validation)} of {held_groups} "
        f"held out; cache {'written' if data.cache.fresh else 'read'}"
    )
    reporter.say(
        f"network   {settings.preset}, {summary.parameters / 1e6:.2f} M parameters, "
        f"{summary.multiply_adds / 1e9:.1f} GMAC, input {channels} x {height} x {width}"
    )
    processes = f", {team.count} processes" if team.count > 1 else ""
    reporter.say(f"device    {ready.hardware.describe()}{processes}")
    reporter.say(
        f"training  {settings.epochs} epochs of {steps} steps of {settings.batch_size} photos, "
        f"{settings.optimizer.name} {settings.optimizer.lr:g} {settings.schedule.name}, {settings.loss.name}"
    )
