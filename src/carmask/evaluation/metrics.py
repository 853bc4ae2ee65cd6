"""How well a predicted mask agrees with the true one: pure functions on boolean arrays.

Every function takes `truth_HW` and `mask_HW`, bool arrays of one shape (height, width), True where the object is, and
optionally `known_HW`, False where the truth is unknown (None: all of it is known).

Area metrics (Dice, IoU, precision, recall) count pixels; unknown pixels have no part in them. `measure` adds the
metrics of outlines and thin structures from `carmask.evaluation.outlines`.
"""

from dataclasses import dataclass

import numpy as np

from carmask.errors import CarmaskError
from carmask.evaluation.outlines import (
    BoolArray,
    boundary_distances,
    boundary_error_px,
    boundary_f1,
    thin_recall,
)

# A mask that covers less of the picture than this counts as empty: a few wrong pixels are no vehicle. The Dice of a
# photo without a vehicle is 1 if its mask is empty, else 0.
EMPTY_BELOW = 0.001


class MaskMismatchError(CarmaskError):
    """Two masks cannot be compared: they differ in size, or one of them is not a boolean picture."""


@dataclass(frozen=True)
class Confusion:
    """How many pixels of each kind: true and false positives, false and true negatives."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def dice(self) -> float:
        """`2 tp / (2 tp + fp + fn)`, from 0 to 1; two empty masks agree: 1. (Dice 1945; the F1 of the pixels.)"""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn, undefined=1.0)

    @property
    def iou(self) -> float:
        """Intersection over union `tp / (tp + fp + fn)`, from 0 to 1; two empty masks agree: 1. (Jaccard 1912.)"""
        return _ratio(self.tp, self.tp + self.fp + self.fn, undefined=1.0)

    @property
    def precision(self) -> float:
        """`tp / (tp + fp)`: the share of the predicted pixels that are right.

        With nothing predicted it is 1 if the truth is empty too and 0 otherwise, so that giving up earns nothing.
        """
        return _ratio(self.tp, self.tp + self.fp, undefined=float(self.fn == 0))

    @property
    def recall(self) -> float:
        """`tp / (tp + fn)`: the share of the true pixels that were found.

        With an empty truth it is 1 if nothing was predicted either and 0 otherwise.
        """
        return _ratio(self.tp, self.tp + self.fn, undefined=float(self.fp == 0))

    @property
    def spilled(self) -> float:
        """`fp / (tp + fn)`: the wrongly predicted pixels as a share of the object's area; NaN for an empty truth."""
        return _ratio(self.fp, self.tp + self.fn, undefined=float("nan"))


@dataclass(frozen=True)
class ImageMetrics:
    """Every metric of one picture; areas are shares of its known pixels (0 to 1), `unknown_area` of all pixels.

    Boundary F1 is at `BOUNDARY_TOLERANCE_PX`. `boundary_error_px` is the mean distance of the two outlines, NaN where
    one of the masks has none. Both are NaN where all of an outline is unknown or near unknown pixels.
    `thin_recall` is NaN where nothing of the truth is thin.
    """

    dice: float
    iou: float
    precision: float
    recall: float
    boundary_f1: float
    boundary_error_px: float
    truth_area: float
    predicted_area: float
    unknown_area: float
    spilled: float
    thin_recall: float

    @property
    def found(self) -> float:
        """The recall: with unknown pixels, the share of the labeled object that was found."""
        return self.recall


def confusion(truth_HW: BoolArray, mask_HW: BoolArray, known_HW: BoolArray | None = None) -> Confusion:
    """Count the known pixels of each kind.

    Raises `MaskMismatchError` where the arrays differ in shape, are not two-dimensional or not boolean.
    """
    _check_comparable(truth_HW, mask_HW, known_HW)
    total = truth_HW.size
    if known_HW is not None:
        truth_HW, mask_HW, total = truth_HW & known_HW, mask_HW & known_HW, int(np.count_nonzero(known_HW))
    in_truth = int(np.count_nonzero(truth_HW))
    in_mask = int(np.count_nonzero(mask_HW))
    tp = int(np.count_nonzero(truth_HW & mask_HW))
    return Confusion(tp=tp, fp=in_mask - tp, fn=in_truth - tp, tn=total - in_truth - in_mask + tp)


def dice(truth_HW: BoolArray, mask_HW: BoolArray, known_HW: BoolArray | None = None) -> float:
    """Return the Dice coefficient of the known pixels, 0 to 1; see `Confusion.dice`."""
    return confusion(truth_HW, mask_HW, known_HW).dice


def photo_dice(truth_HW: BoolArray, mask_HW: BoolArray, known_HW: BoolArray | None = None) -> float:
    """Return `dice`, or for an empty truth `empty_dice`, as `carmask evaluate` scores a photo."""
    counts = confusion(truth_HW, mask_HW, known_HW)
    if counts.tp + counts.fn:
        return counts.dice
    return empty_dice(_ratio(counts.fp, counts.fp + counts.tn, undefined=0.0))


def empty_dice(predicted_area: float) -> float:
    """Return the Dice of a photo without an object: 1 if its mask covers less than `EMPTY_BELOW` of it, else 0."""
    return float(predicted_area < EMPTY_BELOW)


def measure(truth_HW: BoolArray, mask_HW: BoolArray, known_HW: BoolArray | None = None) -> ImageMetrics:
    """Compute every metric of one picture.

    Raises `MaskMismatchError` where the arrays differ in shape, are not two-dimensional or not boolean.
    """
    counts = confusion(truth_HW, mask_HW, known_HW)
    if known_HW is not None and known_HW.all():
        known_HW = None
    known = counts.tp + counts.fp + counts.fn + counts.tn
    distances = boundary_distances(truth_HW, mask_HW, known_HW)
    same = counts.fp == counts.fn == 0
    return ImageMetrics(
        dice=counts.dice,
        iou=counts.iou,
        precision=counts.precision,
        recall=counts.recall,
        boundary_f1=boundary_f1(*distances, same=same) if distances else float("nan"),
        boundary_error_px=boundary_error_px(*distances, same=same) if distances else float("nan"),
        truth_area=_ratio(counts.tp + counts.fn, known, undefined=0.0),
        predicted_area=_ratio(counts.tp + counts.fp, known, undefined=0.0),
        unknown_area=1 - known / truth_HW.size,
        spilled=counts.spilled,
        thin_recall=thin_recall(truth_HW, mask_HW, known_HW),
    )


def _ratio(part: float, whole: float, *, undefined: float) -> float:
    return part / whole if whole else undefined


def _check_comparable(truth_HW: BoolArray, mask_HW: BoolArray, known_HW: BoolArray | None) -> None:
    known_shape = truth_HW.shape if known_HW is None else known_HW.shape
    if not truth_HW.shape == mask_HW.shape == known_shape or truth_HW.ndim != 2:
        raise MaskMismatchError(
            f"cannot compare a true mask of shape {truth_HW.shape}, known at {known_shape}, with a predicted one of "
            f"shape {mask_HW.shape}; all must be (height, width) of the same photo"
        )
    for name, array in (("true", truth_HW), ("predicted", mask_HW), ("known part of the", known_HW)):
        if array is not None and array.dtype != np.bool_:
            raise MaskMismatchError(f"the {name} mask has dtype {array.dtype}, not bool; threshold it first")
