"""The options that choose networks and how they run, the same for every command that has them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from carmask.runtime.engine import EngineName, Precision

if TYPE_CHECKING:
    # It brings OpenCV, which a command's help does not wait for.
    from carmask.segmenter import Segmenter


@Parameter(name="*")
@dataclass(frozen=True)
class NetworkOptions:
    """What is run, where and how; each field is an option of the command line."""

    model: Annotated[
        tuple[str, ...],
        Parameter(
            alias="-m",
            negative=(),
            show_default=False,
            help="Name of weights inside the package, an .onnx file, a folder of a run, of folds or of weights, or a "
            "Hub id (owner/name); given more than once, their probabilities are averaged. The packaged 'fast' if not "
            "given.",
        ),
    ] = ()
    engine: Annotated[EngineName, Parameter(help="auto is the fastest that is there.")] = "auto"
    device: Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto"
    precision: Annotated[
        Precision, Parameter(help="auto is what the engine computes fastest; bf16 only where the hardware has it.")
    ] = "auto"
    threads: Annotated[int | None, Parameter(help="CPU threads of the network.")] = None
    tta: Annotated[
        Literal["none", "flip"], Parameter(help="flip averages each photo with its mirror image, at twice the time.")
    ] = "none"
    tile: Annotated[
        bool,
        Parameter(
            negative=(),
            show_default=False,
            help="Look at photos larger than the network sees them also in overlapping tiles, at up to five times the "
            "time.",
        ),
    ] = False
    threshold: Annotated[
        float | None,
        Parameter(help="A pixel belongs to the mask from this probability on; the network's own if not given."),
    ] = None

    @property
    def how(self) -> dict[str, Any]:
        """How the networks run: the keywords of `Segmenter.load`."""
        return {name: value for name, value in vars(self).items() if name != "model"}

    def load(self) -> "Segmenter":
        """Load the networks and start their engines.

        Raises:
            CarmaskError: there is no such network, or what was asked for cannot be had here.

        """
        from carmask.segmenter import Segmenter

        return Segmenter.load(list(self.model) or None, **self.how)
