"""Recognize a data set's folders and list what lies in them.

Two layouts are understood.

`carvana`, as Kaggle's archives unzip::

    train/<car>_<view>.jpg          (or train_hq/; where both are there, train/ is read)
    train_masks/<car>_<view>_mask.gif
    train_masks.csv                 optional; its run lengths stand in for masks that are not there as files

`folders`, anything else::

    images/<any>/<stem>.<suffix>    (or imgs/)
    masks/<any>/<stem>.<suffix>     (or <stem>_mask.<suffix>)

Every folder is listed once and everything else is dictionary look-ups, so names may hold any character.
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
_CARVANA_PHOTOS = ("train", "train_hq")
_FOLDER_PHOTOS = ("images", "imgs")
_UNDERSTOOD = (
    "Understood are Carvana's layout (train/ or train_hq/ with train_masks/ or train_masks.csv) and two folders "
    "of the same file names (images/ or imgs/ with masks/)"
)


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with one file or one pair of a data set. `subject` is the file, or the pair's id."""

    subject: str
    kind: ProblemKind
    detail: str


class DatasetError(CarmaskError):
    """No data set can be read here. `problems` lists what was found wrong before that became clear."""

    def __init__(self, message: str, problems: Iterable[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


@dataclass(frozen=True)
class DatasetPaths:
    """Where a layout keeps its files: the photos' folder, the masks' folder and Carvana's table, where there."""

    root: Path
    layout: Layout
    photos: Path
    masks: Path | None
    csv: Path | None


@dataclass(frozen=True)
class FileIndex:
    """What lies in one folder and below: files by relative path without suffix, pictures apart from the rest."""

    pictures: dict[str, list[Path]]
    others: dict[str, list[Path]]
    problems: list[Problem]


def locate_dataset(root: Path) -> DatasetPaths:
    """Find the data set in `root`, or in the one folder of `root` that holds one.

    Raises:
        DatasetError: There is no known layout, or more than one.

    """
    if not root.is_dir():
        raise DatasetError(f"{root}: {'is a file' if root.exists() else 'does not exist'}; a data set is a folder")
    place = _locate_in(root)
    if place:
        return place
    entries = _list_folder(root)
    below = [_locate_or_none(folder) for _, folder in sorted(entries.items()) if folder.is_dir()]
    places = [place for place in below if place]
    if len(places) == 1:
        return places[0]
    if places:
        found = ", ".join(place.root.name for place in places)
        raise DatasetError(f"{root}: holds several data sets ({found}); name one of them")
    names = [path.name + ("/" if path.is_dir() else "") for path in sorted(entries.values())]
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    shown = ", ".join(names[:8]) + more or "nothing"
    above = root.resolve().parent
    hint = f". The folder above, {above}, looks like one: name that" if _locate_or_none(above) else ""
    raise DatasetError(f"{root}: no data set of a known layout. Found here: {shown}. {_UNDERSTOOD}{hint}")


def index_folder(folder: Path) -> FileIndex:
    """List a folder and all below it, once. Hidden files and the clutter of file managers are left out.

    Raises:
        DatasetError: A folder cannot be listed.

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
    """Read Carvana's `img,rle_mask` table: photo's name without suffix -> run lengths, and what is wrong with rows.

    Raises:
        DatasetError: The file cannot be read or is not that table.

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
    if csv and csv.is_dir():  # some unzippers make a folder of the archive's name
        csv = _list_folder(csv).get(CARVANA_CSV)
    for name in _CARVANA_PHOTOS:
        if name in folders and (masks or csv):
            return DatasetPaths(root, "carvana", _unnest(folders[name]), _unnest(masks) if masks else None, csv)
    photos = [folders[name] for name in _FOLDER_PHOTOS if name in folders]
    if not photos or "masks" not in folders:
        return None
    if len(photos) > 1:
        raise DatasetError(f"{root}: has images/ and imgs/, and only one can hold the photos; move one of them away")
    return DatasetPaths(root, "folders", photos[0], folders["masks"], None)


def _locate_or_none(root: Path) -> DatasetPaths | None:
    """Look where the user did not point: what is wrong there is no concern of theirs."""
    try:
        return _locate_in(root)
    except DatasetError:
        return None


def _list_folder(folder: Path) -> dict[str, Path]:
    """Return what lies in a folder, by lower-case name, without hidden files and clutter."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise _unlistable(error) from error
    return {path.name.lower(): path for path in entries if not is_hidden_file(path.name)}


def _unnest(folder: Path) -> Path:
    """Return `train/train` for `train` where an unzipper put the archive's folder into one of its own name."""
    inner = folder / folder.name
    return inner if inner.is_dir() and len(_list_folder(folder)) == 1 else folder


def _refuse_unlistable(error: OSError) -> None:
    raise _unlistable(error) from error


def _unlistable(error: OSError) -> DatasetError:
    return DatasetError(f"{error.filename}: cannot be listed ({error.strerror}); see to its permissions")


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
