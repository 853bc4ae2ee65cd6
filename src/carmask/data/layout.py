"""Recognize the layout of a data set's folders, and list their files. Three layouts have mask files.

`carvana`, as Kaggle's archives unzip::

    train/<car>_<view>.jpg          (or train_hq/; if both exist, train/ is read)
    train_masks/<car>_<view>_mask.gif
    train_masks.csv                 optional; its run lengths replace mask files that are missing

`folders`, anything else::

    images/<any>/<stem>.<suffix>    (or imgs/, im/, JPEGImages/)
    masks/<any>/<stem>.<suffix>     (or gt/, SegmentationClass/; <stem>_mask.<suffix>)
    no_vehicle/<any>/<stem>.<suffix>    optional: photos without a vehicle, which have no mask

`folders` once for each side of a split, whose name begins the ids::

    train/images/   train/masks/    (or train/ or train_images/ with train_masks/)
    val/images/     val/masks/      (or valid/, test/, ...)

Any other folder may have label files, for which `carmask.data.labeled` looks.

Every folder is listed once, and names are only compared, so that they may contain any character.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from carmask.errors import CarmaskError
from carmask.files import as_valid_text, is_hidden_file, unlistable, walk_files
from carmask.imaging.decode import IMAGE_SUFFIXES

ProblemKind = Literal[
    "missing mask",
    "missing image",
    "ambiguous",
    "unreadable",
    "size mismatch",
    "empty mask",
    "full mask",
    "odd mask values",
    "inverted masks",
    "turned mask",
    "duplicate picture",
    "duplicate across split",
    "split",
]
Layout = Literal["carvana", "folders", "coco", "labelme", "cvat", "label-studio", "yolo", "voc", "supervisely"]
Side = Literal["train", "validation", "test"]

CARVANA_CSV = "train_masks.csv"
MASK_ENDING = "_mask"
EMPTY_PHOTOS = "no_vehicle"
_CARVANA_PHOTOS = ("train", "train_hq")
VOC_MASKS = "segmentationclass"
_FOLDER_PHOTOS = ("images", "imgs", "im", "jpegimages")
_FOLDER_MASKS = ("masks", "gt", VOC_MASKS)
# With a side's name before them: train_images/ and train_masks/, or train/ and trainannot/.
_SIDE_PHOTOS = ("", "_images", "_imgs")
_SIDE_MASKS = ("_masks", "_mask", "annot")
_SIDES: dict[Side, str] = {"train": "train(ing)?", "validation": "val|valid(ation)?|dev", "test": "test(ing)?"}
_SUPPORTED = (
    "Supported are Carvana's layout (train/ or train_hq/ with train_masks/ or train_masks.csv) and two folders "
    "with the same file names (images/, imgs/, im/ or JPEGImages/ with masks/, gt/ or SegmentationClass/), also once "
    "in train/ and once in val/; and label files of COCO, LabelMe, CVAT, Label Studio, YOLO, Pascal VOC and Supervisely"
)


@dataclass(frozen=True)
class Problem:
    """A fault of one file or one pair of a data set. `subject` is the file, or the pair's id."""

    subject: str
    kind: ProblemKind
    detail: str


