"""The metrics against slow independent references: loops over pixels, pairwise distances, scipy's morphology."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.spatial.distance import cdist

from carmask.evaluation import metrics


@st.composite
def mask_pairs(draw):
    """Two masks of one small size; half of the time blobs of a few rectangles, so that outlines are long."""
    shape = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    if draw(st.booleans()):
        return draw(arrays(bool, shape)), draw(arrays(bool, shape))
    masks = np.zeros((2, *shape), dtype=bool)
    for mask_HW in masks:
        for _ in range(draw(st.integers(0, 3))):
            top, left = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
            mask_HW[top : top + draw(st.integers(1, 14)), left : left + draw(st.integers(1, 14))] = True
    return masks[0], masks[1]


def slow_confusion(truth_HW, mask_HW):
    counts = {"tp": 0, "fp": 0, "fn": 0, "tn": 0}
    for t, m in zip(truth_HW.ravel().tolist(), mask_HW.ravel().tolist(), strict=True):
        counts[("t" if t == m else "f") + ("p" if m else "n")] += 1
    return counts


def slow_boundary(mask_HW):
    """Coordinates of object pixels with a background pixel directly above, below, left or right in the picture."""
    height_px, width_px = mask_HW.shape
    found = []
    for y, x in itertools.product(range(height_px), range(width_px)):
        around = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        inside = [(v, u) for v, u in around if 0 <= v < height_px and 0 <= u < width_px]
        if mask_HW[y, x] and any(not mask_HW[v, u] for v, u in inside):
            found.append((y, x))
    return found


def slow_boundary_metrics(truth_HW, mask_HW, tolerance_px):
    """Boundary F1 and mean boundary error from every distance between two boundary pixels."""
    truth_yx, mask_yx = slow_boundary(truth_HW), slow_boundary(mask_HW)
    if not truth_yx or not mask_yx:
        same = bool((truth_HW == mask_HW).all())
        return float(same), 0.0 if same else math.nan
    distance_px = cdist(truth_yx, mask_yx)
    recall = (distance_px.min(axis=1) <= tolerance_px).mean()
    precision = (distance_px.min(axis=0) <= tolerance_px).mean()
    f1 = 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)
    return f1, np.concatenate([distance_px.min(axis=1), distance_px.min(axis=0)]).mean()


@given(mask_pairs())
def test_area_metrics_equal_counting_by_hand(pair):
    truth_HW, mask_HW = pair
    n = slow_confusion(truth_HW, mask_HW)
    assert vars(metrics.confusion(truth_HW, mask_HW)) == n
    both_empty = n["tp"] + n["fp"] + n["fn"] == 0
    measured = metrics.measure(truth_HW, mask_HW)
    for name, part, whole in (
        ("dice", 2 * n["tp"], 2 * n["tp"] + n["fp"] + n["fn"]),
        ("iou", n["tp"], n["tp"] + n["fp"] + n["fn"]),
        ("precision", n["tp"], n["tp"] + n["fp"]),
        ("recall", n["tp"], n["tp"] + n["fn"]),
    ):
        expected = part / whole if whole else float(both_empty)
        assert getattr(measured, name) == pytest.approx(expected, abs=1e-12), name
    assert metrics.dice(truth_HW, mask_HW) == measured.dice
    assert measured.truth_area == pytest.approx(truth_HW.mean())
    assert measured.predicted_area == pytest.approx(mask_HW.mean())


@given(mask_pairs())
def test_boundary_metrics_equal_all_pairwise_distances(pair):
    truth_HW, mask_HW = pair
    f1, error_px = slow_boundary_metrics(truth_HW, mask_HW, tolerance_px=2)
    measured = metrics.measure(truth_HW, mask_HW)
    assert measured.boundary_f1 == pytest.approx(f1, abs=1e-12)
    assert measured.boundary_error_px == pytest.approx(error_px, abs=1e-5, nan_ok=True)


@given(mask_pairs())
def test_symmetric_metrics_do_not_depend_on_the_order(pair):
    truth_HW, mask_HW = pair
    forth, back = metrics.measure(truth_HW, mask_HW), metrics.measure(mask_HW, truth_HW)
    assert (forth.dice, forth.iou) == (back.dice, back.iou)
    assert forth.boundary_f1 == pytest.approx(back.boundary_f1)
    assert forth.boundary_error_px == pytest.approx(back.boundary_error_px, nan_ok=True)
    if truth_HW.any() and mask_HW.any():
        assert forth.precision == back.recall


@given(arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))))
def test_a_mask_agrees_with_itself(mask_HW):
    measured = metrics.measure(mask_HW, mask_HW.copy())
    scores = (measured.dice, measured.iou, measured.precision, measured.recall, measured.boundary_f1)
    assert scores == (1.0,) * 5
    assert measured.boundary_error_px == 0.0


def blob_masks(rng, size_HW):
    """Two smooth blobs that differ a little, some cut off by the picture's edge."""
    noise_HW = ndimage.gaussian_filter(rng.standard_normal(size_HW), 12)
    shifted_HW = ndimage.shift(noise_HW, rng.uniform(-4, 4, 2), order=1, mode="nearest")
    return noise_HW > 0.01, shifted_HW > 0.012


