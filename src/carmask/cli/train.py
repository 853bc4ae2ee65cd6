"""`carmask train`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from carmask.cli import INTERRUPTED
from carmask.errors import CarmaskError
from carmask.training.settings import TrainSettings


def train(
    settings: Annotated[TrainSettings | None, Parameter(name="*")] = None,
    *,
    resume: Annotated[Path | None, Parameter(help="go on with this run's folder; its own settings hold")] = None,
) -> int:
    """Train a network on a folder of photos and masks.

    What is not given is taken from --config, then from the preset's recipe, then from the defaults below. The recipe of
    `small` is the one it was published with: the defaults, and nothing varied. Ctrl-C finishes the step, writes a
    checkpoint and says how to go on. Photos that cannot be used are listed in the run's left_out.csv.
    """
    # Kept out of `--help`, which has to wait for the settings alone.
    from carmask.training import start

    console = Console()
    if resume is not None:
        if settings is not None:
            raise CarmaskError("--resume goes on with the run's own settings: give it alone")
        outcome = start.resume(resume, console)
    elif settings is not None:
        outcome = start.train(settings, console)
    else:
        raise CarmaskError("which photos? Name a folder, `carmask train DATA`, or a run, `carmask train --resume RUN`")
    return 0 if outcome.finished else INTERRUPTED
