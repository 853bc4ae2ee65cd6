"""Options and arguments that several commands have, with the choice of networks and how they run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from carmask.pipeline.kinds import STREAM
from carmask.pipeline.urls import URL, parse_path
from carmask.runtime.options import RunOptions

if TYPE_CHECKING:
    # It brings OpenCV, which a command's help does not wait for.
    from carmask.segmenter import Segmenter


def _refuse_option(_: object, path: Path | URL) -> None:
    if str(path).startswith("-") and path != STREAM:
        raise ValueError(f"there is no option {path}; for a file of that name write ./{path}")


def _parse(_: object, tokens: Sequence[Token]) -> Path | URL:
    return parse_path(tokens[0].value)


# A switch without a --no-... form.
Flag = Annotated[bool, Parameter(negative=())]
# 0 or more.
Count = Annotated[int, Parameter(validator=Number(gte=0))]
BatchSize = Annotated[int, Parameter(alias="-b", validator=Number(gte=1))]
# A path, or `-`.
PathOrStream = Annotated[Path, Parameter(allow_leading_hyphen=True, validator=_refuse_option)]
# A path, a URL, or `-`.
Source = Annotated[
    Path | URL,
    Parameter(allow_leading_hyphen=True, validator=_refuse_option, converter=_parse, n_tokens=1, accepts_keys=False),
]


@Parameter(name="*")
@dataclass(frozen=True)
class NetworkOptions:
    """The networks and how they run; each field is an option of the command line.

    Attributes:
        model: Name of weights inside the package (general, any vehicle in any photo, if not given; fast, for studios
            and single cars; small; and general-int8, fast-int8, small-int8), an .onnx file, a folder of a run, of folds
            or of weights, or a Hub id (owner/name); given more than once, their probabilities are averaged.
        run: Engine, device, precision and threads.
        tta: flip averages each photo with its mirror image, at twice the time.
        tile: Look at photos larger than the network sees them also in overlapping tiles, at up to five times the time.
        threshold: A pixel belongs to the mask from this probability on; the network's own if not given.

    """

    model: Annotated[tuple[str, ...], Parameter(alias="-m", negative=(), show_default=False)] = ()
    run: Annotated[RunOptions, Parameter(name="*")] = RunOptions()
    tta: Literal["none", "flip"] = "none"
    tile: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    threshold: float | None = None

    def load(self) -> "Segmenter":
        """Load the networks and start their engines.

        Raises:
            CarmaskError: there is no such network, or it cannot run here with these options.

        """
        from carmask.segmenter import Segmenter

        return Segmenter.load(
            list(self.model) or None, self.run, tta=self.tta, tile=self.tile, threshold=self.threshold
        )
