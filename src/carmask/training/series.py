"""Several runs as one command: a run for each fold, one network at growing sizes, or both.

A series is a list of runs that are made in order, each an ordinary one. What is finished is kept, what was stopped is
resumed, and what has not begun is begun; `models.series_file` says where they lie.
"""

import csv
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
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
from carmask.training import start
from carmask.training.reporter import say
from carmask.training.run import RunFolder
from carmask.training.settings import SettingsError, TrainSettings, merged
from carmask.training.team import Team

# What is one for all stages; the split of later stages is that of the first.
_NOT_BY_STAGE = frozenset({"data", "preset", "network", "config", "name", "runs", "init", "dataset", "stages"})


@dataclass(frozen=True)
class SeriesOutcome:
    """The folder by which a series is called, and whether all its runs are finished."""

    folder: Path
    finished: bool


@dataclass(frozen=True)
class _Part:
    """One run of a series: `after` is whose best weights and split it starts from, `like` whose batch size it takes."""

    folder: Path
    settings: TrainSettings
    after: Path | None = None
    like: Path | None = None


def train_series(
    settings: TrainSettings,
    folds: int | None,
    console: Console | None = None,
    *,
    team: Team | None = None,
    max_minutes: float | None = None,
) -> SeriesOutcome:
    """Train a network for each fold held out, or one network in the stages of its settings, or each fold in stages.

    Args:
        settings: All about the runs. Those of folds are made in the folder `settings.name`; of one network that is the
            run of the last stage.
        folds: The groups of photos are dealt into this many folds; none for one network.
        console: Where it is spoken; the terminal when not given.
        team: The processes that train together; this one alone when not given.
        max_minutes: Stop in order after this time, that of all runs together.

    Raises:
        CarmaskError: data or settings that cannot be used.

    """
    team = team or Team()
    folder, file, record = team.from_first(lambda: _new(settings, folds))
    return _go_on(folder, file, record, console, team, max_minutes)


def resume_series(
    folder: Path, console: Console | None = None, *, team: Team | None = None, max_minutes: float | None = None
) -> SeriesOutcome:
    """Go on with a series that was stopped, as if it had not been; see `train_series`.

    Raises:
        CarmaskError: the folder is of no series, or a run cannot be gone on with.

    """
    team = team or Team()
    file, record = team.from_first(lambda: _existing(folder))
    return _go_on(folder, file, record, console, team, max_minutes)


def train_or_resume_series(
    settings: TrainSettings,
    folds: int | None,
    console: Console | None = None,
    *,
    team: Team | None = None,
    max_minutes: float | None = None,
) -> SeriesOutcome:
    """Begin the series of that name, or go on with it where it was begun: the same command, given until all is done.

    Raises:
        CarmaskError: as `train_series` and `resume_series`; also where the series was begun with other settings.

    """
    team = team or Team()
    # The folder need not be seen by every machine.
    begun = team.from_first(lambda: _begun(settings, folds))
    if begun is None:
        return train_series(settings, folds, console, team=team, max_minutes=max_minutes)
    return resume_series(begun, console, team=team, max_minutes=max_minutes)


def is_series(folder: Path) -> bool:
    """Whether this is the folder of a series: of folds, or of a run in stages, which may not have begun its last."""
    return find_series_file(folder) is not None


def stage_settings(settings: TrainSettings) -> tuple[TrainSettings, ...]:
    """The whole settings of each stage; the settings themselves where there are no stages.

    Raises:
        SettingsError: a stage has a setting that does not exist, cannot have that value, or is one for all stages.

    """
    base = settings.model_dump(exclude={"stages", "config"})
    stages = []
    for number, given in enumerate(settings.stages, 1):
        if fixed := sorted(_NOT_BY_STAGE & given.keys()):
            raise SettingsError(
                f"stage {number}: {', '.join(fixed)} cannot vary by stage; set it once, above all stages"
            )
        try:
            stages.append(TrainSettings.model_validate(merged(base, given)))
        except ValidationError as error:
            raise SettingsError(f"stage {number}: {explain(error, TrainSettings)}") from error
    return tuple(stages) or (settings,)


