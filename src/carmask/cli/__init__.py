"""The command line: parse, call, print. Each command is a typed function in its own module, imported when called."""

import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from cyclopts import App, CycloptsError
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from carmask import __version__
from carmask.cli.console import plain
from carmask.errors import CarmaskError, explain

# What shells know as the end by Ctrl-C, so that `carmask train ... && carmask evaluate ...` does not go on.
INTERRUPTED = 130

app = App(
    name="carmask",
    help="Cut vehicles out of photographs: train, measure and run U-Net segmentation models.",
    version=__version__,
    result_action="return_value",
)
# What a command needs beyond the core comes with this extra; with `train` where nothing is said.
_EXTRAS = {"serve": "serve"}
# Where the settings stand that a command takes.
_SETTINGS = {
    "train": ("carmask.training.settings", "TrainSettings"),
    "check": ("carmask.training.settings", "TrainSettings"),
    "serve": ("carmask.serving.settings", "Limits"),
}
# Where a command stands, and the line about it in the list of all.
_COMMANDS = {
    "studio": ("studio:studio", "Render the embedded example data set."),
    "check": ("check:check", "Look for every problem in a folder of photos and masks."),
    "split": ("split:split", "Divide photos into training and held-out ones, by group."),
    "train": ("train:train", "Train a network on a folder of photos and masks."),
    "evaluate": ("evaluate:evaluate_command", "Measure a network on photos with masks."),
    "export": ("export:export", "Write a network to one .onnx file, for any machine."),
    "predict": ("predict:predict", "Cut out photos: masks, cut-outs, overlays, tables."),
    "convert": ("convert:convert", "Write masks as tables, outlines or pictures, or back."),
    "submit": ("submit:submit", "Check a submission to the Carvana challenge."),
    "video": ("video:video", "Cut vehicles out of a video, its sound kept."),
    "live": ("live:live", "Cut vehicles out of what a camera sees, as it sees it."),
    "serve": ("serve:serve", "Offer a web page and an HTTP service that cut out photos."),
    "benchmark": ("benchmark:benchmark", "Measure how fast this machine cuts out photos."),
    "model": ("model:model", "Show what a network is made of."),
}
for _name, (_place, _line) in _COMMANDS.items():
    app.command(f"carmask.cli.{_place}", name=_name, help=_line)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 refused or something is wrong, 2 done but for some files, 130 interrupted.

    `train` gives 0 also where photos were left out: its run's left_out.csv lists them.
    """
    # Pillow warns of damaged metadata without naming the file; what it means for a photo is said by our own errors.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    arguments = sys.argv[1:] if arguments is None else arguments
    command = next(iter(arguments), "")
    try:
        _tell_whole_help(arguments)
        outcome = app(arguments, exit_on_error=False, print_error=False)
        status = outcome if isinstance(outcome, int) else 0
    except CarmaskError as error:
        status = _refuse(str(error))
    except ValidationError as error:
        status = _refuse(_explain_settings(error, command))
    except CycloptsError as error:
        cause = error.__cause__
        status = _refuse(_explain_settings(cause, command) if isinstance(cause, ValidationError) else str(error))
    except ImportError as error:
        package = _missing_package(error)
        if package is None:
            raise
        extra = _EXTRAS.get(command, "train")
        status = _refuse(f"this needs {package}, which is not installed; `pip install 'carmask[{extra}]'` brings it")
    except BrokenPipeError:
        # Who reads what we print has seen enough, as in `carmask predict ... --json | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:
        # A full disk, a name that is too long, a folder without permission: what no command has words of its own for.
        status = _refuse(f"{error.filename or 'a file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status)


def _tell_whole_help(arguments: Sequence[str]) -> None:
    """Let a command's own help be its docstring, which the line in the list of commands hides."""
    if arguments and arguments[0] in _COMMANDS:
        app[arguments[0]].help = None


def _missing_package(error: BaseException | None) -> str | None:
    """Name of the package of others that was not found, which lies below the error that the command's import gave."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("carmask"):
            return error.name.partition(".")[0]
        error = error.__cause__
    return None


def _explain_settings(error: ValidationError, command: str) -> str:

    # Those of another command may import what is not installed.
    module, settings = _SETTINGS.get(command, (None, ""))
    return explain(error, getattr(import_module(module), settings) if module else None)


def _refuse(message: str) -> int:
    # A name in the message may hold anything; the lines are ours.
    lines = Text("\n").join(plain(line, "default") for line in message.split("\n"))
    Console(stderr=True).print(Text("error: ", "bold red").append_text(lines), soft_wrap=True)
    return 1