def in_order(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sort problems by what they are of, and by their kind."""
    return tuple(sorted(problems, key=lambda problem: (problem.subject, problem.kind)))


def describe_first(problems: Sequence[Problem]) -> str:
    """Describe the first three problems, and how many more there are."""
    first = "; ".join(f"{problem.subject}: {problem.kind}, {problem.detail}" for problem in problems[:3])
    return first + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")


class DatasetError(CarmaskError):
    """There is no readable data set. `problems` lists the faults found until then."""

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


@dataclass(frozen=True)
class DatasetPaths:
    """The folders of photos, masks and photos without a vehicle of a data set, and Carvana's table of run lengths.

    `prefix` begins the ids, "train/" for one side of several.
    """

    root: Path
    layout: Layout
    photos: Path
    masks: Path | None = None
    csv: Path | None = None
    empty: Path | None = None
    prefix: str = ""


@dataclass(frozen=True)
class FileIndex:
    """The files in one folder and below, by relative path without suffix; pictures and other files apart."""

    pictures: dict[str, list[Path]]
    others: dict[str, list[Path]]
    problems: list[Problem]

    @property
    def left_out(self) -> Counter[str]:
        """How many of the other files there are, by the ending of their names in lower case."""
        return Counter(path.suffix.lower() for paths in self.others.values() for path in paths)


def locate_dataset(root: Path) -> list[DatasetPaths]:
    """Find the data set in `root`, or in the only folder of `root` that holds one; each side of a split for itself.

    Raises:
        DatasetError: there is no data set of a supported layout, or more than one.
    """
    _require_folder(root)
    found = _locate_in(root)
    if found:
        return found
    entries = _list_folder(root)
    below = [_locate_or_none(folder) for _, folder in sorted(entries.items()) if folder.is_dir()]
    datasets = [paths for paths in below if paths]
    if len(datasets) == 1:
        return datasets[0]
    if datasets:
        names_found = ", ".join(paths[0].root.name for paths in datasets)
        raise DatasetError(f"{root}: holds several data sets ({names_found}); name one of them")
    names = [path.name + ("/" if path.is_dir() else "") for path in sorted(entries.values())]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    shown = ", ".join(names[:8]) + more or "nothing"
    above = root.resolve().parent
    hint = f". The folder above, {above}, is one: name that" if _locate_or_none(above) else ""
    raise DatasetError(f"{root}: no data set of a supported layout. Found here: {shown}. {_SUPPORTED}{hint}")


def photo_folder(root: Path) -> Path:
    """Return images/ (or imgs/, ...) in `root` if there is one, otherwise `root` itself."""
    folders = {name: path for name, path in _list_folder(root).items() if path.is_dir()}
    return next((folders[name] for name in _FOLDER_PHOTOS if name in folders), root)


def has_masks(root: Path) -> bool:
    """Whether `locate_dataset` finds one in `root`."""
    try:
        return bool(locate_dataset(root))
    except DatasetError:
        return False


def locate_empty(root: Path) -> Path:
    """Return the folder of photos without a vehicle: images/ or imgs/ in `root`, or else `root` itself.

    Raises:
        DatasetError: `root` is no folder, or holds masks.
    """
    _require_folder(root)
    if _locate_or_none(root):
        raise DatasetError(f"{root}: contains masks, so it cannot be a folder of photos without a vehicle")
    return photo_folder(root)


def index_folder(folder: Path) -> FileIndex:
    """List a folder and all folders below it, without hidden files and those that file managers leave behind.

    Raises:
        DatasetError: a folder cannot be listed.
    """
    index = FileIndex({}, {}, [])
    for path, names in walk_files(folder, on_error=_refuse_unlistable):
        below = path.relative_to(folder)
        for name in names:
            relative = PurePosixPath(below, name)
            if (readable := as_valid_text(relative)) != str(relative):
                index.problems.append(Problem(readable, "unreadable", "its name is not valid UTF-8; rename it"))
                continue
            files = index.pictures if relative.suffix.lower() in IMAGE_SUFFIXES else index.others
            files.setdefault(str(relative.with_suffix("")), []).append(path / name)
    return index


def side_of(name: str) -> Side | None:
    """Return the side of a split that a folder or list of this name holds, such as "train", "Val" or "test2017"."""
    return next(
        (side for side, names in _SIDES.items() if re.fullmatch(rf"({names})([-_]?(set|\d{{4}}))?", name.lower())), None
    )


def _locate_in(root: Path) -> list[DatasetPaths]:
    entries = _list_folder(root)
    folders = {name: path for name, path in entries.items() if path.is_dir()}
    if flat := _locate_flat(root, folders):
        return [flat]
    if sides := _locate_sides(root, folders):
        return sides
    masks = folders.get("train_masks")
    csv = entries.get(CARVANA_CSV)
    if csv and csv.is_dir():  # some unzip programs make a folder of the archive's name
        csv = _list_folder(csv).get(CARVANA_CSV)
    for name in _CARVANA_PHOTOS:
        if name in folders and (masks or csv):
            return [DatasetPaths(root, "carvana", _unnest(folders[name]), _unnest(masks) if masks else None, csv)]
    return []


def _locate_flat(root: Path, folders: dict[str, Path]) -> DatasetPaths | None:
    """Find photos and masks in two of these folders, which are listed by lower-case name."""
    photos, masks = ([folders[name] for name in names if name in folders] for names in (_FOLDER_PHOTOS, _FOLDER_MASKS))
    if not photos or not masks:
        return None
    for several, what in ((photos, "photos"), (masks, "masks")):
        if len(several) > 1:
            named = " and ".join(f"{path.name}/" for path in several)
            raise DatasetError(f"{root}: has {named}, and only one can hold the {what}; move one of them away")
    return DatasetPaths(root, "folders", photos[0], masks[0], empty=folders.get(EMPTY_PHOTOS))


def _locate_sides(root: Path, folders: dict[str, Path]) -> list[DatasetPaths]:
    """Find photos and masks of each side of a split; nothing unless there are some to train on and others."""
    found: dict[str, DatasetPaths] = {}
    for name, folder in folders.items():
        stem = re.sub("_im(age|g)s$", "", name)
        if side_of(stem) is None or stem in found:
            continue
        inner = {key: path for key, path in _list_folder(folder).items() if path.is_dir()}
        photos = next((folders[stem + end] for end in _SIDE_PHOTOS if stem + end in folders), None)
        masks = next((folders[stem + end] for end in _SIDE_MASKS if stem + end in folders), None)
        if paths := _locate_flat(folder, inner):
            found[stem] = replace(paths, root=root, prefix=f"{folder.name}/")
        elif photos and masks:
            found[stem] = DatasetPaths(root, "folders", _unnest(photos), _unnest(masks), prefix=f"{stem}/")
    sides = {side_of(name) for name in found}
    return list(found.values()) if "train" in sides and len(sides) > 1 else []


def _require_folder(root: Path) -> None:
    if not root.is_dir():
        raise DatasetError(f"{root}: {'is a file' if root.exists() else 'does not exist'}; a data set is a folder")


def _locate_or_none(root: Path) -> list[DatasetPaths]:
    """As `_locate_in`, for folders that the user did not name and whose faults are not reported."""
    try:
        return _locate_in(root)
    except DatasetError:
        return []


def _list_folder(folder: Path) -> dict[str, Path]:
    """Return the entries of a folder by lower-case name, as `index_folder` lists them."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DatasetError(unlistable(error)) from error
    return {path.name.lower(): path for path in entries if not is_hidden_file(path.name)}


def _unnest(folder: Path) -> Path:
    """Return `train/train` for `train` if an unzip program put the archive's folder into one of the same name."""
    inner = folder / folder.name
    return inner if inner.is_dir() and len(_list_folder(folder)) == 1 else folder


def _refuse_unlistable(error: OSError) -> None:
    raise DatasetError(unlistable(error)) from error
