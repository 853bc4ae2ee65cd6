"""`carmask train`."""

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from carmask.cli import INTERRUPTED
from carmask.cli.options import Flag
from carmask.errors import CarmaskError
from carmask.training.settings import TrainSettings


def train(
    settings: Annotated[TrainSettings | None, Parameter(name="*", consume_multiple=True, negative_iterable=())] = None,
    *,
    resume: str | None = None,
    max_minutes: float | None = None,
    devices: str = "1",
    folds: int | None = None,
    overfit_batch: Flag = False,
) -> int:
    """Train a network on a folder of photos and masks.

    What is not given is taken from --config, then from the preset's recipe, then from the defaults below. The recipe of
    `small` is the one it was published with: the defaults, and nothing varied. Ctrl-C finishes the step, writes a
    checkpoint and says how to go on. Photos that cannot be used are listed in the run's left_out.csv.

    Exit status 0 when the run reached its end, 130 when it was stopped before, by Ctrl-C or by --max-minutes.

    Args:
        settings: All about the run.
        resume: Go on with this run's folder, whose own settings hold; give it alone. Or auto: begin the run of this
            --name, or go on with it where it was begun, so that the same command can be given until all is done.
        max_minutes: Stop in order after so many minutes, to be resumed: when the step, or the photo that is decoded
            before all steps, is done, of which there is one each time. A validation that has begun is not cut short,
            nor what cannot be divided: starting up, finding the photos, checking what was decoded before.
        devices: Processes that train together on this machine: a number, or auto for one on each GPU. Several machines
            are started with torchrun.
        folds: Train one network for each of so many folds, each with another part held out; `carmask evaluate` measures
            every photo by the network that has not seen its car.
        overfit_batch: Self-test: learn a single batch by heart, and write no run. Exit status 1 where that fails.

    """
    # Kept out of `--help`, which has to wait for the settings alone.
    from carmask.training import launch

    _check(settings, resume, max_minutes, folds)
    if overfit_batch:
        if settings is None:
            raise CarmaskError("--overfit-batch tests settings before a run: give it with a folder of photos")
        return _overfit(settings)
    if not launch.is_launched() and (processes := launch.count_devices(devices)) > 1:
        return launch.launch(processes, sys.argv[1:])
    return _train(settings, resume, max_minutes, folds)


def _check(settings: TrainSettings | None, resume: str | None, max_minutes: float | None, folds: int | None) -> None:
    """Refuse what does not go together."""
    if settings is None and resume in (None, "auto"):
        raise CarmaskError("which photos? Name a folder, `carmask train DATA`, or a run, `carmask train --resume RUN`")
    if resume not in (None, "auto") and (settings is not None or folds is not None):
        raise CarmaskError("--resume goes on with the run's own settings: give it alone, or as --resume auto")
    if max_minutes is not None and max_minutes <= 0:
        raise CarmaskError(f"--max-minutes {max_minutes:g}: give a time above 0")
    if folds is not None and folds < 2:
        raise CarmaskError(f"--folds {folds}: give 2 or more")


def _train(settings: TrainSettings | None, resume: str | None, max_minutes: float | None, folds: int | None) -> int:
    from carmask.training import series, start
    from carmask.training.team import TeamError, TeamLost, joined_team

    with joined_team() as team:
        options: dict[str, Any] = {"console": Console(), "team": team, "max_minutes": max_minutes}
        outcome: start.Outcome | series.SeriesOutcome
        try:
            if settings is None:
                folder = Path(str(resume))
                is_series = team.from_first(lambda: series.is_series(folder))
                resume_it = series.resume_series if is_series else start.resume
                outcome = resume_it(folder, **options)
            elif folds is not None or settings.stages:
                make = series.train_or_resume_series if resume is not None else series.train_series
                outcome = make(settings, folds, **options)
            elif resume is not None:
                outcome = start.train_or_resume(settings, **options)
            else:
                outcome = start.train(settings, **options)
        except TeamError as error:
            # Said once is enough. But who would say it may be the one that was lost: so two on each machine say that.
            if not team.is_first and not (isinstance(error, TeamLost) and team.local_rank < 2):
                return 1
            # Who started the processes ends all when one is lost, and this one is at its end and has a word to say.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise
    return 0 if outcome.finished else INTERRUPTED


def _overfit(settings: TrainSettings) -> int:
    from carmask.training.overfit import STEPS, overfit_batch

    console = Console()
    outcome = overfit_batch(settings, console)
    if outcome.passed:
        console.print(f"learned by heart in {outcome.steps} steps: network, loss and data fit together")
        return 0
    raise CarmaskError(
        f"one batch was not learned in {STEPS} steps (Dice {outcome.dice:.3f}): look at the masks with `carmask check "
        f"--sheet`, and try another --optimizer.lr (it is {settings.optimizer.lr:g})"
    )
