"""Several runs that belong together: a run per fold, one network in stages, or both; their folders and settings."""

import os
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from carmask.errors import explain
from carmask.models.series_file import (
    FILE_NAME,
    SeriesError,
    SeriesFile,
    find_series_file,
    fold_name,
    stages_folder,
)
from carmask.training.config import SettingsError, TrainSettings, merge
from carmask.training.run_folder import RunFolder

# Settings that are the same for all stages. Later stages use the split of the first.
_NOT_PER_STAGE = frozenset(
    {"data", "preset", "network", "config", "name", "runs", "init", "dataset", "datasets", "stages"}
)


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


def open_series(
    settings: TrainSettings | None, resume: Path | str | None, *, all_folds: bool, moved_to: Path | None = None
) -> Series | None:
    """Read or create the record of a series; None for a single run. `moved_to` is where its photos are now.

    Raises:
        CarmaskError: it cannot be created, or was started with different settings.
    """
    if settings is None:
        folder = Path(resume or "")
        file = find_series_file(folder)
        return None if file is None else Series(folder, file, _with_data(SeriesFile.load(file), moved_to))
    if all_folds:  # train/ and val/ folders would make the same split of every fold
        own = settings.dataset.model_copy(update={"own_split": False})
        settings = settings.model_copy(update={"dataset": own})
    if not all_folds and not settings.stages:
        return None
    file = None if resume is None else find_series_file(named_folder(settings))
    if file is None:
        return create_series(settings, all_folds=all_folds)
    folder = named_folder(settings)
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
    has_split = options.split is not None or any(source.split is not None for source in settings.datasets.values())
    if all_folds and (has_split or options.fraction is not None or options.fold):
        raise SettingsError(
            "--all-folds holds out every fold in turn; remove dataset.fraction, dataset.fold, and the split of dataset "
            "and of datasets"
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


def refuse_changes(folder: Path, changed: Set[str]) -> None:
    """Raise `SettingsError` if settings have changed since the folder was started."""
    if changed:
        names = ", ".join(sorted(changed))
        raise SettingsError(f"{folder}: was started with different {names}; give the same settings, or another --name")


def _with_data(record: SeriesFile, data: Path | None) -> SeriesFile:
    if data is None:
        return record
    return record.model_copy(update={"settings": {**record.settings, "data": str(data.absolute())}})


def _settings_of(record: SeriesFile) -> TrainSettings:
    try:
        return TrainSettings.model_validate(record.settings)
    except ValidationError as error:
        raise SettingsError(f"{FILE_NAME}: {explain(error, TrainSettings)}") from error


def named_folder(settings: TrainSettings) -> Path:
    """Return the folder of the run or the series that `--resume auto` means."""
    if settings.name is None:
        raise SettingsError("--resume auto needs the --name of the run")
    return settings.runs / settings.name
