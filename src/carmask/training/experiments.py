"""Everything that one `carmask train` command runs: a single run, or the runs of a series in order.

Finished runs of a series are kept, a stopped one is resumed, the others are started.
"""

import csv
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from carmask.data.split import Split
from carmask.errors import CarmaskError
from carmask.evaluation.folds import check_folds
from carmask.models.series_file import fold_folders
from carmask.progress import say
from carmask.training.config import SettingsError, TrainSettings
from carmask.training.distributed import DistributedContext
from carmask.training.run_folder import RunFolder
from carmask.training.series import Series, complete_settings, named_folder, open_series, plan_runs, refuse_changes
from carmask.training.stopping import StopRequest
from carmask.training.train import train


@dataclass(frozen=True)
class ExperimentResult:
    """The folder to resume, evaluate or predict with, and whether all its runs are finished."""

    folder: Path
    finished: bool


def run_experiment(
    settings: TrainSettings | None = None,
    *,
    resume: Path | str | None = None,
    all_folds: bool = False,
    console: Console | None = None,
    distributed: DistributedContext | None = None,
    max_minutes: float | None = None,
    moved_to: Path | None = None,
    epochs: int | None = None,
) -> ExperimentResult:
    """Start or resume all runs that the settings ask for.

    Args:
        settings: Settings of all runs, with their stages; None to resume a folder.
        resume: Folder to resume, with its own settings. Or "auto": resume `settings.name` if it was started, else start
            it; so the same call can be repeated until everything is finished.
        all_folds: Train a network for each of `dataset.folds` folds, in turn held out.
        console: Where progress is printed; the terminal if not given.
        distributed: The processes that train together; this one alone if not given.
        max_minutes: Stop all runs together after this time, with a checkpoint to resume from.
        moved_to: Where the photos of the folder to resume are now; they must be the same.
        epochs: New number of epochs of a single run to resume; see `train`.

    Raises:
        CarmaskError: data, settings or a folder cannot be used, or training cannot go on.
    """
    stop = StopRequest(max_minutes)
    distributed = distributed or DistributedContext()
    console = (console or Console()) if distributed.is_main else Console(quiet=True)
    # Folders are looked at by rank 0 only: other machines need not see them.
    series = distributed.broadcast_object(lambda: open_series(settings, resume, all_folds=all_folds, moved_to=moved_to))
    if series is not None:
        if epochs is not None:
            raise SettingsError(
                f"{series.folder}: contains several runs, whose number of epochs cannot change; start others from "
                "their weights with --init"
            )
        return run_series(series, console, distributed, stop)
    run = distributed.broadcast_object(lambda: run_to_resume(settings, resume))
    if run is not None and settings is not None:
        # "auto" has found a run: what may differ from its settings is passed on.
        moved_to, epochs, settings = settings.data, settings.epochs, None
    result = train(
        settings,
        resume=run,
        console=console,
        distributed=distributed,
        max_minutes=max_minutes,
        moved_to=moved_to,
        epochs=epochs,
    )
    return ExperimentResult(result.run.path, result.finished)


def run_series(
    series: Series, console: Console, distributed: DistributedContext, stop: StopRequest
) -> ExperimentResult:
    """Start or resume the runs of a series, one after the other."""
    folder, record = series.folder, series.record
    runs = distributed.broadcast_object(lambda: plan_runs(series))
    for number, (name, run) in enumerate(runs.items(), 1):
        if name in record.finished:
            continue
        minutes_left = distributed.broadcast_object(stop.minutes_left)
        # However little time there is, the first run makes a step, so that repeating the command comes to an end.
        if minutes_left is not None and minutes_left <= 0 and record.finished != series.record.finished:
            break
        _say(console, f"run {number} of {len(runs)}")
        try:
            new = distributed.broadcast_object(partial(complete_settings, run))
            result = train(
                new,
                resume=run.folder if new is None else None,
                moved_to=run.settings.data,
                console=console,
                distributed=distributed,
                max_minutes=minutes_left,
            )
        except CarmaskError:
            if distributed.is_main and number == 1 and not run.folder.exists():
                # Leave nothing of a series of which no run could be started.
                series.file.unlink(missing_ok=True)
                with suppress(OSError):
                    series.file.parent.rmdir()
            raise
        if distributed.is_main:
            check_same_photos(folder)
        if not result.finished:
            break
        record = record.model_copy(update={"finished": (*record.finished, name)})
        if distributed.is_main:
            record.save(series.file)
        # It came after the last step, so no step has obeyed it.
        if any(distributed.all_gather_object(result.signaled)):
            break
    finished = runs.keys() <= set(record.finished)
    if not finished:
        counts = f"{len(record.finished)} of {len(runs)} runs finished"
        _say(console, f"{counts}; go on with `carmask train --resume {folder}`")
    elif record.folds is not None and distributed.is_main:
        _print_folds(folder, record.settings["data"], console)
    return ExperimentResult(folder, finished)


def run_to_resume(settings: TrainSettings | None, resume: Path | str | None) -> Path | None:
    """Return the folder of the single run to resume; None to start a new one.

    Raises:
        CarmaskError: it was started with different settings.
    """
    if settings is None or resume is None:
        return None if resume is None else Path(resume)
    folder = named_folder(settings)
    if not folder.exists():
        return None
    started = TrainSettings.from_yaml(RunFolder.existing(folder).config)
    # A batch size that is not given was chosen by free memory.
    wanted = settings.model_copy(update={"batch_size": settings.batch_size or started.batch_size})
    refuse_changes(folder, set(wanted.differences(started)) - {"data", "epochs"})
    return folder


def check_same_photos(folder: Path) -> None:
    """Stop before another fold is trained if the photos have changed since the first: the result could not be used."""
    started = [RunFolder(fold) for fold in fold_folders(folder) if fold.is_dir()]
    if len(started) > 1:
        check_folds({run.path.name: Split.load(run.split) for run in started})


def _print_folds(folder: Path, data: Any, console: Console) -> None:
    best = []
    for fold in fold_folders(folder):
        with RunFolder(fold).metrics.open(newline="") as file:
            best.append(max(float(row["dice"]) for row in csv.DictReader(file)))
    _say(console, f"best Dice of the folds {', '.join(f'{dice:.5f}' for dice in best)}; mean {fmean(best):.5f}")
    _say(console, f"measure them together with `carmask evaluate {data} --model {folder}`")


def _say(console: Console, text: str) -> None:
    say(console, f"series    {text}")