def _with_folds(settings: TrainSettings, folds: int | None) -> TrainSettings:
    """The settings that the runs of all folds share."""
    if folds is None:
        if not settings.stages:
            raise SettingsError("neither folds nor stages are asked for: that is a single run")
        return settings
    options = settings.dataset
    if folds < 2:
        raise SettingsError(f"folds = {folds}: at least 2 are needed")
    if options.split is not None or options.fraction is not None or options.fold:
        raise SettingsError(
            "folds: every fold is held out in turn; leave dataset.split, dataset.fraction and dataset.fold out"
        )
    return settings.model_copy(update={"dataset": options.model_copy(update={"folds": folds})})


def _new(settings: TrainSettings, folds: int | None) -> tuple[Path, Path, SeriesFile]:
    """The folder of a new series, its file and what it says; that is written."""
    settings = _with_folds(settings, folds)
    stage_settings(settings)
    folder = RunFolder.new(settings).path
    if stages_folder(folder).exists():
        raise SeriesError(
            f"{stages_folder(folder)}: exists already; go on with `carmask train --resume {folder}`, or choose another "
            "--name"
        )
    told = settings.with_absolute_paths().model_dump(mode="json", exclude={"config"})
    record = SeriesFile(folds=folds, settings=told)
    file = (stages_folder(folder) if folds is None else folder) / FILE_NAME
    record.save(file)
    return folder, file, record


def _begun(settings: TrainSettings, folds: int | None) -> Path | None:
    """The folder of the series of that name, where it was begun so; nothing where there is none."""
    if settings.name is None:
        raise SeriesError("--resume auto goes on with the series of a --name, and none is given")
    folder = settings.runs / settings.name
    if not is_series(folder):
        return None
    _, record = _existing(folder)
    changed = [name for name in settings.differences(_settings_of(record)) if name != "dataset.folds" or folds is None]
    if folds != record.folds:
        changed.append("number of folds")
    if changed:
        raise SeriesError(
            f"{folder}: was begun with another {', '.join(changed)}; give the same settings, or another --name"
        )
    return folder


def _existing(folder: Path) -> tuple[Path, SeriesFile]:
    file = find_series_file(folder)
    if file is None:
        raise SeriesError(f"{folder}: not the folder of a series of runs (no {FILE_NAME} in it)")
    return file, SeriesFile.load(file)


def _settings_of(record: SeriesFile) -> TrainSettings:
    try:
        return TrainSettings.model_validate(record.settings)
    except ValidationError as error:
        raise SettingsError(f"{FILE_NAME}: {explain(error, TrainSettings)}") from error


def _parts(folder: Path, record: SeriesFile) -> list[_Part]:
    """All runs, in order."""
    stages = stage_settings(_settings_of(record))
    if record.folds is None:
        return list(_staged(folder, stages))
    parts: list[_Part] = []
    for fold in range(record.folds):
        of_fold = [
            stage.model_copy(update={"dataset": stage.dataset.model_copy(update={"fold": fold})}) for stage in stages
        ]
        like = [part.folder for part in parts[: len(stages)]]
        parts += _staged(folder / fold_name(fold), of_fold, like)
    return parts


def _staged(run: Path, stages: Sequence[TrainSettings], like: Sequence[Path] = ()) -> Iterator[_Part]:
    """The stages of one run, of which the last one has its name."""
    after = None
    for number, settings in enumerate(stages, 1):
        folder = run if number == len(stages) else stages_folder(run) / str(number)
        yield _Part(folder, settings, after, like[number - 1] if like else None)
        after = folder


