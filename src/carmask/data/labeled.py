"""Data sets whose truth is in label files: which photo has which labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from carmask.data.layout import (
    VOC_MASKS,
    DatasetError,
    DatasetPaths,
    Layout,
    Problem,
    describe_first,
    index_folder,
    photo_folder,
)
from carmask.labels.match import PhotoNames
from carmask.labels.read import SUFFIXES, Labels, read_labels, read_voc_labels
from carmask.labels.shapes import LabelError, PhotoLabels
from carmask.labels.voc import is_voc

LAYOUT_OF: dict[str, Layout] = {
    "COCO": "coco",
    "LabelMe": "labelme",
    "CVAT": "cvat",
    "Label Studio": "label-studio",
    "YOLO": "yolo",
    "Pascal VOC": "voc",
    "Supervisely": "supervisely",
}


# A mask file, Carvana's run lengths, or labels; None for a photo without a vehicle.
Truth = Path | str | PhotoLabels | None


@dataclass(frozen=True)
class FoundPhotos:
    """Photos of a data set with their truth, by id, and the faults found on the way.

    left_out: number of files among the photos that are neither photos nor labels, by the ending of their names.
    """

    root: Path
    layout: Layout
    found: Mapping[str, tuple[Path, Truth]]
    problems: Sequence[Problem]
    left_out: Mapping[str, int] = field(default_factory=dict)


def find_labeled(source: Path, labels: Sequence[str], ignored: Sequence[str]) -> FoundPhotos | None:
    """Find the label files in a folder, or take the one that is named, and the photos; None if there are none.

    Raises:
        LabelError: see `read_labels`.
        DatasetError: none of the photos is there.
    """
    root = source if source.is_dir() else source.parent
    if not root.is_dir() or not (source.is_dir() or source.suffix.lower() in SUFFIXES):
        return None
    found = read_labels(source, tuple(labels), tuple(ignored))
    return None if found is None else match_labels(root, found)


def find_voc(located: Sequence[DatasetPaths], labels: Sequence[str], ignored: Sequence[str]) -> FoundPhotos | None:
    """Read Pascal VOC's masks in these folders; None if they hold masks of another kind.

    Raises:
        LabelError: the classes do not fit, or classes are named, but masks of this kind have none.
    """
    paths = located[0]
    masks = paths.masks if len(located) == 1 else None
    if masks is not None and masks.name.lower() == VOC_MASKS and is_voc(masks):
        found = read_voc_labels(paths.photos, masks, tuple(labels), tuple(ignored))
        return match_labels(paths.root, found, paths.photos)
    if labels or ignored:
        raise LabelError(f"{paths.root}: its masks have no classes with names; leave out --labels and --ignore-labels")
    return None


def match_labels(root: Path, labels: Labels, photos: Path | None = None) -> FoundPhotos:
    """Give each photo its labels. Two labels of one photo are refused, and so are names that fit several photos.

    photos: their folder; without it images/ (or imgs/, ...) in `root` if there is one, otherwise `root`.

    Raises:
        DatasetError: none of the photos is there.
    """
    folder = photos or photo_folder(root)
    index = index_folder(folder)
    path_of = {path.relative_to(folder).as_posix(): path for paths in index.pictures.values() for path in paths}
    names = PhotoNames(path_of)
    problems = [*index.problems, *(Problem(_below(path, root), "unreadable", why) for path, why in labels.problems)]
    labels_of: dict[str, list[PhotoLabels]] = {}
    for one in labels.photos:
        match names.find(one.photo):
            case []:
                problems.append(
                    Problem(f"{_below(one.file, root)}, {one.photo}", "missing image", "there is no such photo")
                )
            case [name]:
                labels_of.setdefault(name, []).append(one)
            case like_it:
                cause = f"{_below(one.file, root)} may mean any of {', '.join(like_it)}; write folders into it"
                problems.append(Problem(one.photo, "ambiguous", cause))
    found: dict[str, tuple[Path, Truth]] = {}
    for stem, paths in sorted(index.pictures.items()):
        named = {path.relative_to(folder).as_posix(): path for path in paths}
        labeled = {name: labels_of[name] for name in named if name in labels_of}
        several = [one for ones in labeled.values() for one in ones]
        if len(several) > 1:
            files = " and ".join(dict.fromkeys(_below(one.file, root) for one in several))
            problems.append(Problem(stem, "ambiguous", f"has {len(several)} labels, in {files}; keep one"))
        elif several:
            (name,) = labeled
            found[stem] = (named[name], several[0] if several[0].shapes else None)
        else:
            cause = f"no {labels.format} label file names it"
            problems += [Problem(name, "missing mask", cause) for name in named]
    if not found:
        cause = f"{root}: no photo has a label in {labels.format}'s files"
        raise DatasetError(f"{cause}. {describe_first(problems)}", problems)
    left_out = {end: count for end, count in index.left_out.items() if end not in (*SUFFIXES, ".txt")}
    return FoundPhotos(root, LAYOUT_OF[labels.format], found, problems, left_out)


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
