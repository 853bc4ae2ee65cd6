"""The file that describes several runs of one command. Needs no PyTorch.

RUNS/NAME/series.json           a run for each fold: RUNS/NAME/fold-0, fold-1, ...
RUNS/NAME.stages/series.json    one run in stages: RUNS/NAME.stages/1, 2, ... and the last one in RUNS/NAME
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
    """A series of runs that cannot be created, resumed or used."""


class SeriesFile(BaseModel):
    """The settings of a series, and its finished runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    carmask_version: str = __version__
    folds: int | None = Field(default=None, ge=2, description="number of folds; none for the stages of one run")
    finished: tuple[str, ...] = Field(default=(), description="folders of the finished runs, relative to this file")
    settings: dict[str, Any] = Field(description="training settings of the whole")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            SeriesError: it is unreadable or something else.
        """
        try:
            return cls.model_validate(json.loads(path.read_bytes()))
        except (OSError, ValueError) as error:
            cause = explain(error, cls) if isinstance(error, ValidationError) else first_line(error)
            raise SeriesError(
                f"{path}: cannot be understood ({cause}); another version of carmask may have written it: update "
                "carmask, or copy the folder again"
            ) from error

    def save(self, path: Path) -> None:
        """Write readable JSON atomically. Raises `UnwritableFile`."""
        write_bytes_atomically(path, (self.model_dump_json(indent=1) + "\n").encode(), fsync=True)


def fold_name(fold: int) -> str:
    """Return the name of a fold's folder; folds are counted from 0."""
    return f"fold-{fold}"


def stages_folder(run: Path) -> Path:
    """Return the folder of all stages but the last, which is the run itself."""
    # "." and ".." cannot take a suffix.
    run = run if run.name.strip(".") else run.resolve()
    return run.with_name(f"{run.name}.stages")


def find_series_file(folder: Path) -> Path | None:
    """Return the series file of a folder of folds, or of a run in stages; None for any other folder."""
    places = (folder / FILE_NAME, stages_folder(folder) / FILE_NAME)
    return next((place for place in places if place.is_file()), None)


def fold_folders(folder: Path, *, finished: bool = False) -> tuple[Path, ...]:
    """Return the runs of a folder of folds; none for any other folder.

    Raises:
        SeriesError: the series file is damaged; or, with `finished`, a run is not finished or is missing.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return ()
    series = SeriesFile.load(path)
    folds = tuple(folder / fold_name(fold) for fold in range(series.folds or 0))
    waiting = [fold.name for fold in folds if fold.name not in series.finished]
    if finished and waiting:
        raise SeriesError(
            f"{folder}: not finished: {', '.join(waiting)} of {len(folds)} folds; go on with `carmask train --resume "
            f"{folder}`, or name the run of one fold"
        )
    if finished and (missing := [fold.name for fold in folds if not fold.is_dir()]):
        raise SeriesError(f"{folder}: no {', '.join(missing)} in it; copy the whole folder")
    return folds
