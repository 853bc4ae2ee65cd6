"""The split that a data set has already: in folders or lists of its photos named train and val."""

from collections import defaultdict
from collections.abc import Container, Iterator
from pathlib import Path, PurePosixPath

from carmask.data.layout import DatasetError, Side, side_of
from carmask.data.pairs import Dataset
from carmask.data.split import Split
from carmask.files import SimilarNames


def find_own_split(dataset: Dataset, usable: Container[str] | None = None) -> Split | None:
    """Return the split that a data set's folders (train/ and val/, at any depth) or lists (train.txt) make, if any.

    Photos outside of these folders are trained on. Those on no list, those of test/ beside val/ and those that are not
    `usable` (ids) are on no side.

    Raises:
        SplitError: a group is on both sides.
    """
    ids_of: dict[Side | None, list[str]] = defaultdict(list)
    for pair in dataset.pairs:
        ids_of[next(filter(None, map(side_of, pair.id.split("/")[:-1])), None)].append(pair.id)
    method = "as its folders say"
    if ids_of.keys() <= {None}:
        method, ids_of = "as its lists say", _listed_ids(dataset)
    held_out: Side = "validation" if ids_of.get("validation") else "test"
    if usable is not None:
        ids_of = {side: [id_ for id_ in ids if id_ in usable] for side, ids in ids_of.items()}
    if not ids_of.get("train") or not ids_of.get(held_out):
        return None
    if held_out == "validation" and ids_of.get("test"):
        method += f", without {len(ids_of['test'])} photos to test with"
    train, validation = sorted([*ids_of["train"], *ids_of.get(None, [])]), sorted(ids_of[held_out])
    group_of = {id_: dataset.group_of[id_] for id_ in sorted([*train, *validation])}
    return Split(seed=0, method=method, train=tuple(train), validation=tuple(validation), group_of=group_of)


def _listed_ids(dataset: Dataset) -> dict[Side | None, list[str]]:
    lists = _read_side_lists(dataset.root)
    ids_by_name: dict[str, list[str]] = defaultdict(list)
    for pair in dataset.pairs if lists else ():
        for name in {pair.id, PurePosixPath(pair.id).name}:
            ids_by_name[name].append(pair.id)
    similar = SimilarNames(name for name, ids in ids_by_name.items() if len(ids) == 1)
    sides: dict[Side | None, list[str]] = {}
    for side, names in lists.items():
        found = [similar.find(name, *_without_suffix(PurePosixPath(name))) for name in names]
        sides[side] = sorted({ids_by_name[name][0] for name in found if name})
    return sides


def _read_side_lists(root: Path) -> dict[Side, list[str]]:
    """Read lists of photos, train.txt and val.txt, in the data set's folder or in VOC's ImageSets/Segmentation/.

    The first word of each line is a photo's name, with or without folders and suffix.
    """
    for folder in (root, root / "ImageSets" / "Segmentation", root / "ImageSets"):
        lists: dict[Side, list[str]] = {}
        for path in sorted(folder.glob("*.txt")):
            if side := side_of(path.stem):
                try:
                    lines = path.read_text(encoding="utf-8-sig").splitlines()
                except (OSError, UnicodeDecodeError) as error:
                    raise DatasetError(f"{path}: cannot be read as a list of photos ({error})") from error
                lists.setdefault(side, []).extend(line.split()[0] for line in lines if line.strip())
        if len(lists) > 1 and "train" in lists:
            return lists
    return {}


def _without_suffix(listed: PurePosixPath) -> Iterator[str]:
    """Yield the path without its suffix, then with ever fewer of the folders that it begins with."""
    folders = listed.parent.parts
    return (str(PurePosixPath(*folders[left:], listed.stem)) for left in range(len(folders) + 1))
