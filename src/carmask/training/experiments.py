"""Everything that one `carmask train` command runs: a single run, a run per fold, one network in stages, or both.

Several runs are made in order. Finished ones are kept, a stopped one is resumed, the others are started;
`models.series_file` describes their folders.
"""

import csv
import os
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from carmask.data.split import Split
from carmask.errors import CarmaskError, explain
from carmask.evaluation.selection import check_folds
from carmask.models.series_file import (
    FILE_NAME,
    SeriesError,
    SeriesFile,
    find_series_file,
    fold_folders,
    fold_name,
    stages_folder,
)
from carmask.progress import say
from carmask.training.config import SettingsError, TrainSettings, merge
from carmask.training.distributed import DistributedContext
from carmask.training.run_folder import RunFolder
from carmask.training.stopping import StopRequest
from carmask.training.train import train

# Settings that are the same for all stages. Later stages use the split of the first.
_NOT_PER_STAGE = frozenset(
    {"data", "preset", "network", "config", "name", "runs", "init", "dataset", "datasets", "stages"}
)


@dataclass(frozen=True)
class ExperimentResult:
    """The folder to resume, evaluate or predict with, and whether all its runs are finished."""

    folder: Path
    finished: bool


@dataclass(frozen=True)
class Series:
    """Several runs, their folder, and the file that says which of them are finished."""

    folder: Path
    file: Path
    record: SeriesFile


