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


@dataclass(frozen=True)
class Labels:
    """The labels in a file or a folder, of the chosen classes. problems: files that cannot be read, and why."""

    format: str
    photos: list[PhotoLabels]
    problems: list[tuple[Path, str]]


def read_labels(source: Path, labels: tuple[str, ...], ignored: tuple[str, ...]) -> Labels | None:
    """Read the labels in a file, or in a folder and below; None if there are none.

    Raises:
        LabelError: no label can be read, there are several formats, or the classes do not fit; see `choose_labels`.
    """
    root = source if source.is_dir() else source.parent
    found: dict[str, list[tuple[Path, LabelFile]]] = defaultdict(list)
    problems: list[tuple[Path, str]] = []
    for path in files_below(source, SUFFIXES) if source.is_dir() else (source,):
        try:
            format_, file = _read_file(path, root, problems)
        except (CarmaskError, OSError) as error:
            problems.append((path, str(error)))
        else:
            if file is not None:
                found[format_].append((path, file))
    if len(found) > 1:
        listed = ", ".join(f"{format_} ({files[0][0].relative_to(source)})" for format_, files in found.items())
        raise LabelError(f"{source}: holds labels of several formats: {listed}; name one file, or move the others away")
    if found:
        ((format_, files),) = found.items()
        return _choose(format_, [file for _, file in files], source, labels, ignored, problems)
    if problems:
        raise LabelError(problems[0][1])
    if not source.is_dir():
        raise LabelError(f"{source}: is not a label file of a supported format")
    return None


def read_voc_labels(photos: Path, masks: Path, labels: tuple[str, ...], ignored: tuple[str, ...]) -> Labels:
    """As `read_labels`, for the masks of Pascal VOC."""
    return _choose("Pascal VOC", [read_voc(photos, masks)], masks, labels, ignored, [])


def _read_file(path: Path, root: Path, problems: list[tuple[Path, str]]) -> tuple[str, LabelFile | None]:
    """Read one file, and return its format and what it says; None if it is not a label file."""
    match path.suffix.lower():
        case ".json":
            return _read_json(path, root)
        case ".xml":
            document = parse_xml(path)
            is_cvat = document.tag == "annotations"
            return "CVAT", read_cvat(path, document, digest_of(path.read_bytes())) if is_cvat else None
        case _:
            return "YOLO", read_yolo(path, problems) if is_yolo(path) else None


def _read_json(path: Path, root: Path) -> tuple[str, LabelFile | None]:
    data = path.read_bytes()
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LabelError(f"{path}: cannot be read as JSON ({error})") from error
    digest = digest_of(data)
    match _format_of(document, path):
        case "COCO":
            return "COCO", read_coco(path, document, digest)
        case "Label Studio":
            return "Label Studio", read_label_studio(path, document, digest)
        case "LabelMe":
            return "LabelMe", LabelFile([_placed(read_labelme(path, document, digest), path.parent, root)])
        case "Supervisely":
            photo = _placed(read_supervisely(path, document, digest), path.parent.parent.parent, root)
            return "Supervisely", LabelFile([photo])
        case "meta":
            return "Supervisely", LabelFile([], read_classes(path, document))
        case _:
            return "", None


def _placed(photo: PhotoLabels, folder: Path, root: Path) -> PhotoLabels:
    """Name a photo, whose name starts from `folder`, by its path from the root."""
    parts: list[str] = []
    # The root may be a part of Supervisely's project. Then the photo's name has more folders than needed.
    above = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else ""
    for part in PurePosixPath(above, photo.photo).parts:
        if part == ".." and parts:
            parts.pop()
        elif part not in ("..", ".", "/"):
            parts.append(part)
    return replace(photo, photo="/".join(parts))


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
