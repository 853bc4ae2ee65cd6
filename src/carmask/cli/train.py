"""`carmask train`."""

import os
import signal
import sys
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from carmask.cli import INTERRUPTED
from carmask.cli.options import Flag
from carmask.errors import CarmaskError
from carmask.training.config import TrainSettings


def train(
    settings: Annotated[TrainSettings | None, Parameter(name="*", consume_multiple=True, negative_iterable=())] = None,
    *,
    resume: str | None = None,
    max_minutes: float | None = None,
    devices: str = "1",
    all_folds: Flag = False,
    overfit_batch: Flag = False,
) -> int:
    """Train a network on a folder of photos and masks.

    A setting that is not given is taken from the --config file, then from the preset, then from the defaults below.
    `small` is trained as it was published, with these defaults and no augmentation. Ctrl-C finishes the step, writes a
    checkpoint and prints how to resume. Photos that cannot be used are listed in the run's left_out.csv.

    Exit status 0 if training finished, 130 if it was stopped by Ctrl-C or --max-minutes.

    Args:
        settings: Settings of the run.
        resume: Folder of a run to resume, with its own settings and without other options. Or auto: resume the run of
            this --name if it was started, else start it; so the same command can be repeated until it has finished.
        max_minutes: Stop after this many minutes, with a checkpoint to resume from. The current step is finished first,
            also a validation that has begun.
        devices: Number of processes on this machine, or auto for one per GPU. For several machines use torchrun.
        all_folds: Train a network for each of --dataset.folds folds; `carmask evaluate` then measures every photo with
            the network that was not trained on it.
        overfit_batch: Self-test: train on a single batch, and write no run. Exit status 1 if it is not learned.

    """
    # Not needed for `--help`, and slow to import.
    from carmask.training import launch

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
    if settings is None and resume in (None, "auto"):
        raise CarmaskError("which photos? Name a folder, `carmask train DATA`, or a run, `carmask train --resume RUN`")
    if resume not in (None, "auto") and (settings is not None or all_folds):
        raise CarmaskError("--resume RUN uses the run's own settings: give it alone, or use --resume auto")
    if max_minutes is not None and max_minutes <= 0:
        raise CarmaskError(f"--max-minutes {max_minutes:g}: give a time above 0")


def _train(settings: TrainSettings | None, resume: str | None, max_minutes: float | None, *, all_folds: bool) -> int:
    from carmask.training.distributed import DistributedError, ProcessLostError, init_distributed
    from carmask.training.experiments import run_experiment

    with init_distributed() as distributed:
        try:
            result = run_experiment(
                settings,
                resume=resume,
                all_folds=all_folds,
                console=Console(),
                distributed=distributed,
                max_minutes=max_minutes,
            )
        except DistributedError as error:
            # Rank 0 prints the error. If a process was lost, it may be rank 0, so two on each machine print it.
            if not distributed.is_main and not (isinstance(error, ProcessLostError) and distributed.local_rank < 2):
                return 1
            # The launcher ends all processes when one is lost; this one is about to end and prints the error first.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise
    return 0 if result.finished else INTERRUPTED
