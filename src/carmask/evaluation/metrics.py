"""How well a predicted mask agrees with the true one: pure functions on boolean arrays.

Every function takes `truth_HW` and `mask_HW`, bool arrays of one shape (height, width), True where the object is, and
optionally `known_HW`, False where the truth is unknown (None: all of it is known).

Two families, and the recall of thin structures (`thin_structures`):

- Area metrics (Dice, IoU, precision, recall) count pixels.
- Boundary metrics measure how far apart the two outlines are. Dice hides this: on a large object an outline that
  is three pixels off everywhere still scores 0.99.

What an outline is. A boundary pixel is an object pixel with at least one background pixel among its four direct
neighbors, i.e. the mask minus its erosion by a 3x3 cross: the inner boundary, one pixel thin and 8-connected. What
lies outside the picture is unknown, not background: where an object is cut off by the picture's edge there is no
boundary. So the empty mask and the full mask have no boundary at all. (DAVIS treats the edge likewise; medpy's
`assd`, for comparison, counts it.)

Unknown pixels have no part in area metrics. Boundary metrics treat them like what lies outside the picture: where the
truth meets unknown pixels it has no boundary. And boundary pixels within `BOUNDARY_TOLERANCE_PX` of an unknown pixel
are not counted, on either side, because their counterpart may lie there; the others are still compared with them.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from carmask.errors import CarmaskError
from carmask.imaging.masks import box_of, slices

BoolArray = npt.NDArray[np.bool_]
Distances = npt.NDArray[np.float32]

# Distances are float32 square roots of whole numbers, of which this one is exact.
BOUNDARY_TOLERANCE_PX = 2.0
# A mask that covers less of the picture than this counts as empty: a few wrong pixels are no vehicle. The Dice of a
# photo without a vehicle is 1 if its mask is empty, else 0.
EMPTY_BELOW = 0.001

# All pixels whose centers lie within 4 px of the center of an 8 x 8 px square: a disk of 8 px diameter.
THIN_BELOW_PX = 8
_MARGIN_PX = THIN_BELOW_PX
_DISK_88 = np.array([[0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]], np.uint8)
_DISK_88 = np.block([[_DISK_88, _DISK_88[:, ::-1]], [_DISK_88[::-1], _DISK_88[::-1, ::-1]]])


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


def boundary(mask_HW: BoolArray) -> BoolArray:
    """Mark the boundary pixels of a mask in a bool array of its shape; the module's docstring says which these are."""
    if not mask_HW.size:
        return mask_HW
    # cv2.erode's own border is +infinity: what lies outside the picture never makes a pixel a boundary pixel.
    eroded_HW = cv2.erode(mask_HW.view(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    edge_HW: BoolArray = mask_HW & (eroded_HW == 0)
    return edge_HW


def thin_structures(truth_HW: BoolArray) -> BoolArray:
    """Mark what of a mask is thinner than `THIN_BELOW_PX`: the mask minus its opening by a disk of that diameter.

    These are mirrors, antennas and roof racks, and tips of corners. The picture's edge is continued outward, so what it
    cuts off is as thick as it looks along the edge.
    """
    margin = THIN_BELOW_PX
    padded_HW = cv2.copyMakeBorder(truth_HW.view(np.uint8), margin, margin, margin, margin, cv2.BORDER_REPLICATE)
    # The disk's center lies between pixels: what the one anchor moves by half a pixel, the other moves back.
    half = THIN_BELOW_PX // 2
    opened_HW = cv2.dilate(cv2.erode(padded_HW, _DISK_88, anchor=(half - 1, half - 1)), _DISK_88, anchor=(half, half))
    thin_HW: BoolArray = truth_HW & (opened_HW[margin:-margin, margin:-margin] == 0)
    return thin_HW


def measure(truth_HW: BoolArray, mask_HW: BoolArray, known_HW: BoolArray | None = None) -> ImageMetrics:
    """Compute every metric of one picture.

    Raises `MaskMismatchError` where the arrays differ in shape, are not two-dimensional or not boolean.
    """
    counts = confusion(truth_HW, mask_HW, known_HW)
    if known_HW is not None and known_HW.all():
        known_HW = None
    known = counts.tp + counts.fp + counts.fn + counts.tn
    distances = _boundary_distances(truth_HW, mask_HW, known_HW)
    same = counts.fp == counts.fn == 0
    return ImageMetrics(
        dice=counts.dice,
        iou=counts.iou,
        precision=counts.precision,
        recall=counts.recall,
        boundary_f1=_boundary_f1(*distances, same=same) if distances else float("nan"),
        boundary_error_px=_boundary_error_px(*distances, same=same) if distances else float("nan"),
        truth_area=_ratio(counts.tp + counts.fn, known, undefined=0.0),
        predicted_area=_ratio(counts.tp + counts.fp, known, undefined=0.0),
        unknown_area=1 - known / truth_HW.size,
        spilled=counts.spilled,
        thin_recall=_thin_recall(truth_HW, mask_HW, known_HW),
    )


def _thin_recall(truth_HW: BoolArray, mask_HW: BoolArray, known_HW: BoolArray | None) -> float:
    """Return the share of the truth's `thin_structures` that was found; NaN where there are none.

    How thick something is that ends at unknown pixels is not known, so these are taken for the object then.
    """
    window = _window_around(truth_HW)
    truth_HW, mask_HW = truth_HW[window], mask_HW[window]
    if not truth_HW.size:
        return float("nan")
    if known_HW is None:
        thin_HW = thin_structures(truth_HW)
    else:
        known_HW = known_HW[window]
        thin_HW = thin_structures(truth_HW | ~known_HW) & known_HW
    found = int(np.count_nonzero(thin_HW & mask_HW))
    return _ratio(found, int(np.count_nonzero(thin_HW)), undefined=float("nan"))


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


def _boundary_distances(
    truth_HW: BoolArray, mask_HW: BoolArray, known_HW: BoolArray | None
) -> tuple[Distances, Distances] | None:
    """Return for each boundary pixel of the truth the distance to the mask's boundary, and the reverse; px, flat.

    Where only one side has a boundary its distances are infinite and the other's are empty. None if all of the truth's
    or of the mask's boundary is unknown or near unknown pixels.
    """
    window = _window_around(truth_HW | mask_HW)
    truth_HW, mask_HW = truth_HW[window], mask_HW[window]
    mask_edge_HW = boundary(mask_HW)
    if known_HW is None:
        truth_edge_HW = boundary(truth_HW)
        return _distance_px(mask_edge_HW)[truth_edge_HW], _distance_px(truth_edge_HW)[mask_edge_HW]
    known_HW = known_HW[window]
    truth_edge_HW = boundary(truth_HW | ~known_HW) & truth_HW & known_HW
    certain_HW = _distance_px(~known_HW) > BOUNDARY_TOLERANCE_PX
    counted_truth_HW, counted_mask_HW = truth_edge_HW & certain_HW, mask_edge_HW & certain_HW
    is_truth_hidden = (truth_HW & known_HW).any() and not counted_truth_HW.any()
    if is_truth_hidden or (mask_edge_HW.any() and not counted_mask_HW.any()):
        return None
    return _distance_px(mask_edge_HW)[counted_truth_HW], _distance_px(truth_edge_HW)[counted_mask_HW]


def _distance_px(edge_HW: BoolArray) -> Distances:
    """Return the exact Euclidean distance of every pixel to the nearest True one."""
    if not edge_HW.any():
        return np.full(edge_HW.shape, np.inf, np.float32)
    distance_HW: Distances = cv2.distanceTransform((~edge_HW).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance_HW


def _window_around(mask_HW: BoolArray) -> tuple[slice, slice]:
    """Return the smallest window with everything True and a margin around it, inside the picture.

    All pixels that decide about a boundary or thin pixel lie in it, so nothing computed on it differs from the whole
    picture's.
    """
    box_px = box_of(mask_HW)
    if box_px is None:
        return slice(0, 0), slice(0, 0)
    height, width = mask_HW.shape
    return slices(box_px, margin_px=_MARGIN_PX, size_HW=(height, width))


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
