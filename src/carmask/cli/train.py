"""`carmask train`."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console

from carmask.cli import INTERRUPTED
from carmask.cli.options import Flag
from carmask.errors import CarmaskError
from carmask.training.config import TrainSettings
from carmask.training.preset_defaults import PRESET_DEFAULTS


class _Options(TrainSettings):
    """Settings that are options. DATA is an argument, which a run to resume can do without."""

    data: Annotated[Path, Parameter(parse=False)] = Path()


def train(
    data: Path | None = None,
    *,
    options: Annotated[_Options | None, Parameter(name="*", consume_multiple=True, negative_iterable=())] = None,
    resume: str | None = None,
    max_minutes: float | None = None,
    devices: str = "1",
    all_folds: Flag = False,
    overfit_batch: Flag = False,
) -> int:
    """Train a network on a folder of photos and masks.

    Settings come from the options, then from the --config file, then from the preset, then from the defaults below.
    `small` has these defaults and no augmentation, as it was published. Ctrl-C finishes the step, writes a checkpoint
    and prints how to resume. The run's left_out.csv lists photos that cannot be used.

    The exit status is 0 if training finished, and 130 if Ctrl-C or --max-minutes stopped it.

    Args:
        data: Folder of photos and masks, or the folder that the paths of `datasets` start from.
        options: Settings of the run.
        resume: Folder of a run to resume, with its own settings. You can also give DATA, if the photos were moved, and
            --epochs, if the learning rate does not depend on it. Or auto: resume the run of this --name, or start it if
            there is none. You can repeat this command until the run has finished.
        max_minutes: Stop after this many minutes, with a checkpoint to resume from. A step or a validation that has
            begun is finished first.
        devices: Number of processes on this machine, or auto for one per GPU. For several machines, use torchrun.
        all_folds: Train a network for each of --dataset.folds folds. `carmask evaluate` then measures each photo with
            the network that was not trained on it.
        overfit_batch: Self-test: overfit a single batch, and write no run. The exit status is 1 if this fails.
    """
    # Not needed for `--help`, and slow to import.
    from carmask.training import launch

    settings: TrainSettings | None = options
    if data is not None:
        settings = (options or _Options()).model_copy(update={"data": data})
    _check_options(settings, resume, max_minutes, all_folds=all_folds)
    if overfit_batch:
        if settings is None:
            raise CarmaskError("--overfit-batch tests the settings of a new run: give it a folder of photos")
        from carmask.training import overfit

        overfit.overfit_batch(settings, Console())
        return 0
    # Started as one of several processes, by torchrun or by `launch`, it starts no others.
    if "WORLD_SIZE" not in os.environ and (processes := launch.count_devices(devices)) > 1:
        return launch.launch(processes, sys.argv[1:])
    return _train(settings, resume, max_minutes, all_folds=all_folds)


def _check_options(
    settings: TrainSettings | None, resume: str | None, max_minutes: float | None, *, all_folds: bool
) -> None:
    """Refuse options that exclude each other."""
    is_new = resume in (None, "auto")
    given = set() if settings is None else settings.model_fields_set
    if is_new and "data" not in given:
        raise CarmaskError("which photos? Name a folder, `carmask train DATA`, or a run, `carmask train --resume RUN`")
    if not is_new and (all_folds or (settings is not None and _given_names(settings) - {"data", "epochs"})):
        raise CarmaskError("--resume RUN uses the run's own settings: add only DATA or --epochs, or use --resume auto")
    if max_minutes is not None and max_minutes <= 0:
        raise CarmaskError(f"--max-minutes {max_minutes:g}: give a time above 0")


def _given_names(settings: TrainSettings) -> set[str]:
    """Names of the settings that were given, without those that are the preset's."""
    given = {name: value for name, value in settings.model_dump(exclude_unset=True).items() if value is not None}
    return {name for name, value in given.items() if PRESET_DEFAULTS[settings.preset].get(name) != value}


def _train(settings: TrainSettings | None, resume: str | None, max_minutes: float | None, *, all_folds: bool) -> int:
    from carmask.training.distributed import DistributedError, ProcessLostError, init_distributed
    from carmask.training.experiments import run_experiment

    changes: dict[str, Any] = {}
    if settings is not None and resume not in (None, "auto"):
        given = _given_names(settings)
        changes = {
            "moved_to": settings.data if "data" in given else None,
            "epochs": settings.epochs if "epochs" in given else None,
        }
        settings = None
    with init_distributed() as distributed:
        try:
            result = run_experiment(
                settings,
                resume=resume,
                all_folds=all_folds,
                console=Console(),
                distributed=distributed,
                max_minutes=max_minutes,
                **changes,
            )
        except DistributedError as error:
            # Rank 0 prints the error. If a process was lost, it may be rank 0, so two on each machine print it.
            if not distributed.is_main and not (isinstance(error, ProcessLostError) and distributed.local_rank < 2):
                return 1
            # The launcher ends all processes when one is lost; this one is about to end and prints the error first.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise
    return 0 if result.finished else INTERRUPTED
