"""Recognize the layout of a data set's folders, and list their files. Two layouts are supported.

`carvana`, as Kaggle's archives unzip::

    train/<car>_<view>.jpg          (or train_hq/; if both exist, train/ is read)
    train_masks/<car>_<view>_mask.gif
    train_masks.csv                 optional; its run lengths replace mask files that are missing

`folders`, anything else::

    images/<any>/<stem>.<suffix>    (or imgs/)
    masks/<any>/<stem>.<suffix>     (or <stem>_mask.<suffix>)
    no_vehicle/<any>/<stem>.<suffix>    optional: photos that have no mask, since nothing in them is to be marked

Every folder is listed once, and names are only compared, so that they may contain any character.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from carmask.errors import CarmaskError
from carmask.files import is_hidden_file, walk_files
from carmask.imaging.decode import IMAGE_SUFFIXES
from carmask.imaging.rle import TableError, read_rows

ProblemKind = Literal[
    "missing mask",
    "missing image",
    "ambiguous",
    "unreadable",
    "size mismatch",
    "empty mask",
    "full mask",
    "odd mask values",
    "duplicate picture",
    "duplicate across split",
    "split",
]
Layout = Literal["carvana", "folders"]

CARVANA_CSV = "train_masks.csv"
MASK_ENDING = "_mask"
EMPTY_PHOTOS = "no_vehicle"
_CARVANA_PHOTOS = ("train", "train_hq")
_FOLDER_PHOTOS = ("images", "imgs")
_SUPPORTED = (
    "Supported are Carvana's layout (train/ or train_hq/ with train_masks/ or train_masks.csv) and two folders "
    "with the same file names (images/ or imgs/ with masks/)"
)


@dataclass(frozen=True)
class Problem:
    """A fault of one file or one pair of a data set. `subject` is the file, or the pair's id."""

    subject: str
    kind: ProblemKind
    detail: str


class DatasetError(CarmaskError):
    """There is no readable data set. `problems` lists the faults found until then."""

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


@dataclass(frozen=True)
class DatasetPaths:
    """The folders of photos, masks and photos without a vehicle of a data set, and Carvana's table of run lengths."""

    root: Path
    layout: Layout
    photos: Path
    masks: Path | None = None
    csv: Path | None = None
    empty: Path | None = None


@dataclass(frozen=True)
class FileIndex:
    """The files in one folder and below, by relative path without suffix; pictures and other files apart."""

    pictures: dict[str, list[Path]]
    others: dict[str, list[Path]]
    problems: list[Problem]


def locate_dataset(root: Path) -> DatasetPaths:
    """Find the data set in `root`, or in the only folder of `root` that holds one.

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
        names_found = ", ".join(paths.root.name for paths in datasets)
        raise DatasetError(f"{root}: holds several data sets ({names_found}); name one of them")
    names = [path.name + ("/" if path.is_dir() else "") for path in sorted(entries.values())]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    shown = ", ".join(names[:8]) + more or "nothing"
    above = root.resolve().parent
    hint = f". The folder above, {above}, is one: name that" if _locate_or_none(above) else ""
    raise DatasetError(f"{root}: no data set of a supported layout. Found here: {shown}. {_SUPPORTED}{hint}")


def locate_empty(root: Path) -> Path:
    """Return the folder of photos without a vehicle: images/ or imgs/ in `root`, or else `root` itself.

    Raises:
        DatasetError: `root` is no folder, or holds masks.

    """
    _require_folder(root)
    if _locate_or_none(root):
        raise DatasetError(f"{root}: holds masks, so it is no folder of photos without a vehicle")
    folders = {name: path for name, path in _list_folder(root).items() if path.is_dir()}
    return next((folders[name] for name in _FOLDER_PHOTOS if name in folders), root)


def index_folder(folder: Path) -> FileIndex:
    """List a folder and all folders below it, without hidden files and the clutter of file managers.

    Raises:
        DatasetError: a folder cannot be listed.

    """
    index = FileIndex({}, {}, [])
    for path, names in walk_files(folder, on_error=_refuse_unlistable):
        below = path.relative_to(folder)
        for name in names:
            relative = PurePosixPath(below, name)
            if not _is_text(str(relative)):
                shown = str(relative).encode("utf-8", "backslashreplace").decode()
                index.problems.append(Problem(shown, "unreadable", "its name is not valid UTF-8; rename it"))
                continue
            files = index.pictures if relative.suffix.lower() in IMAGE_SUFFIXES else index.others
            files.setdefault(str(relative.with_suffix("")), []).append(path / name)
    return index


def read_run_lengths(path: Path) -> tuple[dict[str, str], list[Problem]]:
    """Read Carvana's `img,rle_mask` table: photo's name without suffix -> run lengths, and the faults of its rows.

    Raises:
        DatasetError: the file cannot be read, or is not such a table.

    """
    if not path.is_file():
        raise DatasetError(f"{path}: cannot be read as a table (not a plain file)")
    rows: dict[str, str] = {}
    problems = []
    try:
        for number, fields in read_rows(path):
            photo = PurePosixPath(fields[0].strip())
            stem = str(photo.with_suffix("")) if photo.name and _is_text(photo.name) else ""
            if len(fields) != 2 or not stem:
                where = f"{path.name}, line {number}"
                problems.append(Problem(where, "unreadable", "not a file name, a comma and runs"))
            elif stem in rows:
                cause = f"{path.name} has more than one row for it; the first is used"
                problems.append(Problem(stem, "ambiguous", cause))
            else:
                rows[stem] = fields[1]
    except TableError as error:
        raise DatasetError(str(error)) from error
    return rows, problems


def _locate_in(root: Path) -> DatasetPaths | None:
    entries = _list_folder(root)
    folders = {name: path for name, path in entries.items() if path.is_dir()}
    masks = folders.get("train_masks")
    csv = entries.get(CARVANA_CSV)
    if csv and csv.is_dir():  # some unzip programs make a folder of the archive's name
        csv = _list_folder(csv).get(CARVANA_CSV)
    for name in _CARVANA_PHOTOS:
        if name in folders and (masks or csv):
            return DatasetPaths(root, "carvana", _unnest(folders[name]), _unnest(masks) if masks else None, csv)
    photos = [folders[name] for name in _FOLDER_PHOTOS if name in folders]
    if not photos or "masks" not in folders:
        return None
    if len(photos) > 1:
        raise DatasetError(f"{root}: has images/ and imgs/, and only one can hold the photos; move one of them away")
    return DatasetPaths(root, "folders", photos[0], folders["masks"], empty=folders.get(EMPTY_PHOTOS))


def _require_folder(root: Path) -> None:
    if not root.is_dir():
        raise DatasetError(f"{root}: {'is a file' if root.exists() else 'does not exist'}; a data set is a folder")


def _locate_or_none(root: Path) -> DatasetPaths | None:
    """As `_locate_in`, for folders that the user did not name and whose faults are not reported."""
    try:
        return _locate_in(root)
    except DatasetError:
        return None


def _list_folder(folder: Path) -> dict[str, Path]:
    """Return the entries of a folder by lower-case name, without hidden files and clutter."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise _unlistable(error) from error
    return {path.name.lower(): path for path in entries if not is_hidden_file(path.name)}


def _unnest(folder: Path) -> Path:
    """Return `train/train` for `train` if an unzip program put the archive's folder into one of the same name."""
    inner = folder / folder.name
    return inner if inner.is_dir() and len(_list_folder(folder)) == 1 else folder


def _refuse_unlistable(error: OSError) -> None:
    raise _unlistable(error) from error


def _unlistable(error: OSError) -> DatasetError:
    return DatasetError(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions")


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