def _go_on(
    folder: Path, file: Path, record: SeriesFile, console: Console | None, team: Team, max_minutes: float | None
) -> SeriesOutcome:
    began_s = time.monotonic()
    console = (console or Console()) if team.is_first else Console(quiet=True)
    # Names depend on the working folder, which may be another for other processes.
    parts = team.from_first(lambda: {_name_in(file, part): part for part in _parts(folder, record)})
    already = record.finished
    for number, (name, part) in enumerate(parts.items(), 1):
        if name in record.finished:
            continue
        left = team.from_first(lambda: max_minutes and max_minutes - (time.monotonic() - began_s) / 60)
        # However little time there is, a step is made, so that the same command given again comes to an end.
        if left is not None and left <= 0 and record.finished != already:
            return _stopped(folder, record, len(parts), console)
        _say(console, f"run {number} of {len(parts)}")
        try:
            outcome = _make(part, console, team, left)
        except CarmaskError:
            if team.is_first and number == 1 and not part.folder.exists():
                _forget(file)
            raise
        if team.is_first:
            _refuse_changed_folds(folder)
        if not outcome.finished:
            return _stopped(folder, record, len(parts), console)
        record = record.model_copy(update={"finished": (*record.finished, name)})
        if team.is_first:
            record.save(file)
    if record.folds is not None and team.is_first:
        _sum_up(folder, record.settings["data"], console)
    return SeriesOutcome(folder, finished=True)


def _name_in(file: Path, part: _Part) -> str:
    return Path(os.path.relpath(part.folder, file.parent)).as_posix()


def _make(part: _Part, console: Console, team: Team, max_minutes: float | None) -> start.Outcome:
    """Begin a run, or go on with it."""
    if team.from_first(part.folder.exists):
        return start.resume(part.folder, console, team=team, max_minutes=max_minutes)
    settings = team.from_first(lambda: _whole_settings(part))
    return start.train(settings, console, team=team, max_minutes=max_minutes)


def _whole_settings(part: _Part) -> TrainSettings:
    """A run's settings, with what follows from the runs before it."""
    changes: dict[str, Any] = {"runs": part.folder.parent, "name": part.folder.name, "stages": ()}
    if part.after is not None:
        # Also who is held out: nothing that an earlier stage has learned from may be.
        split = RunFolder(part.after).split.absolute()
        changes |= {"init": part.after, "dataset": part.settings.dataset.model_copy(update={"split": split})}
    if part.like is not None and part.settings.batch_size is None:
        changes["batch_size"] = TrainSettings.from_yaml(RunFolder.existing(part.like).config).batch_size
    return part.settings.model_copy(update=changes)


def _refuse_changed_folds(folder: Path) -> None:
    """Stop before another fold is trained where the photos have changed since the first: it would be in vain."""
    begun = [RunFolder(fold) for fold in fold_folders(folder) if fold.is_dir()]
    if len(begun) > 1:
        check_folds({run.path.name: Split.load(run.split) for run in begun})


def _stopped(folder: Path, record: SeriesFile, total: int, console: Console) -> SeriesOutcome:
    _say(console, f"{len(record.finished)} of {total} runs finished; go on with `carmask train --resume {folder}`")
    return SeriesOutcome(folder, finished=False)


def _sum_up(folder: Path, data: Any, console: Console) -> None:
    best = []
    for fold in fold_folders(folder):
        with RunFolder(fold).metrics.open(newline="") as file:
            best.append(max(float(row["dice"]) for row in csv.DictReader(file)))
    _say(console, f"best Dice of the folds {', '.join(f'{dice:.5f}' for dice in best)}; mean {fmean(best):.5f}")
    _say(console, f"measure them together with `carmask evaluate {data} --model {folder}`")


def _forget(file: Path) -> None:
    """Leave nothing behind of a series of which nothing could be made."""
    file.unlink(missing_ok=True)
    with suppress(OSError):
        file.parent.rmdir()


def _say(console: Console, text: str) -> None:
    say(console, f"series    {text}")
