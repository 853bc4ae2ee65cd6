"""The command line: parse, call, print. Each command is a typed function in its own module, imported when called."""

import sys
import warnings
from collections.abc import Sequence

from cyclopts import App, CycloptsError
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from carmask import __version__
from carmask.cli.console import plain
from carmask.errors import CarmaskError

# What shells know as the end by Ctrl-C, so that `carmask train ... && carmask evaluate ...` does not go on.
INTERRUPTED = 130

app = App(
    name="carmask",
    help="Cut vehicles out of photographs: train, measure and run U-Net segmentation models.",
    version=__version__,
    result_action="return_value",
)
app.command("carmask.cli.studio:studio", name="studio", help="Render the embedded example data set.")
app.command("carmask.cli.check:check", name="check", help="Look for every problem in a folder of photos and masks.")
app.command("carmask.cli.split:split", name="split", help="Divide photos into training and held-out ones, by group.")
app.command("carmask.cli.train:train", name="train", help="Train a network on a folder of photos and masks.")
app.command("carmask.cli.evaluate:evaluate_command", name="evaluate", help="Measure a network on photos with masks.")
app.command("carmask.cli.export:export", name="export", help="Write a network to one .onnx file, for any machine.")
app.command("carmask.cli.predict:predict", name="predict", help="Cut out photos: masks, cut-outs, overlays, tables.")
app.command("carmask.cli.convert:convert", name="convert", help="Write masks as tables, outlines or pictures, or back.")
app.command("carmask.cli.submit:submit", name="submit", help="Check a submission to the Carvana challenge.")
app.command("carmask.cli.video:video", name="video", help="Cut vehicles out of a video, its sound kept.")
app.command("carmask.cli.live:live", name="live", help="Cut vehicles out of what a camera sees, as it sees it.")
app.command("carmask.cli.benchmark:benchmark", name="benchmark", help="Measure how fast this machine cuts out photos.")
app.command("carmask.cli.model:model", name="model", help="Show what a network is made of.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 refused or something is wrong, 2 done but for some files, 130 interrupted.

    `train` gives 0 also where photos were left out: its run's left_out.csv lists them.
    """
    # Pillow warns of damaged metadata without naming the file; what it means for a photo is said by our own errors.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        outcome = app(arguments, exit_on_error=False, print_error=False)
        status = outcome if isinstance(outcome, int) else 0
    except CarmaskError as error:
        status = _refuse(str(error))
    except ValidationError as error:
        status = _refuse(_explain_settings(error))
    except CycloptsError as error:
        cause = error.__cause__
        status = _refuse(_explain_settings(cause) if isinstance(cause, ValidationError) else str(error))
    except ImportError as error:
        package = _missing_package(error)
        if package is None:
            raise
        status = _refuse(f"this needs {package}, which is not installed; `pip install 'carmask[train]'` brings it")
    except OSError as error:
        # A full disk, a name that is too long, a folder without permission: what no command has words of its own for.
        status = _refuse(f"{error.filename or 'a file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status)


def _missing_package(error: BaseException | None) -> str | None:
    """Name of the package of others that was not found, which lies below the error that the command's import gave."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("carmask"):
            return error.name.partition(".")[0]
        error = error.__cause__
    return None


def _explain_settings(error: ValidationError) -> str:
    from carmask.training.settings import explain

    return explain(error)


def _refuse(message: str) -> int:
    # A name in the message may hold anything; the lines are ours.
    lines = Text("\n").join(plain(line, "default") for line in message.split("\n"))
    Console(stderr=True).print(Text("error: ", "bold red").append_text(lines), soft_wrap=True)
    return 1
