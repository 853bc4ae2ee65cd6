"""Kinds of results and how they look. Imports nothing slow, so that `--help` stays fast."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from carmask.errors import CarmaskError
from carmask.imaging.look import PLAIN_LOOK, Look

if TYPE_CHECKING:
    from carmask.pipeline.urls import URL

PhotoKind = Literal["mask", "soft", "cutout", "overlay", "compare", "polygons", "labelme", "yolo"]
TableKind = Literal["carvana-csv", "coco", "parquet", "cvat", "label-studio"]
Kind = Literal[PhotoKind, TableKind]

# Standard input or output, where a path is expected.
STREAM = Path("-")

# Kinds that show the photo, in any format of pictures; a mask is always PNG.
OF_PHOTO: tuple[Kind, ...] = ("cutout", "overlay", "compare")
# The settings of a look that all of these have; the others are for cut-outs.
OF_FILE = ("format", "quality", "strip")
TEXT_SUFFIXES: dict[Kind, str] = {"polygons": ".json", "labelme": ".json", "yolo": ".txt"}
TABLE_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "carvana-csv": (".csv", ".csv.gz"),
    "coco": (".json", ".json.gz"),
    "parquet": (".parquet",),
    "cvat": (".xml",),
    "label-studio": (".json",),
}


@dataclass(frozen=True)
class OutputStyle:
    """What a photo's result shows. look: of results that show the photo its format; all of it of cut-outs.

    Raises:
        BadLook: JPEG is to be transparent.
    """

    kind: PhotoKind
    look: Look = PLAIN_LOOK

    def __post_init__(self) -> None:
        if self.kind == "cutout":
            self.look.require_opaque_jpeg()


def refuse_file_options(kind: Kind, options: Iterable[str]) -> None:
    """Refuse options of `OF_FILE` for kinds that have one format.

    Raises:
        CarmaskError: with the names of the options.
    """
    if kind not in OF_PHOTO and (names := " and ".join(options)):
        raise CarmaskError(f"{names}: only for {', '.join(OF_PHOTO)}; {kind} has a single format")


def refuse_cutout_options(kind: Kind, options: Iterable[str]) -> None:
    """Refuse options that only cut-outs have for any other kind.

    Raises:
        CarmaskError: with the names of the options.
    """
    if kind != "cutout" and (names := " and ".join(options)):
        raise CarmaskError(f"{names}: only for cutout, not for {kind}")


def is_table(kind: Kind) -> bool:
    """Whether the results of all photos go into one file."""
    return kind in TABLE_SUFFIXES


def is_picture(kind: Kind) -> bool:
    """Whether results could be mistaken for photos. Label files belong among the photos."""
    return not is_table(kind) and kind not in TEXT_SUFFIXES


def choose_kind(kind: Kind | None, destination: "Path | URL") -> Kind:
    """Return the kind that is asked for; without one, the table that the destination's name means, or a mask.

    Raises:
        CarmaskError: the name may mean several kinds.
    """
    if kind is not None:
        return kind
    name = destination.name.lower()
    if name.endswith(".json"):
        raise CarmaskError(f"{destination}: could be coco, label-studio, polygons or labelme; choose one with --kind")
    return next((table for table, suffixes in TABLE_SUFFIXES.items() if name.endswith(suffixes)), "mask")
