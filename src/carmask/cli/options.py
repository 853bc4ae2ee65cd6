"""Options and arguments that several commands have, with the choice of networks and how they run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from carmask.cli.usage import UnknownOption
from carmask.imaging import PictureFormat
from carmask.imaging.look import Anchor, Look, Scale, Shadow, load_look
from carmask.pipeline.kinds import STREAM
from carmask.pipeline.urls import URL, parse_path
from carmask.runtime.options import RunOptions

if TYPE_CHECKING:
    # They bring OpenCV, which a command's help does not wait for.
    from carmask.data.pairs import Dataset
    from carmask.segmenter import Segmenter


def _refuse_option(_: object, path: Path | URL) -> None:
    if str(path).startswith("-") and path != STREAM:
        raise UnknownOption(str(path))


def _parse(_: object, tokens: Sequence[Token]) -> Path | URL:
    return parse_path(tokens[0].value)


# A switch without a --no-... form.
Flag = Annotated[bool, Parameter(negative=())]
# 0 or more.
Count = Annotated[int, Parameter(validator=Number(gte=0))]
BatchSize = Annotated[int, Parameter(alias="-b", validator=Number(gte=1))]
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
        model: Packaged weights (general, the default, for any vehicle in any photo; sharp, which refines the outlines
            of general; fast, for studios and single cars; small; and general-int8, fast-int8, small-int8), an .onnx
            file, a folder of a run, of folds or of weights, or a Hub id (owner/name). If you give several, their
            probabilities are averaged, and sharp refines the result.
        run: Engine, device, precision and threads.
        tta: Test-time augmentation. flip averages each photo with its mirror image, and takes twice the time.
        tile: Also run the network on overlapping tiles of photos that are larger than its input. Takes up to five times
            the time.
        threshold: Pixels of at least this probability belong to the mask. Default: the network's own threshold.
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


@Parameter(name="*")
@dataclass(frozen=True)
class DataOptions:
    """How photos with masks are found in a folder and read; each field is an option of the command line.

    Attributes:
        group_pattern: Regular expression that finds a photo's group in its name. If it has a capture group, that is the
            group.
        foreground: Stored mask value that means foreground, if masks have values other than 0 and one more.
        ignore: Stored mask value that means unknown: pixels that nobody labeled.
        empty: The folder holds only photos without a vehicle, and no masks.
        labels: Classes of label files that are vehicles: car,truck. Default: the classes that COCO's names call
            vehicles, or else the only class.
        ignore_labels: Classes of label files that mean unknown.
    """

    group_pattern: str | None = None
    foreground: int | None = None
    ignore: int | None = None
    empty: bool = False
    labels: str = ""
    ignore_labels: str = ""

    def find(self, data: Path) -> "Dataset":
        """Find the photos and masks. Raises what `find_pairs` raises."""
        from carmask.data.pairs import find_pairs

        return find_pairs(data, **vars(self))


@Parameter(name="*")
@dataclass(frozen=True)
class LookOptions:
    """How cut-outs look; each field is an option of the command line, and replaces what --look says.

    Attributes:
        look: showroom (on the floor of a studio), marketplace (large on white), cutout (cropped, transparent), or a
            YAML file with any of the following options. Makes cut-outs unless you give another --kind.
        format: File format of cut-outs, overlays and comparisons: png; jpg, which has no transparency; webp or avif,
            which are smaller and slower; tiff. Default: by the destination's name, otherwise png.
        quality: Quality of JPEG, WebP and AVIF, 1 to 100. Default: 90.
        strip: Leave the photo's density and EXIF out of pictures. Position and maker notes are left out in any case.
        background: Background of cut-outs: transparent, a color (white, #00ff00), blur, studio, or the path of a
            picture. Default: transparent.
        crop: Crop cut-outs to the box around the vehicle.
        canvas: Place the vehicle on a canvas of this size: 1600x1200.
        margin: Free space around the vehicle on a canvas: a share of the shorter side, or pixels (40). Default: 6%.
        anchor: Where the vehicle is between the margins of a canvas: center (default) or bottom.
        floor: The line of a canvas on which the wheels stand, as a share of its height from the top (0.8).
        scale: fit (default) fills a canvas up to its margins. same-car has one scale for all photos of a car: those in
            one folder, or with names such as name_01 to name_16. It takes a second pass.
        shadow: contact: a soft dark band below wheels and sill. soft: contact, and a wide shadow on the floor.
            original: the photo's own shadow. Default: none.
    """

    look: str | None = None
    format: Annotated[PictureFormat | None, Parameter(alias="-f")] = None
    quality: Annotated[int | None, Parameter(validator=Number(gte=1, lte=100))] = None
    strip: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    background: str | None = None
    crop: Annotated[bool, Parameter(negative=(), show_default=False)] = False
    canvas: str | None = None
    margin: str | None = None
    anchor: Anchor | None = None
    floor: float | None = None
    scale: Scale | None = None
    shadow: Shadow | None = None

    def read(self) -> Look:
        """Return the look that is asked for.

        Raises:
            CarmaskError: there is no such look, or the options contradict each other.
        """
        given = {name: getattr(self, name) for name in Look.model_fields}
        # A switch that is off says nothing.
        settings = {name: value for name, value in given.items() if value is not None and value is not False}
        return (load_look(self.look) if self.look is not None else Look()).changed(settings)
