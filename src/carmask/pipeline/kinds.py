"""The kinds of results, and which kind is meant where none is named. Imports nothing that takes time."""

from pathlib import Path
from typing import Literal

from carmask.errors import CarmaskError
from carmask.imaging import PictureFormat

PhotoKind = Literal["mask", "soft", "cutout", "overlay", "compare", "polygons", "labelme"]
TableKind = Literal["carvana-csv", "coco", "parquet"]
Kind = Literal[PhotoKind, TableKind]

# What stands for standard input or output in place of a path.
STREAM = Path("-")

# Kinds that show the photo, and may be WebP for that; a mask is always PNG.
OF_PHOTO: tuple[Kind, ...] = ("cutout", "overlay", "compare")
JSON_KINDS: tuple[Kind, ...] = ("polygons", "labelme")
TABLE_SUFFIXES: dict[Kind, tuple[str, ...]] = {
    "carvana-csv": (".csv", ".csv.gz"),
    "coco": (".json", ".json.gz"),
    "parquet": (".parquet",),
}


def is_table(kind: Kind) -> bool:
    """Whether all photos have their result in one file."""
    return kind in TABLE_SUFFIXES


def is_picture(kind: Kind) -> bool:
    """Whether results could be taken for photos."""
    return not is_table(kind) and kind not in JSON_KINDS


def choose_kind(kind: Kind | None, destination: Path) -> Kind:
    """Return the kind that is asked for, or that the destination's name means: a mask unless it is a table's.

    Raises:
        CarmaskError: the name may mean several kinds.

    """
    if kind is not None:
        return kind
    name = destination.name.lower()
    if name.endswith(".json"):
        raise CarmaskError(f"{destination}: may be coco, polygons or labelme; say which with --kind")
    return next((table for table, suffixes in TABLE_SUFFIXES.items() if name.endswith(suffixes)), "mask")


def choose_format(picture_format: PictureFormat | None, kind: Kind, destination: Path) -> PictureFormat:
    """Return the format of pictures: as asked for, or as the destination's name says, or PNG.

    Raises:
        CarmaskError: results of this kind are never in that format.

    """
    if picture_format is not None and kind not in OF_PHOTO:
        kinds = ", ".join(OF_PHOTO)
        raise CarmaskError(f"--format {picture_format}: is for {kinds}; {kind} has one format only")
    if picture_format is None:
        picture_format = "webp" if kind in OF_PHOTO and destination.suffix.lower() == ".webp" else "png"
    return picture_format


def result_suffix(kind: Kind, picture_format: PictureFormat) -> str:
    """How the names of results end, for kinds that have one for each photo."""
    return ".json" if kind in JSON_KINDS else f".{picture_format}"
