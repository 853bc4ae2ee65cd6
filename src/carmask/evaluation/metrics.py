"""How well a predicted mask agrees with the true one: pure functions on boolean arrays.

Every function takes `truth_HW` and `mask_HW`, bool arrays of one shape (height, width), True where the object is.

Two families:

- Area metrics (Dice, IoU, precision, recall) count pixels.
- Boundary metrics measure how far apart the two outlines are. Dice hides this: on a large object an outline that
  is three pixels off everywhere still scores 0.99.

What an outline is. A boundary pixel is an object pixel with at least one background pixel among its four direct
neighbors, i.e. the mask minus its erosion by a 3x3 cross: the inner boundary, one pixel thin and 8-connected. What
lies outside the picture is unknown, not background: where an object is cut off by the picture's edge there is no
boundary. So the empty mask and the full mask have no boundary at all. (DAVIS treats the edge likewise; medpy's
`assd`, for comparison, counts it.)
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from carmask.errors import CarmaskError

BoolArray = npt.NDArray[np.bool_]
Distances = npt.NDArray[np.float32]

# Distances are float32 square roots of whole numbers, of which this one is exact.
BOUNDARY_TOLERANCE_PX = 2.0


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


@dataclass(frozen=True)
class ImageMetrics:
    """Every metric of one picture; areas are shares of the picture (0 to 1).

    Boundary F1 is at `BOUNDARY_TOLERANCE_PX`. `boundary_error_px` is the mean distance of the two outlines, NaN where
    one of the masks has none.
    """

    dice: float
    iou: float
    precision: float
    recall: float
    boundary_f1: float
    boundary_error_px: float
    truth_area: float
    predicted_area: float


def confusion(truth_HW: BoolArray, mask_HW: BoolArray) -> Confusion:
    """Count the pixels of each kind.

    Raises `MaskMismatchError` where the arrays differ in shape, are not two-dimensional or not boolean.
    """
    _check_comparable(truth_HW, mask_HW)
    in_truth = int(np.count_nonzero(truth_HW))
    in_mask = int(np.count_nonzero(mask_HW))
    tp = int(np.count_nonzero(truth_HW & mask_HW))
    return Confusion(tp=tp, fp=in_mask - tp, fn=in_truth - tp, tn=truth_HW.size - in_truth - in_mask + tp)


def dice(truth_HW: BoolArray, mask_HW: BoolArray) -> float:
    """Return the Dice coefficient, 0 to 1; see `Confusion.dice`."""
    return confusion(truth_HW, mask_HW).dice


def boundary(mask_HW: BoolArray) -> BoolArray:
    """Mark the boundary pixels of a mask in a bool array of its shape; the module's docstring says which these are."""
    if not mask_HW.size:
        return mask_HW
    # cv2.erode's own border is +infinity: what lies outside the picture never makes a pixel a boundary pixel.
    eroded_HW = cv2.erode(mask_HW.view(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    edge_HW: BoolArray = mask_HW & (eroded_HW == 0)
    return edge_HW


def measure(truth_HW: BoolArray, mask_HW: BoolArray) -> ImageMetrics:
    """Compute every metric of one picture.

    Raises `MaskMismatchError` where the arrays differ in shape, are not two-dimensional or not boolean.
    """
    counts = confusion(truth_HW, mask_HW)
    from_truth_px, from_mask_px = _boundary_distances(truth_HW, mask_HW)
    same = counts.fp == counts.fn == 0
    return ImageMetrics(
        dice=counts.dice,
        iou=counts.iou,
        precision=counts.precision,
        recall=counts.recall,
        boundary_f1=_boundary_f1(from_truth_px, from_mask_px, same=same),
        boundary_error_px=_boundary_error_px(from_truth_px, from_mask_px, same=same),
        truth_area=(counts.tp + counts.fn) / truth_HW.size,
        predicted_area=(counts.tp + counts.fp) / truth_HW.size,
    )


def _boundary_f1(from_truth_px: Distances, from_mask_px: Distances, *, same: bool) -> float:
    """Return the F1 of the two outlines, 0 to 1, where a pixel counts as found within `BOUNDARY_TOLERANCE_PX`.

    Boundary precision is the share of the mask's boundary pixels that lie no further than that (Euclidean, inclusive)
    from some boundary pixel of the truth; boundary recall is the same with the roles changed; the result is their
    harmonic mean. Csurka et al., "What is a good evaluation measure for semantic segmentation?" (BMVC 2013); the F of
    DAVIS, Perazzi et al. (CVPR 2016), which takes 0.8 % of the diagonal as its tolerance.

    Where one side has no boundary it is 0; where neither has one, 1 if the masks are the same and 0 if one is
    empty and the other full.
    """
    if not from_truth_px.size or not from_mask_px.size:
        return float(same)
    found = int(np.count_nonzero(from_truth_px <= BOUNDARY_TOLERANCE_PX)) / from_truth_px.size
    right = int(np.count_nonzero(from_mask_px <= BOUNDARY_TOLERANCE_PX)) / from_mask_px.size
    return _ratio(2 * right * found, right + found, undefined=0.0)


def _boundary_error_px(from_truth_px: Distances, from_mask_px: Distances, *, same: bool) -> float:
    """Return how far apart the two outlines are on average, in pixels of the given arrays.

    For every boundary pixel of either side the Euclidean distance to the nearest boundary pixel of the other side;
    the mean over all of them, both sides pooled: the average symmetric surface distance, Heimann et al., "Comparison
    and evaluation of methods for liver segmentation from CT datasets" (IEEE TMI 2009).

    NaN where it has no meaning, that is where just one side has a boundary, or one mask is empty and the other full;
    0 for two empty or two full masks. Whoever averages must leave NaN out and say how many were left out.
    """
    if not from_truth_px.size or not from_mask_px.size:
        return 0.0 if same else float("nan")
    total_px = from_truth_px.sum(dtype=np.float64) + from_mask_px.sum(dtype=np.float64)
    return float(total_px / (from_truth_px.size + from_mask_px.size))


def _boundary_distances(truth_HW: BoolArray, mask_HW: BoolArray) -> tuple[Distances, Distances]:
    """Return for each boundary pixel of the truth the distance to the mask's boundary, and the reverse; px, flat.

    Where only one side has a boundary its distances are infinite and the other's are empty.
    """
    window = _window_around(truth_HW, mask_HW)
    truth_edge_HW, mask_edge_HW = boundary(truth_HW[window]), boundary(mask_HW[window])
    return (_distance_px(mask_edge_HW)[truth_edge_HW], _distance_px(truth_edge_HW)[mask_edge_HW])


def _distance_px(edge_HW: BoolArray) -> Distances:
    """Return the exact Euclidean distance of every pixel to the nearest True one."""
    if not edge_HW.any():
        return np.full(edge_HW.shape, np.inf, np.float32)
    distance_HW: Distances = cv2.distanceTransform((~edge_HW).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance_HW


def _window_around(truth_HW: BoolArray, mask_HW: BoolArray) -> tuple[slice, slice]:
    """Return the smallest window with everything True in either mask and one pixel around it, inside the picture.

    All boundary pixels lie in it with their neighbors, so nothing computed on it differs from the whole picture's.
    """
    either_HW = truth_HW | mask_HW
    rows, columns = np.flatnonzero(either_HW.any(axis=1)), np.flatnonzero(either_HW.any(axis=0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(max(rows[0] - 1, 0), rows[-1] + 2), slice(max(columns[0] - 1, 0), columns[-1] + 2)


def _ratio(part: float, whole: float, *, undefined: float) -> float:
    return part / whole if whole else undefined


def _check_comparable(truth_HW: BoolArray, mask_HW: BoolArray) -> None:
    if truth_HW.shape != mask_HW.shape or truth_HW.ndim != 2:
        raise MaskMismatchError(
            f"cannot compare a true mask of shape {truth_HW.shape} with a predicted one of shape {mask_HW.shape}; "
            "both must be (height, width) of the same photo"
        )
    for name, array in (("true", truth_HW), ("predicted", mask_HW)):
        if array.dtype != np.bool_:
            raise MaskMismatchError(f"the {name} mask has dtype {array.dtype}, not bool; threshold it first")
