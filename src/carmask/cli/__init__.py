"""The command line. Each command is a typed function in its own module, which is imported when the command runs."""

import os
import sys
import warnings
from argparse import ArgumentError, ArgumentParser
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError

from carmask import __version__
from carmask.cli.console import print_error
from carmask.cli.usage import UnknownOption, explain_usage, refuse_unknown_command
from carmask.errors import CarmaskError, explain
from carmask.files import expand_home
from carmask.limits import MAX_PIXELS_VARIABLE, max_pixels

# The exit status of a program that Ctrl-C ended, so that `carmask train ... && carmask evaluate ...` stops, too.
INTERRUPTED = 130


def _shown_default(value: object) -> str | None:
    """Return how `--help` shows the default of an option; None where nothing is the default."""
    return None if value in (None, "", ()) else str(value)


app = App(
    name="carmask",
    help="Cut vehicles out of photographs: train, measure and run U-Net segmentation models.",
    version=__version__,
    result_action="return_value",
    default_parameter=Parameter(show_default=_shown_default),
    help_epilogue="All commands: `--max-pixels INT` refuses pictures with more pixels than this, by default 100000000, "
    "in `serve` 50000000.",
)
# The extra that installs a package; `train` installs those that are not here.
_EXTRAS = {
    **dict.fromkeys(("fastapi", "prometheus_client", "starlette", "uvicorn"), "serve"),
    **dict.fromkeys(("fsspec", "pyarrow", "ray"), "cluster"),
    "av": "video",
}
# Module and class of the settings that a command takes.
_SETTINGS = {
    "train": ("carmask.training.config", "TrainSettings"),
    "check": ("carmask.training.config", "TrainSettings"),
    "serve": ("carmask.serving.settings", "ServiceLimits"),
}
# Module and function of each command, and its line in `carmask --help`.
_COMMANDS = {
    "studio": ("studio:studio", "Render the embedded example data set."),
    "check": ("check:check", "Find every problem in a folder of photos and masks."),
    "split": ("split:split", "Split photos into training and validation sets, by group."),
    "crops": ("crops:crops", "Cut crops along outlines, to train a network that refines them."),
    "train": ("train:train", "Train a network on a folder of photos and masks."),
    "evaluate": ("evaluate:evaluate_command", "Measure a network on photos with masks."),
    "export": ("export:export", "Export a network to one .onnx file that runs without PyTorch."),
    "predict": ("predict:predict", "Cut vehicles out of photos: masks, cut-outs, overlays, tables."),
    "review": ("review:review", "Turn the decisions of a review page into lists or folders."),
    "convert": ("convert:convert", "Convert masks to tables or outlines, and back."),
    "submit": ("submit:submit", "Check a submission to the Carvana challenge."),
    "video": ("video:video", "Cut vehicles out of a video, keeping its sound."),
    "live": ("live:live", "Cut vehicles out of a camera's picture, live."),
    "serve": ("serve:serve", "Run a web page and an HTTP service that cut out photos."),
    "benchmark": ("benchmark:benchmark", "Measure how fast this machine segments photos."),
    "model": ("model:model", "Show a network's layers, parameters and receptive field."),
}
for _name, (_target, _summary) in _COMMANDS.items():
    app.command(f"carmask.cli.{_target}", name=_name, help=_summary)
# It lists the option itself.
app["serve"].help_epilogue = ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with 0 done, 1 error, 2 done except for some files, or 130 interrupted.

    `train` exits with 0 also if photos were left out; left_out.csv in the run's folder lists them.
    """
    # Pillow warns about damaged metadata without naming the file; our own errors name it where it matters.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Names of files may hold characters that the console cannot show.
            stream.reconfigure(errors="backslashreplace")
    arguments = [_expand_home(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]
    command = ""
    try:
        arguments = _set_max_pixels(arguments)
        command = next(iter(arguments), "--help")
        refuse_unknown_command(command, (*_COMMANDS, *app.help_flags, *app.version_flags))
        _show_full_help(arguments)
        returned = app(arguments, exit_on_error=False, print_error=False)
        status = returned if isinstance(returned, int) else 0
    except (CycloptsError, UnknownOption) as error:
        cause = error.__cause__
        if isinstance(cause, ValidationError):
            status = print_error(_explain_settings(cause, command))
        else:
            status = print_error(explain_usage(error, app, command))
    except CarmaskError as error:
        status = print_error(str(error))
    except ValidationError as error:
        status = print_error(_explain_settings(error, command))
    except ImportError as error:
        package = _missing_package(error)
        if package is None:
            raise
        extra = _EXTRAS.get(package, "train")
        status = print_error(f"this needs {package}, which is not installed; run `pip install 'carmask[{extra}]'`")
    except BrokenPipeError:
        # The reader of our output has closed it, as in `carmask predict ... --json | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:
        # A full disk, a name that is too long, a folder without permission, where the command has no error of its own.
        status = print_error(f"{error.filename or 'a file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status)


def _expand_home(argument: str) -> str:
    """Expand `~` in quotes and in `--option=~/file`, which shells leave as they are."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{option}{equals}{expand_home(value)}"


def _set_max_pixels(arguments: list[str]) -> list[str]:
    """Carry out the option that all commands have; returns the other arguments."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--max-pixels")
    try:
        options, others = parser.parse_known_args(arguments)
    except ArgumentError as error:
        raise CarmaskError(f"--max-pixels: {error.message}") from error
    if options.max_pixels is None:
        return arguments
    os.environ[MAX_PIXELS_VARIABLE] = options.max_pixels
    max_pixels()
    # The service has this option itself, with another default.
    return [*others, "--max-pixels", options.max_pixels] if others[:1] == ["serve"] else others


def _show_full_help(arguments: Sequence[str]) -> None:
    """Let `carmask COMMAND --help` show the command's docstring instead of its line in `carmask --help`."""
    if arguments and arguments[0] in _COMMANDS:
        app[arguments[0]].help = None


def _missing_package(error: BaseException | None) -> str | None:
    """Return the name of the third-party package that was not found; the command's import error is caused by it."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("carmask"):
            return error.name.partition(".")[0]
        error = error.__cause__
    return None


def _explain_settings(error: ValidationError, command: str) -> str:
    # Imported for this command alone: the settings of others may need packages that are not installed.
    module, settings = _SETTINGS.get(command, (None, ""))
    model = getattr(import_module(module), settings) if module else None
    # Those of `train` may be in a file.
    return explain(error, model, options_only=command == "serve")