@pytest.mark.parametrize("seed", range(6))
def test_boundary_metrics_on_blobs_equal_scipy(seed):
    """At a few hundred pixels, where windows and float32 could go wrong, against scipy's own morphology."""
    rng = np.random.default_rng(seed)
    truth_HW, mask_HW = blob_masks(rng, (230, 310))
    cross = ndimage.generate_binary_structure(2, 1)
    # border_value=1: what lies outside the picture is no background
    edges = [m & ~ndimage.binary_erosion(m, cross, border_value=1) for m in (truth_HW, mask_HW)]
    from_truth = ndimage.distance_transform_edt(~edges[1])[edges[0]]
    from_mask = ndimage.distance_transform_edt(~edges[0])[edges[1]]
    assert min(from_truth.size, from_mask.size) > 100
    precision, recall = (from_mask <= 2).mean(), (from_truth <= 2).mean()
    measured = metrics.measure(truth_HW, mask_HW)
    assert measured.boundary_f1 == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-9)
    assert measured.boundary_error_px == pytest.approx(np.concatenate([from_truth, from_mask]).mean(), abs=1e-4)


EMPTY_HW = np.zeros((9, 12), dtype=bool)
FULL_HW = ~EMPTY_HW
SOME_HW = EMPTY_HW.copy()
SOME_HW[2:6, 3:8] = True


@pytest.mark.parametrize(
    ("truth_HW", "mask_HW", "expected"),
    [
        # dice, iou, precision, recall, boundary F1, boundary error
        (EMPTY_HW, EMPTY_HW, (1, 1, 1, 1, 1, 0)),
        (FULL_HW, FULL_HW, (1, 1, 1, 1, 1, 0)),
        (EMPTY_HW, FULL_HW, (0, 0, 0, 0, 0, math.nan)),
        (FULL_HW, EMPTY_HW, (0, 0, 0, 0, 0, math.nan)),
        (SOME_HW, EMPTY_HW, (0, 0, 0, 0, 0, math.nan)),
        (EMPTY_HW, SOME_HW, (0, 0, 0, 0, 0, math.nan)),
        (SOME_HW, FULL_HW, (40 / 128, 20 / 108, 20 / 108, 1, 0, math.nan)),
        (FULL_HW, SOME_HW, (40 / 128, 20 / 108, 1, 20 / 108, 0, math.nan)),
    ],
    ids=["none-none", "full-full", "none-full", "full-none", "some-none", "none-some", "some-full", "full-some"],
)
def test_empty_and_full_masks(truth_HW, mask_HW, expected):
    m = metrics.measure(truth_HW, mask_HW)
    got = (m.dice, m.iou, m.precision, m.recall, m.boundary_f1, m.boundary_error_px)
    assert got == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("moved_px", "f1"), [(2, 1.0), (3, 0.0)])
def test_an_outline_moved_by_so_many_pixels_is_so_many_off(moved_px, f1):
    """The unit is the pixel: two long straight outlines some pixels apart, both running into the picture's edge."""
    truth_HW, mask_HW = np.zeros((2, 50, 400), dtype=bool)
    truth_HW[20:], mask_HW[20 + moved_px :] = True, True
    measured = metrics.measure(truth_HW, mask_HW)
    assert (measured.boundary_error_px, measured.boundary_f1) == (moved_px, f1)


def test_slices_and_other_memory_layouts_give_the_same_figures():
    truth_HW, mask_HW = blob_masks(np.random.default_rng(7), (120, 160))
    expected = metrics.measure(truth_HW, mask_HW)
    assert metrics.measure(np.asfortranarray(truth_HW), mask_HW) == expected
    turned = metrics.measure(truth_HW[::-1, ::-1], mask_HW[::-1, ::-1])
    assert vars(turned) == pytest.approx(vars(expected), abs=1e-6)


def test_what_is_no_pair_of_masks_is_refused():
    with pytest.raises(metrics.MaskMismatchError, match=r"\(9, 12\).*\(12, 9\)"):
        metrics.measure(EMPTY_HW, EMPTY_HW.T)
    with pytest.raises(metrics.MaskMismatchError, match="predicted mask has dtype float32"):
        metrics.dice(EMPTY_HW, EMPTY_HW.astype(np.float32))
