"""Find out which label files a folder holds, and read them."""

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from carmask.errors import CarmaskError
from carmask.labels.classes import choose_labels
from carmask.labels.coco import read_coco
from carmask.labels.cvat import parse_xml, read_cvat
from carmask.labels.label_studio import read_label_studio
from carmask.labels.labelme import read_labelme
from carmask.labels.shapes import LabelError, LabelFile, PhotoLabels, digest_of, files_below
from carmask.labels.supervisely import read_classes, read_supervisely
from carmask.labels.voc import read_voc
from carmask.labels.yolo import is_yolo, read_yolo

SUFFIXES = (".json", ".xml", ".yaml", ".yml")
# Of files with one photo each; their photos are named by the path from the folder.
_LABELME, _SUPERVISELY = "LabelMe", "Supervisely"


@dataclass(frozen=True)
class Labels:
    """The labels in a file or a folder, of the chosen classes. problems: files that cannot be read, and why."""

    format: str
    photos: list[PhotoLabels]
    problems: list[tuple[Path, str]]


class _LabelReader:
    """Collects what the files of a folder say, by format."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: dict[str, list[LabelFile]] = defaultdict(list)
        self.files: dict[str, Path] = {}
        self.problems: list[tuple[Path, str]] = []

    def read(self, path: Path) -> None:
        """Read one file, if it is a label file."""
        try:
            if path.suffix.lower() == ".xml":
                self._read_xml(path)
            elif path.suffix.lower() == ".json":
                self._read_json(path)
            elif is_yolo(path):
                self._add("YOLO", path, read_yolo(path, self.problems))
        except (CarmaskError, OSError) as error:
            self.problems.append((path, str(error)))

    def _add(self, format_: str, path: Path, found: LabelFile) -> None:
        self.found[format_].append(found)
        self.files.setdefault(format_, path)

    def _read_xml(self, path: Path) -> None:
        root = parse_xml(path)
        if root.tag == "annotations":
            self._add("CVAT", path, read_cvat(path, root, digest_of(path.read_bytes())))

    def _read_json(self, path: Path) -> None:
        data = path.read_bytes()
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise LabelError(f"{path}: cannot be read as JSON ({error})") from error
        digest = digest_of(data)
        match _format_of(document, path):
            case "COCO":
                self._add("COCO", path, read_coco(path, document, digest))
            case "Label Studio":
                self._add("Label Studio", path, read_label_studio(path, document, digest))
            case "LabelMe":
                self._add(_LABELME, path, LabelFile([self._placed(read_labelme(path, document, digest), path.parent)]))
            case "Supervisely":
                photo = self._placed(read_supervisely(path, document, digest), path.parent.parent.parent)
                self._add(_SUPERVISELY, path, LabelFile([photo]))
            case "meta":
                self._add(_SUPERVISELY, path, LabelFile([], read_classes(path, document)))

    def _placed(self, photo: PhotoLabels, folder: Path) -> PhotoLabels:
        """Name a photo, whose name starts from `folder`, by its path from the root."""
        parts: list[str] = []
        # The root may be a part of Supervisely's project. Then the photo's name has more folders than needed.
        above = folder.relative_to(self.root).as_posix() if folder.is_relative_to(self.root) else ""
        for part in PurePosixPath(above, photo.photo).parts:
            if part == ".." and parts:
                parts.pop()
            elif part not in ("..", ".", "/"):
                parts.append(part)
        return replace(photo, photo="/".join(parts))


def read_labels(source: Path, labels: tuple[str, ...], ignored: tuple[str, ...]) -> Labels | None:
    """Read the labels in a file, or in a folder and below; None if there are none.

    Raises:
        LabelError: no label can be read, there are several formats, or the classes do not fit; see `choose_labels`.
    """
    reader = _LabelReader(source if source.is_dir() else source.parent)
    if not source.is_dir():
        reader.read(source)
        if not reader.found:
            cause = reader.problems[0][1] if reader.problems else f"{source}: is not a label file of a supported format"
            raise LabelError(cause)
    else:
        for path in files_below(source, SUFFIXES):
            reader.read(path)
    if len(reader.found) > 1:
        listed = ", ".join(f"{format_} ({path.relative_to(source)})" for format_, path in reader.files.items())
        raise LabelError(f"{source}: holds labels of several formats: {listed}; name one file, or move the others away")
    if reader.found:
        ((format_, files),) = reader.found.items()
        return _choose(format_, files, source, labels, ignored, reader.problems)
    if reader.problems:
        raise LabelError(reader.problems[0][1])
    return None


def read_voc_labels(photos: Path, masks: Path, labels: tuple[str, ...], ignored: tuple[str, ...]) -> Labels:
    """As `read_labels`, for the masks of Pascal VOC."""
    return _choose("Pascal VOC", [read_voc(photos, masks)], masks, labels, ignored, [])


def _choose(
    format_: str,
    files: list[LabelFile],
    where: Path,
    labels: tuple[str, ...],
    ignored: tuple[str, ...],
    problems: list[tuple[Path, str]],
) -> Labels:
    """Keep the shapes of the vehicles' classes."""
    found = set().union(*(file.labels for file in files))
    foreground, unknown = choose_labels(found, labels, ignored, where)
    return Labels(format_, [photo.choose(foreground, unknown) for file in files for photo in file.photos], problems)


def _format_of(document: Any, path: Path) -> str | None:
    """Which format a JSON document has, by its keys; None for any other file."""
    if isinstance(document, list):
        first = document[0] if document else None
        is_tasks = isinstance(first, dict) and "data" in first and bool({"annotations", "predictions"} & first.keys())
        return "Label Studio" if is_tasks else None
    keys = set(document) if isinstance(document, dict) else set()
    if {"images", "annotations", "categories"} <= keys:
        # COCO's folder of annotations also has keypoints of people, of the same photos.
        categories = document["categories"]
        first = categories[0] if isinstance(categories, list) and categories else None
        return None if isinstance(first, dict) and "keypoints" in first else "COCO"
    if {"shapes", "imagePath"} <= keys:
        return "LabelMe"
    if {"objects", "size"} <= keys and path.parent.name == "ann":
        return "Supervisely"
    return "meta" if path.name == "meta.json" and "classes" in keys else None