@dataclass(frozen=True)
class PlannedRun:
    """One run of a series.

    It starts from the best weights and with the split of `previous_stage`, and has the batch size of `first_fold`.
    """

    folder: Path
    settings: TrainSettings
    previous_stage: Path | None = None
    first_fold: Path | None = None


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
    series = distributed.broadcast_object(lambda: open_series(settings, resume, all_folds=all_folds, data=moved_to))
    if series is not None:
        if epochs is not None:
            raise SettingsError(
                f"{series.folder}: several runs, whose epochs stay as they were begun with; start others from their "
                "weights with --init"
            )
        return run_series(series, console, distributed, stop)
    run = distributed.broadcast_object(lambda: find_run(settings, resume))
    if run is None:
        result = train(settings, console=console, distributed=distributed, max_minutes=max_minutes)
    else:
        if settings is not None:
            moved_to, epochs = settings.data, settings.epochs
        result = train(
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
    finished = runs.keys() <= set(record.finished)
    if not finished:
        counts = f"{len(record.finished)} of {len(runs)} runs finished"
        _say(console, f"{counts}; go on with `carmask train --resume {folder}`")
    elif record.folds is not None and distributed.is_main:
        _print_folds(folder, record.settings["data"], console)
    return ExperimentResult(folder, finished)


def complete_settings(run: PlannedRun) -> TrainSettings | None:
    """Return the settings to start a run with, as they follow from the runs before it; None if it was started."""
    if run.folder.exists():
        return None
    changes: dict[str, Any] = {"runs": run.folder.parent, "name": run.folder.name, "stages": ()}
    if run.previous_stage is not None:
        # The same split: no photo that an earlier stage was trained on may be held out.
        split = RunFolder(run.previous_stage).split.absolute()
        dataset = run.settings.dataset.model_copy(update={"split": split})
        changes |= {"init": run.previous_stage, "dataset": dataset}
    if run.first_fold is not None and run.settings.batch_size is None:
        changes["batch_size"] = TrainSettings.from_yaml(RunFolder.existing(run.first_fold).config).batch_size
    return run.settings.model_copy(update=changes)


def find_run(settings: TrainSettings | None, resume: Path | str | None) -> Path | None:
    """Return the folder of the single run to resume; None to start a new one.

    Raises:
        CarmaskError: it was started with different settings.

    """
    if settings is None or resume is None:
        return None if resume is None else Path(resume)
    folder = _named_folder(settings)
    if not folder.exists():
        return None
    started = TrainSettings.from_yaml(RunFolder.existing(folder).config)
    # A batch size that is not given was chosen by free memory.
    wanted = settings.model_copy(update={"batch_size": settings.batch_size or started.batch_size})
    refuse_changes(folder, set(wanted.differences(started)) - {"data", "epochs"})
    return folder


def open_series(
    settings: TrainSettings | None, resume: Path | str | None, *, all_folds: bool, data: Path | None = None
) -> Series | None:
    """Read or create the record of a series; None for a single run. `data` is where its photos are now.

    Raises:
        CarmaskError: it cannot be created, or was started with different settings.

    """
    if settings is None:
        folder = Path(resume or "")
        file = find_series_file(folder)
        return None if file is None else Series(folder, file, _with_data(SeriesFile.load(file), data))
    if all_folds:  # train/ and val/ folders would make the same split of every fold
        own = settings.dataset.model_copy(update={"own_split": False})
        settings = settings.model_copy(update={"dataset": own})
    if not all_folds and not settings.stages:
        return None
    file = None if resume is None else find_series_file(_named_folder(settings))
    if file is None:
        return create_series(settings, all_folds=all_folds)
    folder = _named_folder(settings)
    record = SeriesFile.load(file)
    changed = set(settings.differences(_settings_of(record))) - {"data"}
    if all_folds != (record.folds is not None):
        changed.add("--all-folds")
    refuse_changes(folder, changed)
    return Series(folder, file, _with_data(record, settings.data))


def create_series(settings: TrainSettings, *, all_folds: bool) -> Series:
    """Choose the folder of a new series, and write its record.

    Raises:
        CarmaskError: the folder exists, or the settings cannot be used.

    """
    options = settings.dataset
    if all_folds and (options.split is not None or options.fraction is not None or options.fold):
        raise SettingsError(
            "--all-folds holds out every fold in turn; remove dataset.split, dataset.fraction and dataset.fold"
        )
    stage_settings(settings)
    folder = RunFolder.new(settings).path
    if stages_folder(folder).exists():
        raise SeriesError(
            f"{stages_folder(folder)}: exists already; go on with `carmask train --resume {folder}`, or choose another "
            "--name"
        )
    record = SeriesFile(
        folds=options.folds if all_folds else None,
        settings=settings.with_absolute_paths().model_dump(mode="json", exclude={"config"}),
    )
    file = (folder if all_folds else stages_folder(folder)) / FILE_NAME
    record.save(file)
    return Series(folder, file, record)


def refuse_changes(folder: Path, changed: Set[str]) -> None:
    """Raise `SettingsError` if settings have changed since the folder was started."""
    if changed:
        names = ", ".join(sorted(changed))
        raise SettingsError(f"{folder}: was started with different {names}; give the same settings, or another --name")


def check_same_photos(folder: Path) -> None:
    """Stop before another fold is trained if the photos have changed since the first: the result could not be used."""
    started = [RunFolder(fold) for fold in fold_folders(folder) if fold.is_dir()]
    if len(started) > 1:
        check_folds({run.path.name: Split.load(run.split) for run in started})


def stage_settings(settings: TrainSettings) -> tuple[TrainSettings, ...]:
    """Return the complete settings of each stage; the settings themselves if there are no stages.

    Raises:
        SettingsError: a setting of a stage does not exist, has an impossible value, or is the same for all stages.

    """
    base = settings.model_dump(exclude={"stages", "config"})
    stages = []
    for number, given in enumerate(settings.stages, 1):
        if fixed := sorted(_NOT_PER_STAGE & given.keys()):
            raise SettingsError(f"stage {number}: {', '.join(fixed)} cannot change between stages; set it above them")
        try:
            stages.append(TrainSettings.model_validate(merge(base, given)))
        except ValidationError as error:
            raise SettingsError(f"stage {number}: {explain(error, TrainSettings)}") from error
    return tuple(stages) or (settings,)


def plan_runs(series: Series) -> dict[str, PlannedRun]:
    """Plan all runs of a series in order, fold by fold and stage by stage, by their names in the record."""
    folds = series.record.folds
    stages = stage_settings(_settings_of(series.record))
    runs: list[PlannedRun] = []
    for fold in range(folds or 1):
        last = series.folder if folds is None else series.folder / fold_name(fold)
        previous_stage = None
        for number, settings in enumerate(stages):
            folder = last if number == len(stages) - 1 else stages_folder(last) / str(number + 1)
            if folds is not None:
                dataset = settings.dataset.model_copy(update={"fold": fold})
                settings = settings.model_copy(update={"dataset": dataset})
            runs.append(PlannedRun(folder, settings, previous_stage, runs[number].folder if fold else None))
            previous_stage = folder
    # Relative to the record, so that the folder can be moved.
    return {Path(os.path.relpath(run.folder, series.file.parent)).as_posix(): run for run in runs}


def _with_data(record: SeriesFile, data: Path | None) -> SeriesFile:
    if data is None:
        return record
    return record.model_copy(update={"settings": {**record.settings, "data": str(data.absolute())}})


def _settings_of(record: SeriesFile) -> TrainSettings:
    try:
        return TrainSettings.model_validate(record.settings)
    except ValidationError as error:
        raise SettingsError(f"{FILE_NAME}: {explain(error, TrainSettings)}") from error


def _named_folder(settings: TrainSettings) -> Path:
    if settings.name is None:
        raise SettingsError("--resume auto needs the --name of the run")
    return settings.runs / settings.name


def _print_folds(folder: Path, data: Any, console: Console) -> None:
    best = []
    for fold in fold_folders(folder):
        with RunFolder(fold).metrics.open(newline="") as file:
            best.append(max(float(row["dice"]) for row in csv.DictReader(file)))
    _say(console, f"best Dice of the folds {', '.join(f'{dice:.5f}' for dice in best)}; mean {fmean(best):.5f}")
    _say(console, f"measure them together with `carmask evaluate {data} --model {folder}`")


def _say(console: Console, text: str) -> None:
    say(console, f"series    {text}")
