"""Pair the photos of a data set with their masks. `carmask.data.layout` says which folders are understood."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from carmask.data.layout import (
    CARVANA_CSV,
    MASK_ENDING,
    DatasetError,
    DatasetPaths,
    FileIndex,
    Layout,
    Problem,
    index_folder,
    locate_dataset,
    read_run_lengths,
)
from carmask.imaging.decode import MaskReading, decode_mask, read_size
from carmask.imaging.rle import RleError, decode_carvana

Item = TypeVar("Item")

# Twelve hexadecimal digits and one of sixteen views: Carvana's photos, put into images/ and masks/ as other programs
# want them, must still be split by car.
_CARVANA_ID = re.compile(r"(?:.*/)?[0-9a-f]{12}_(?:0[1-9]|1[0-6])")

_SHOWN_RULES = 5
_SHOWN_ODD = 3


@dataclass(frozen=True)
class Pair:
    """One photo and its mask.

    Attributes:
        id: Path of the photo below its folder, without suffix, with forward slashes: "00087_01".
        image: The photo's file.
        mask: The mask's file, or, as text, the run lengths from Carvana's `train_masks.csv`.
        group: What must not be torn apart by a split: the car in Carvana's layout.
        view: In Carvana's layout the part of the name after the car, "01" to "16".

    """

    id: str
    image: Path
    mask: Path | str = field(repr=False)
    group: str
    view: str | None = None


@dataclass(frozen=True)
class Dataset:
    """The pairs found below `root`, sorted by id, and what was wrong on the way."""

    root: Path
    layout: Layout
    pairs: tuple[Pair, ...] = field(repr=False)
    problems: tuple[Problem, ...] = ()

    @property
    def group_of(self) -> dict[str, str]:
        """Group of every pair, by id."""
        return {pair.id: pair.group for pair in self.pairs}


def find_pairs(root: str | Path, *, group_pattern: str | None = None) -> Dataset:
    """Find the photos below `root`, each with its mask.

    Args:
        root: The data set's folder, or the folder above it where it holds only one data set.
        group_pattern: Regular expression searched in each id; its one capture group, or else the whole match, is the
            pair's group. Without it the group is the car in Carvana's layout (and wherever every file is named as
            Carvana's photos are), and each photo on its own otherwise.

    Raises:
        DatasetError: There is no known layout, no pair at all, or `group_pattern` is wrong or does not match.

    """
    place = locate_dataset(Path(root))
    photos = index_folder(place.photos)
    masks = index_folder(place.masks) if place.masks else FileIndex({}, {}, [])
    files_of, orphans = _masks_by_photo(photos, masks)
    problems = [*photos.problems, *masks.problems]

    rows: dict[str, str] = {}
    if place.csv and not photos.pictures.keys() <= files_of.keys():
        rows, row_problems = read_run_lengths(place.csv)
        problems += row_problems
        if not masks.pictures:
            orphans += [(stem, place.csv) for stem in rows if stem not in photos.pictures]
    problems += [_orphan(stem, path, photos, place) for stem, path in orphans]

    found: dict[str, tuple[Path, Path | str]] = {}
    for stem, images in sorted(photos.pictures.items()):
        files = files_of.get(stem, [])
        if len(images) > 1 or len(files) > 1:
            several = [*images, *files] if len(images) > 1 else files
            names = ", ".join(_relative(path, place.root) for path in several)
            problems.append(Problem(stem, "ambiguous", f"more than one file of its name, keep one: {names}"))
        elif files or stem in rows:
            found[stem] = (images[0], files[0] if files else rows[stem])
        else:
            problems.append(_missing_mask(stem, images[0], masks, place))
    problems.sort(key=lambda problem: (problem.subject, problem.kind))
    if not found:
        raise DatasetError(_no_pairs(place, len(photos.pictures), problems), problems)

    group_and_view = _group_and_view(list(found), place.layout, group_pattern)
    pairs = tuple(Pair(stem, image, mask, *group_and_view[stem]) for stem, (image, mask) in found.items())
    return Dataset(place.root, place.layout, pairs, tuple(problems))


def photo_stems(mask_stem: str) -> tuple[str, str]:
    """Names, without suffix, that the photo of a mask may have; the first is preferred."""
    return mask_stem, mask_stem.removesuffix(MASK_ENDING)


def load_soft_mask(pair: Pair, *, foreground: int | None = None) -> MaskReading:
    """Read the mask of a pair: `soft_HW` uint8 0..255 at the mask's own size.

    Run lengths are drawn at the photo's size, and `foreground` (see `decode_mask`) does not concern them.

    Raises:
        UnreadableImage: The mask, or for run lengths the photo's header, cannot be read.
        RleError: The run lengths are wrong or do not fit the photo.

    """
    if isinstance(pair.mask, Path):
        return decode_mask(pair.mask, foreground=foreground)
    size_HW = read_size(pair.image)
    try:
        mask_HW = decode_carvana(pair.mask, size_HW)
    except RleError as error:
        raise RleError(f"{CARVANA_CSV}, row of {pair.image.name}: {error}") from error
    return MaskReading(mask_HW.astype(np.uint8) * np.uint8(255), f"run lengths in {CARVANA_CSV}", None)


def describe_rules(rules: Mapping[str, int]) -> list[str]:
    """Say in a few lines how masks were read (rule -> number of masks), the most usual way first."""
    ranked = sorted(rules.items(), key=lambda item: -item[1])
    lines = [f"{rule}: {count}" for rule, count in ranked[:_SHOWN_RULES]]
    if others := ranked[_SHOWN_RULES:]:
        lines.append(f"in {len(others)} other ways: {sum(count for _, count in others)}")
    return lines


def describe_odd(odd: Mapping[str, str]) -> str | None:
    """Warn in one sentence of masks that look like something else (id -> complaint), or None where there are none."""
    if not odd:
        return None
    first = "; ".join(f"{id_}: {complaint}" for id_, complaint in list(odd.items())[:_SHOWN_ODD])
    more = f"; and {len(odd) - _SHOWN_ODD} more, see `carmask check`" if len(odd) > _SHOWN_ODD else ""
    return f"{len(odd)} mask{'s look' if len(odd) > 1 else ' looks'} odd. {first}{more}"


def _masks_by_photo(photos: FileIndex, masks: FileIndex) -> tuple[dict[str, list[Path]], list[tuple[str, Path]]]:
    """Give every mask file to the photo of the same stem, or else of the same stem without `_mask`."""
    files_of: dict[str, list[Path]] = {}
    orphans = []
    for stem, files in masks.pictures.items():
        owner = next((name for name in photo_stems(stem) if name in photos.pictures), None)
        if owner is not None:
            files_of.setdefault(owner, []).extend(files)
        else:
            orphans += [(photo_stems(stem)[-1], file) for file in files]
    return files_of, orphans


def _group_and_view(ids: list[str], layout: Layout, pattern: str | None) -> dict[str, tuple[str, str | None]]:
    by_car = layout == "carvana" or all(_CARVANA_ID.fullmatch(id_) for id_ in ids)
    known: dict[str, tuple[str, str | None]] = {}
    for id_ in ids:
        car, underscore, view = id_.rpartition("_")
        known[id_] = (car, view) if by_car and car and underscore else (id_, None)
    if pattern is None:
        return known
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise DatasetError(f"group pattern {pattern!r}: not a regular expression ({error})") from error
    if regex.groups > 1:
        raise DatasetError(f"group pattern {pattern!r}: {regex.groups} capture groups; use one, and (?:...) elsewhere")
    matches = {id_: regex.search(id_) for id_ in ids}
    group_of = {id_: match.group(regex.groups) for id_, match in matches.items() if match and match.group(regex.groups)}
    if unmatched := [id_ for id_ in ids if id_ not in group_of]:
        raise DatasetError(
            f"group pattern {pattern!r}: finds nothing in {len(unmatched)} of {len(ids)} ids, "
            f"for example {', '.join(unmatched[:3])}; it must find the group in every one"
        )
    return {id_: (group_of[id_], known[id_][1]) for id_ in ids}


def _missing_mask(stem: str, image: Path, masks: FileIndex, place: DatasetPaths) -> Problem:
    other = masks.others.get(stem) or masks.others.get(stem + MASK_ENDING)
    where = _relative(place.masks, place.root) + "/" if place.masks else CARVANA_CSV
    reason = f"{other[0].name} is of a kind that is not read" if other else f"nothing of its name in {where}"
    return Problem(_relative(image, place.root), "missing mask", reason)


def _orphan(stem: str, path: Path, photos: FileIndex, place: DatasetPaths) -> Problem:
    other = photos.others.get(stem)
    reason = f"{other[0].name} is of a kind that is not read" if other else "its photo is not there"
    subject = f"{path.name}, row of {stem}" if path == place.csv else _relative(path, place.root)
    return Problem(subject, "missing image", reason)


def _no_pairs(place: DatasetPaths, photos: int, problems: list[Problem]) -> str:
    if not photos:
        return f"{place.photos}: holds no photos"
    first = "; ".join(f"{problem.subject}: {problem.kind}, {problem.detail}" for problem in problems[:3])
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return f"{place.root}: not one of {photos} photos has a mask to go with it. {first}{more}"


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def spread(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """Take the first item of each of `count` equal stretches; all items where there are no more."""
    count = min(count, len(items))
    return tuple(items[index * len(items) // count] for index in range(count))
