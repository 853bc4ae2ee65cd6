"""What one command has trained in several runs, and the file that says so. Needs no PyTorch.

RUNS/NAME/series.json           for each fold a run: RUNS/NAME/fold-0, fold-1, ...
RUNS/NAME.stages/series.json    one run in stages: RUNS/NAME.stages/1, 2, ... and at last RUNS/NAME
"""

import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carmask import __version__
from carmask.errors import CarmaskError, explain, first_line
from carmask.files import write_bytes_atomically

FILE_NAME = "series.json"


class SeriesError(CarmaskError):
    """A series of runs that cannot be made, gone on with or used."""


class SeriesFile(BaseModel):
    """What a series is, and how far it has come."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    carmask_version: str = __version__
    folds: int | None = Field(default=None, ge=2, description="so many folds; none where it is the stages of one run")
    finished: tuple[str, ...] = Field(default=(), description="folders of the finished runs, seen from this file")
    settings: dict[str, Any] = Field(description="training settings of the whole")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            SeriesError: unreadable, or something else.

        """
        try:
            return cls.model_validate(json.loads(path.read_bytes()))
        except ValidationError as error:
            raise SeriesError(
                f"{path}: cannot be understood ({explain(error, cls)}); it may be of another version of carmask: "
                "update carmask"
            ) from error
        except (OSError, ValueError) as error:
            raise SeriesError(f"{path}: does not say what series of runs this is ({first_line(error)})") from error

    def save(self, path: Path) -> None:
        """Write readable JSON, never half of it. Raises `UnwritableFile`."""
        write_bytes_atomically(path, (self.model_dump_json(indent=1) + "\n").encode(), fsync=True)


def fold_name(fold: int) -> str:
    """Return the name of a fold's folder; folds are counted from 0."""
    return f"fold-{fold}"


def stages_folder(run: Path) -> Path:
    """Return the folder of the stages before the last one, which is the run itself."""
    # "." and ".." are names that nothing can be added to.
    run = run if run.name.strip(".") else run.resolve()
    return run.with_name(f"{run.name}.stages")


def find_series_file(folder: Path) -> Path | None:
    """Return the file that says of which series this is the folder: of folds, or of a run in stages."""
    places = (folder / FILE_NAME, stages_folder(folder) / FILE_NAME)
    return next((place for place in places if place.is_file()), None)


def fold_folders(folder: Path) -> tuple[Path, ...]:
    """Return the runs of a folder of folds, finished or not; none where it is no such folder.

    Raises:
        SeriesError: damaged.

    """
    series = _read(folder)
    return () if series is None else _fold_folders(folder, series)


def finished_folds(folder: Path) -> tuple[Path, ...]:
    """Return the runs of a folder of folds; none where it is no such folder.

    Raises:
        SeriesError: damaged, or not all folds are finished.

    """
    series = _read(folder)
    if series is None:
        return ()
    folds = _fold_folders(folder, series)
    waiting = [fold.name for fold in folds if fold.name not in series.finished]
    if waiting:
        raise SeriesError(
            f"{folder}: {', '.join(waiting)} of {len(folds)} folds {'are' if len(waiting) > 1 else 'is'} not finished; "
            f"go on with `carmask train --resume {folder}`, or name the run of one fold"
        )
    if gone := [fold.name for fold in folds if not fold.is_dir()]:
        raise SeriesError(f"{folder}: the run of {', '.join(gone)} is gone; copy the whole folder")
    return folds


def _read(folder: Path) -> SeriesFile | None:
    path = folder / FILE_NAME
    return SeriesFile.load(path) if path.is_file() else None


def _fold_folders(folder: Path, series: SeriesFile) -> tuple[Path, ...]:
    return tuple(folder / fold_name(fold) for fold in range(series.folds or 0))
