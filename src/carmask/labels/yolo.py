"""YOLO's segmentation labels: data.yaml with the classes, and a text file for each photo, with a line for each polygon.

A line is the class's number and the points, x and y as shares of the photo's width and height. Polygons have no holes:
a line leads to each hole and back. A photo's labels are in labels/ where the photo is in images/.
"""

import os
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel

from carmask.errors import CarmaskError
from carmask.imaging.polygons import find_polygons, joined
from carmask.labels.shapes import (
    LabeledShape,
    LabelError,
    LabelFile,
    PhotoLabels,
    box,
    digest_of,
    files_below,
    polygon,
    validate,
)

_SHARES = (1.0, 1.0)
_SIDES = ("train", "val", "test")
# Some programs write a list of the classes among the labels.
_CLASSES = "classes.txt"


class _Data(BaseModel):
    names: list[str] | dict[int, str]
    path: str | None = None
    train: str | list[str] | None = None
    val: str | list[str] | None = None
    test: str | list[str] | None = None


def is_yolo(path: Path) -> bool:
    """Whether this YAML file describes such a data set."""
    try:
        found = yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return False
    return isinstance(found, dict) and "names" in found and bool({*_SIDES, "path"} & found.keys())


def read_yolo(path: Path, problems: list[tuple[Path, str]]) -> LabelFile:
    """Read the label files of all folders that data.yaml names, or else of labels/ beside it.

    Photos are named without their ending, by their path from the folder of data.yaml.

    Raises:
        LabelError: data.yaml cannot be used, or the labels are in another folder than it.
    """
    data = validate(_Data, yaml.safe_load(path.read_bytes()), path)
    names = data.names if isinstance(data.names, dict) else dict(enumerate(data.names))
    photos: dict[Path, PhotoLabels] = {}
    for folder in _label_folders(path, data):
        for file in sorted(files_below(folder, (".txt",))):
            if file.name == _CLASSES:
                continue
            try:
                content = file.read_bytes()
                shapes = tuple(
                    _read_line(line, names, f"line {number}")
                    for number, line in enumerate(content.decode().splitlines(), start=1)
                    if line.strip()
                )
            except (CarmaskError, OSError, UnicodeDecodeError) as error:
                problems.append((file, str(error)))
                continue
            below = PurePosixPath(_swap(file.relative_to(path.parent), "labels", "images").with_suffix("").as_posix())
            photos[file] = PhotoLabels(file, str(below), "YOLO", digest_of(content), shapes=shapes)
    return LabelFile(list(photos.values()), frozenset(names.values()))


def _label_folders(file: Path, data: _Data) -> list[Path]:
    root = file.parent
    whole = Path(os.path.normpath(root.absolute()))
    # As in Ultralytics, `path` starts from the folder of data.yaml.
    start = Path(os.path.normpath(whole / (data.path or "")))
    is_below = start.is_relative_to(whole)
    found = _folders_from(root / start.relative_to(whole), data) if is_below else []
    found = found or _folders_from(root, data)
    if not found and not is_below and start.is_dir():
        raise LabelError(f"{file}: its `path` leads to {start}; move data.yaml there, and name that folder")
    return found


def _folders_from(root: Path, data: _Data) -> list[Path]:
    named = [getattr(data, side) for side in _SIDES]
    places = [place for one in named if one for place in ([one] if isinstance(one, str) else one)]
    # Exported files often start from a folder of the machine that wrote them, or from one level too high.
    found = [
        _swap(root.joinpath(*(part for part in Path(place).parts if part not in ("..", "."))), "images", "labels")
        for place in places
        if not place.endswith(".txt") and not Path(place).is_absolute()
    ]
    return list(dict.fromkeys(folder for folder in found if folder.is_dir())) or [
        folder for folder in (root / "labels",) if folder.is_dir()
    ]


def _swap(path: Path, old: str, new: str) -> Path:
    """Replace the last folder of this name."""
    parts = list(path.parts)
    at = next((index for index in reversed(range(len(parts))) if parts[index] == old), None)
    if at is None:
        return path
    return Path(*parts[:at], new, *parts[at + 1 :])


def _read_line(line: str, names: dict[int, str], place: str) -> LabeledShape:
    words = line.split()
    try:
        number, shares = int(words[0]), [float(word) for word in words[1:]]
    except ValueError as error:
        raise LabelError(f"{place}: is not a class and shares of the picture ({error})") from error
    if number not in names:
        raise LabelError(f"{place}: data.yaml has no class {number}")
    if len(shares) == 4:
        x, y, width, height = shares
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return box(names[number], *corners, scale_xy=_SHARES)
    try:
        return polygon(names[number], shares, scale_xy=_SHARES)
    except LabelError as error:
        raise LabelError(f"{place}: {error}") from error


def yolo_text(mask_HW: NDArray[np.bool_]) -> str:
    """A label file of a mask: a line for each region."""
    size_xy = np.array(mask_HW.shape[::-1])
    return "".join(
        f"0 {' '.join(f'{share:.6f}' for share in (joined(rings) / size_xy).reshape(-1).tolist())}\n"
        for rings in find_polygons(mask_HW)
    )


def yolo_data(photos: str) -> str:
    """The data.yaml beside labels/; photos: the folder of the photos, from there."""
    content: dict[str, Any] = {"train": photos, "val": photos, "names": {0: "vehicle"}}
    return yaml.safe_dump(content, sort_keys=False)
