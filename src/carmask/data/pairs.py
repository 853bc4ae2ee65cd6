"""Pair the photos of a data set with their masks; `carmask.data.layout` describes the folders."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from carmask.data.labeled import FoundPhotos, Truth, find_labeled, find_voc
from carmask.data.layout import (
    CARVANA_CSV,
    DatasetError,
    Layout,
    Problem,
    has_masks,
    in_order,
    locate_dataset,
    locate_empty,
)
from carmask.data.mask_files import find_mask_files, photos_without
from carmask.imaging.decode import MaskReading, UnreadableImage, decode_mask, read_size
from carmask.imaging.geometry import Placement, fit_known, fit_mask
from carmask.imaging.rle import RleError, decode_carvana
from carmask.labels.classes import parse_names
from carmask.labels.shapes import LabelError, PhotoLabels
from carmask.labels.voc import VOC

Item = TypeVar("Item")

# Twelve hexadecimal digits and one of sixteen views. Carvana's photos must be split by car also if they are in images/
# and masks/, as other programs need them.
_CARVANA_ID = re.compile(r"(?:.*/)?[0-9a-f]{12}_(?:0[1-9]|1[0-6])")

_SHOWN_RULES = 5
SCALED = "scaled to its photo's size"
_SHOWN_ODD = 3


@dataclass(frozen=True)
class Pair:
    """One photo and its mask, or a photo without a vehicle.

    Attributes:
        id: Path of the photo relative to its folder, without suffix, with forward slashes: "00087_01".
        image: The photo's file.
        mask: The mask's file; as text, the run lengths from Carvana's `train_masks.csv`; or the labels of a tool. None
            for a photo without a vehicle: its mask is empty.
        group: Pairs of one group belong on one side of a split. In Carvana's layout it is the car.
        view: In Carvana's layout the part of the name after the car, "01" to "16".
        foreground: The stored value of a mask file that is foreground; see `decode_mask`.
        ignore: The stored value of unknown pixels; see `decode_mask`.
    """

    id: str
    image: Path
    mask: Truth = field(repr=False)
    group: str
    view: str | None = None
    foreground: int | None = None
    ignore: int | None = None


@dataclass(frozen=True)
class Dataset:
    """The pairs found below `root`, sorted by id, and the faults found on the way.

    left_out: number of files among the photos that are no photos, or of a kind that is not read, by ending.
    """

    root: Path
    layout: Layout
    pairs: tuple[Pair, ...] = field(repr=False)
    problems: tuple[Problem, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def group_of(self) -> dict[str, str]:
        """Group of every pair, by id."""
        return {pair.id: pair.group for pair in self.pairs}


def find_pairs(
    root: str | Path,
    *,
    group_pattern: str | None = None,
    foreground: int | None = None,
    ignore: int | None = None,
    empty: bool = False,
    labels: str | Sequence[str] = (),
    ignore_labels: str | Sequence[str] = (),
) -> Dataset:
    """Find the photos below `root`, each with its mask.

    Args:
        root: The data set's folder, or the folder above it if that holds only one data set; or a label file.
        group_pattern: Regular expression searched in each id. Its capture group, or else the whole match, is the
            pair's group. Without it the group is the car in Carvana's layout (and if all files are named like
            Carvana's photos); otherwise each photo is its own group, as is a photo in no_vehicle/ that has no match.
        foreground: The stored value of mask files that is foreground; see `decode_mask`.
        ignore: The stored value of unknown pixels; see `decode_mask`.
        empty: `root` holds only photos without a vehicle, in images/ or not, and no masks.
        labels: The classes that are vehicles, in label files, as a list or "car,truck"; see `choose_labels`.
        ignore_labels: The classes whose pixels are unknown.

    Raises:
        DatasetError: there is no supported layout or no pair, or `group_pattern` is wrong or does not match.
        LabelError: label files cannot be used.
    """
    root = Path(root)
    data = _find_empty(root) if empty else _find(root, parse_names(labels), parse_names(ignore_labels))
    # In a folder of photos without a vehicle the pattern must match all ids.
    marked = [id_ for id_, (_, truth) in data.found.items() if empty or truth is not None]
    without = sorted(data.found.keys() - set(marked))
    group_and_view = _group_and_view(marked, without, data.layout, group_pattern)
    pairs = tuple(
        Pair(id_, image, truth, *group_and_view[id_], foreground, ignore)
        for id_, (image, truth) in sorted(data.found.items())
    )
    return Dataset(data.root, data.layout, pairs, in_order(data.problems), data.left_out)


def _find(root: Path, labels: Sequence[str], ignored: Sequence[str]) -> FoundPhotos:
    if labeled := None if has_masks(root) else find_labeled(root, labels, ignored):
        return labeled
    located = locate_dataset(root)
    if labeled := find_voc(located, labels, ignored):
        return labeled
    return find_mask_files(located)


def _find_empty(root: Path) -> FoundPhotos:
    folder = locate_empty(root)
    data = photos_without(folder, root)
    if not data.found:
        raise DatasetError(f"{folder}: holds no photos", data.problems)
    return data


def load_soft_mask(pair: Pair, *, photo_HW: tuple[int, int] | None = None) -> MaskReading:
    """Read the mask of a pair: `soft_HW` uint8 0..255 at the mask's own size.

    A mask of another size than `photo_HW` is scaled to it if the proportions are the same within one pixel.
    Run lengths give a mask of the photo's size, whatever `foreground` and `ignore` of the pair are. A photo without a
    vehicle has an empty mask of its size.

    Raises:
        UnreadableImage: the mask, or without a mask file the photo's header, cannot be read.
        RleError: the run lengths are wrong or do not fit the photo.
        LabelError: a label cannot be drawn, or nothing is known.
    """
    truth = pair.mask
    if isinstance(truth, PhotoLabels) and truth.format == VOC and pair.foreground is not None:
        truth = truth.file  # a class that is chosen by its number
    if isinstance(truth, Path):
        reading = _scaled(decode_mask(truth, foreground=pair.foreground, ignore=pair.ignore), photo_HW)
        if reading.known_HW is not None and not reading.known_HW.any():
            cause = f"at its photo's size every pixel has one of the ignored value {pair.ignore} in it"
            raise UnreadableImage(str(truth), cause, "leave out this photo")
        return reading
    size_HW = photo_HW or read_size(pair.image)
    if isinstance(truth, PhotoLabels):
        reading = _scaled(truth.read(size_HW), size_HW)
        if reading.known_HW is not None and not reading.known_HW.any():
            raise LabelError(f"{truth.file}, {truth.photo}: every pixel is unknown; leave out this photo")
        return reading
    if truth is None:
        return MaskReading(np.zeros(size_HW, np.uint8), "no mask, since there is no vehicle")
    try:
        mask_HW = decode_carvana(truth, size_HW)
    except RleError as error:
        raise RleError(f"{CARVANA_CSV}, row of {pair.image.name}: {error}") from error
    return MaskReading(mask_HW.astype(np.uint8) * np.uint8(255), f"run lengths in {CARVANA_CSV}", None)


def _scaled(reading: MaskReading, photo_HW: tuple[int, int] | None) -> MaskReading:
    mask_HW = height, width = reading.soft_HW.shape
    if photo_HW is None or photo_HW == mask_HW:
        return reading
    # By one side both have the same scale, by the other one they differ by this many pixels of the larger picture.
    if abs(height * photo_HW[1] - width * photo_HW[0]) > max(*mask_HW, *photo_HW):
        return reading
    placement = Placement(mask_HW, canvas_HW=photo_HW, top_px=0, left_px=0, content_HW=photo_HW)
    return replace(
        reading,
        soft_HW=fit_mask(reading.soft_HW, placement),
        known_HW=None if reading.known_HW is None else fit_known(reading.known_HW, placement),
        rule=f"{reading.rule}; {SCALED}",
    )


def describe_rules(rules: Mapping[str, int]) -> list[str]:
    """Describe in a few lines how masks were read (rule -> number of masks), the most frequent way first."""
    ranked = sorted(rules.items(), key=lambda item: -item[1])
    lines = [f"{rule}: {count}" for rule, count in ranked[:_SHOWN_RULES]]
    if others := ranked[_SHOWN_RULES:]:
        lines.append(f"in {len(others)} other ways: {sum(count for _, count in others)}")
    return lines


def describe_odd(odd: Mapping[str, str]) -> str | None:
    """Summarize the warnings about masks (id -> warning) in one sentence; None if there are none."""
    if not odd:
        return None
    first = "; ".join(f"{id_}: {warning}" for id_, warning in list(odd.items())[:_SHOWN_ODD])
    more = f"; and {len(odd) - _SHOWN_ODD} more, see `carmask check`" if len(odd) > _SHOWN_ODD else ""
    return f"{len(odd)} mask{'s look' if len(odd) > 1 else ' looks'} odd. {first}{more}"


def describe_inverted(background_of: Mapping[str, int], masks: int) -> str | None:
    """Warn if most of `masks` masks look inverted; `background_of`: id of each that does -> `MaskReading.inverted`."""
    if 2 * len(background_of) <= masks:
        return None
    ((value, _),) = Counter(background_of.values()).most_common(1)
    return (
        f"{len(background_of)} of {masks} masks cover all four corners and most of the picture, as if inverted; if "
        f"the object is what they leave out, give --foreground {value} (in training --dataset.foreground {value})"
    )


def _group_and_view(
    ids: list[str], without: list[str], layout: Layout, pattern: str | None
) -> dict[str, tuple[str, str | None]]:
    """Group and view of each photo, by id; `without`: ids that the pattern need not match."""
    by_car = layout == "carvana" or all(_CARVANA_ID.fullmatch(id_) for id_ in ids)
    known: dict[str, tuple[str, str | None]] = {}
    for id_ in ids:
        car, underscore, view = id_.rpartition("_")
        known[id_] = (car, view) if by_car and car and underscore else (id_, None)
    known |= {id_: (id_, None) for id_ in without}
    if pattern is None:
        return known
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise DatasetError(f"group pattern {pattern!r}: not a regular expression ({error})") from error
    if regex.groups > 1:
        raise DatasetError(f"group pattern {pattern!r}: {regex.groups} capture groups; use one, and (?:...) elsewhere")
    matches = {id_: regex.search(id_) for id_ in known}
    group_of = {id_: match.group(regex.groups) for id_, match in matches.items() if match and match.group(regex.groups)}
    if unmatched := [id_ for id_ in ids if id_ not in group_of]:
        raise DatasetError(
            f"group pattern {pattern!r}: does not match {len(unmatched)} of {len(ids)} ids, "
            f"for example {', '.join(unmatched[:3])}; it must find the group in every id"
        )
    return {id_: (group_of.get(id_, id_), view) for id_, (_, view) in known.items()}


def spread(items: Sequence[Item], count: int) -> tuple[Item, ...]:
    """Return `count` evenly spread items, or all if there are no more."""
    count = min(count, len(items))
    return tuple(items[index * len(items) // count] for index in range(count))
