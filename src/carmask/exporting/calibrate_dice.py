"""Learn what a network's certainty of a mask says of its Dice, on photos with true masks and altered versions of them.

Chosen on held-out photos of nine data sets, by cross-validation over their groups:

- The score of `certainty` alone, whose cubed doubts find more of the worst masks than doubts or their squares do.
  Coverage, the largest probability, the number of regions, the width of the uncertain border and others, in a logistic
  regression, were no better on photos of other groups.
- Each photo counts once and each altered version a tenth. If these count as much, too many empty masks are blurred
  photos of vehicles, and empty masks of ordinary photos are taken for doubtful ones.
- Means of sixteen groups of masks, made to ascend; of empty masks two groups, because few of them are wrong.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.data.composite import CompositeSettings, Cutout, draw_widths_px, paste_cutout
from carmask.evaluation.metrics import photo_dice
from carmask.evaluation.outlines import BoolArray
from carmask.exporting.photos import ExportPhotos
from carmask.models.dice_calibration import Certainty, DiceCalibration, DiceMap, certainty
from carmask.progress import Progress, counted
from carmask.segmenter import Segmenter

ALTERED_WEIGHT = 0.1
# With fewer masks that are not empty, or fewer that are, a map would say more of chance than of the network.
LEAST_FOUND, LEAST_EMPTY = 40, 20

_FOUND_GROUPS, _EMPTY_GROUPS = 16, 2
_PASTED = CompositeSettings(probability=1.0, count=(1, 1), width=(0.1, 0.7))
# How much a photo is altered: the share of each side that is kept, the share of its light, and a blur's sigma as a
# share of the width.
_CROP, _LIGHT, _BLUR = (0.45, 0.9), (0.15, 0.5), (0.002, 0.008)


@dataclass(frozen=True)
class ScoredMask:
    """How sure a network was of a mask, and the Dice that it has; it counts as often as `weight` says."""

    certainty: Certainty
    dice: float
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class AlteredPhoto:
    """A version of a photo: uint8 (height, width, channels), its true mask, and where that is known (None: all)."""

    version: str
    image_HWC: NDArray[np.uint8]
    truth_HW: BoolArray
    known_HW: BoolArray | None


def altered(
    image_HWC: NDArray[np.uint8], truth_HW: BoolArray, known_HW: BoolArray | None, key: str
) -> Iterator[AlteredPhoto]:
    """Yield a photo as it is (version ""), cropped, darkened and blurred; how much follows from `key` alone."""
    yield AlteredPhoto("", image_HWC, truth_HW, known_HW)
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    sides = [(side, max(1, round(side * rng.uniform(*_CROP)))) for side in truth_HW.shape]
    rows, columns = (
        slice(start, start + kept)
        for kept, start in [(kept, int(rng.integers(side - kept + 1))) for side, kept in sides]
    )
    known_part_HW = None if known_HW is None else known_HW[rows, columns]
    part_HWC = np.ascontiguousarray(image_HWC[rows, columns])
    yield AlteredPhoto("cropped", part_HWC, truth_HW[rows, columns], known_part_HW)
    dark_HWC = np.rint(image_HWC * np.float32(rng.uniform(*_LIGHT))).astype(np.uint8)
    yield AlteredPhoto("darkened", dark_HWC, truth_HW, known_HW)
    blurred_HWC = cv2.GaussianBlur(image_HWC, (0, 0), image_HWC.shape[1] * rng.uniform(*_BLUR))
    yield AlteredPhoto("blurred", blurred_HWC.reshape(image_HWC.shape), truth_HW, known_HW)


def pasted(image_HWC: NDArray[np.uint8], truth_HW: BoolArray, cutout: Cutout, key: str) -> AlteredPhoto:
    """Paste a vehicle of another photo onto a photo, whose mask must be known everywhere."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    image_HWC, soft_HW = image_HWC.copy(), truth_HW.astype(np.uint8) * np.uint8(255)
    width_px = draw_widths_px(rng, image_HWC.shape[1], _PASTED)[0]
    paste_cutout(image_HWC, soft_HW, cutout, width_px, rng, _PASTED)
    return AlteredPhoto("pasted", image_HWC, soft_HW >= 128, None)


def calibrate(segmenter: Segmenter, photos: ExportPhotos, progress: Progress) -> DiceCalibration | None:
    """Calibrate one network on photos with true masks and altered versions; None if there are too few of them.

    `progress` is called with (photos done, photos in all).
    """
    masks = []
    cutout = None
    for pair in counted(photos.with_dice, progress, len(photos.with_dice)):
        image_HWC, truth = photos.read(pair)
        versions = list(altered(image_HWC, truth.mask_HW, truth.known_HW, pair.id))
        if cutout is not None and truth.known_HW is None:
            versions.append(pasted(image_HWC, truth.mask_HW, cutout, pair.id))
        for one in versions:
            result = segmenter(one.image_HWC)
            dice = photo_dice(one.truth_HW, result.mask, one.known_HW)
            certain = certainty(result.probability, result.threshold)
            masks.append(ScoredMask(certain, dice, ALTERED_WEIGHT if one.version else 1.0))
        cutout = Cutout.of(image_HWC, truth.soft_HW) or cutout
    return fit(masks, f"{photos.dice_description}; also cropped, darkened, blurred and pasted")


def fit(masks: Sequence[ScoredMask], fitted_on: str) -> DiceCalibration | None:
    """Fit a calibration; None if there are too few masks. `fitted_on` says which photos they are of."""
    found = [one for one in masks if not one.certainty.is_empty]
    empty = [one for one in masks if one.certainty.is_empty]
    if len(found) < LEAST_FOUND:
        return None
    return DiceCalibration(
        found=fit_map(found, _FOUND_GROUPS),
        empty=fit_map(empty, _EMPTY_GROUPS) if len(empty) >= LEAST_EMPTY else None,
        masks=len(masks),
        fitted_on=fitted_on,
    )


def fit_map(masks: Sequence[ScoredMask], groups: int) -> DiceMap:
    """Fit an ascending map through the means of groups of equal weight, and of neighbors that would descend."""
    scores, dice, weights = np.array([(one.certainty.score, one.dice, one.weight) for one in masks]).T
    order = np.argsort(scores, kind="stable")
    scores, dice, weights = scores[order], dice[order], weights[order]
    middle = np.cumsum(weights) - weights / 2
    group = np.unique((middle / weights.sum() * groups).astype(int), return_inverse=True)[1]
    totals = np.bincount(group, weights)
    ascending = pool_adjacent_violators((np.bincount(group, weights * dice) / totals).tolist(), totals.tolist())
    # One knot for each level, so that of two masks the one with the higher score is expected to be better.
    levels, level_of_group = np.unique(ascending, return_inverse=True)
    level = level_of_group[group]
    mean_scores = np.bincount(level, weights * scores) / np.bincount(level, weights)
    return DiceMap(
        scores=tuple(round(score, 5) for score in mean_scores.tolist()),
        dice=tuple(round(one, 5) for one in levels.tolist()),
    )


def pool_adjacent_violators(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the ascending values that are nearest to these by weighted squares (Ayer et al. 1955)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        mean, total, count = value, weight, 1
        while blocks and blocks[-1][0] > mean:
            earlier, earlier_total, earlier_count = blocks.pop()
            mean = (earlier * earlier_total + mean * total) / (earlier_total + total)
            total, count = total + earlier_total, count + earlier_count
        blocks.append((mean, total, count))
    return [mean for mean, _, count in blocks for _ in range(count)]
