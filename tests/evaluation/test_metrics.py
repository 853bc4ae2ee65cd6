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

from carmask.evaluation import metrics, outlines


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


@st.composite
def known_pairs(draw):
    """Two masks, and what of the truth is known: all but a few rectangles and pixels."""
    truth_HW, mask_HW = draw(mask_pairs())
    height, width = truth_HW.shape
    known_HW = np.ones((height, width), dtype=bool)
    for _ in range(draw(st.integers(0, 2))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        known_HW[top : top + draw(st.integers(1, 6)), left : left + draw(st.integers(1, 6))] = False
    return truth_HW, mask_HW, known_HW


@given(known_pairs(), st.randoms(use_true_random=False))
def test_what_is_unknown_has_no_say(case, random):
    truth_HW, mask_HW, known_HW = case
    measured = metrics.measure(truth_HW, mask_HW, known_HW)
    noise_HW = np.array([random.random() < 0.5 for _ in range(truth_HW.size)]).reshape(truth_HW.shape)
    other = metrics.measure(np.where(known_HW, truth_HW, noise_HW), mask_HW, known_HW)
    assert vars(other) == pytest.approx(vars(measured), nan_ok=True), "the stored truth of unknown pixels"
    changed = metrics.measure(truth_HW, np.where(known_HW, mask_HW, noise_HW), known_HW)
    for name in ("dice", "iou", "precision", "recall", "spilled", "thin_recall", "truth_area", "predicted_area"):
        assert getattr(changed, name) == pytest.approx(getattr(measured, name), nan_ok=True), name


@given(known_pairs())
def test_area_metrics_count_known_pixels(case):
    truth_HW, mask_HW, known_HW = case
    n = slow_confusion(truth_HW[known_HW], mask_HW[known_HW])
    assert vars(metrics.confusion(truth_HW, mask_HW, known_HW)) == n
    measured = metrics.measure(truth_HW, mask_HW, known_HW)
    assert measured.dice == metrics.dice(truth_HW, mask_HW, known_HW)
    assert measured.found == measured.recall == metrics.Confusion(**n).recall
    labeled = n["tp"] + n["fn"]
    assert measured.spilled == pytest.approx(n["fp"] / labeled if labeled else math.nan, nan_ok=True)
    assert measured.unknown_area == pytest.approx(1 - known_HW.mean())
    for area, count in ((measured.truth_area, labeled), (measured.predicted_area, n["tp"] + n["fp"])):
        assert area == pytest.approx(count / max(known_HW.sum(), 1))


@given(known_pairs())
def test_boundary_metrics_leave_out_what_is_near_unknown_pixels(case):
    truth_HW, mask_HW, known_HW = case
    truth_HW = truth_HW & known_HW
    height_px, width_px = truth_HW.shape

    def meets_background(y, x):
        around = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        return any(known_HW[v, u] and not truth_HW[v, u] for v, u in around if 0 <= v < height_px and 0 <= u < width_px)

    unknown_yx = np.argwhere(~known_HW)
    outlines = [[yx for yx in map(tuple, np.argwhere(truth_HW)) if meets_background(*yx)], slow_boundary(mask_HW)]
    certain = [
        [yx for yx in outline if not len(unknown_yx) or cdist([yx], unknown_yx).min() > 2] for outline in outlines
    ]
    measured = metrics.measure(truth_HW, mask_HW, known_HW)
    is_unknown = [len(unknown_yx) > 0 and truth_HW.any(), outlines[1]]
    if any(possible and not some for possible, some in zip(is_unknown, certain, strict=True)):
        assert math.isnan(measured.boundary_f1)
        assert math.isnan(measured.boundary_error_px)
        return
    if not all(outlines):
        same = bool((truth_HW == mask_HW)[known_HW].all())
        assert (measured.boundary_f1, measured.boundary_error_px) == pytest.approx(
            (float(same), 0.0 if same else math.nan), nan_ok=True
        )
        return
    forth, back = cdist(certain[0], outlines[1]).min(axis=1), cdist(certain[1], outlines[0]).min(axis=1)
    recall, precision = (forth <= 2).mean(), (back <= 2).mean()
    f1 = 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)
    assert measured.boundary_f1 == pytest.approx(f1, abs=1e-12)
    assert measured.boundary_error_px == pytest.approx(np.concatenate([forth, back]).mean(), abs=1e-5)


@given(mask_pairs())
def test_known_everywhere_is_known(pair):
    truth_HW, mask_HW = pair
    whole = metrics.measure(truth_HW, mask_HW)
    assert vars(metrics.measure(truth_HW, mask_HW, np.ones_like(truth_HW))) == pytest.approx(vars(whole), nan_ok=True)


DISK_88 = np.hypot(*np.mgrid[-3.5:4, -3.5:4]) <= 4


@pytest.mark.parametrize("seed", range(8))
def test_thin_structures_equal_scipy_s_opening(seed):
    rng = np.random.default_rng(seed)
    smooth_HW = ndimage.gaussian_filter(rng.standard_normal((90, 130)), rng.choice([2, 4]))
    truth_HW = smooth_HW > rng.choice([-0.05, 0.02])
    opened_HW = ndimage.binary_opening(np.pad(truth_HW, 8, mode="edge"), DISK_88)[8:-8, 8:-8]
    thin_HW = truth_HW & ~opened_HW
    assert 0 < thin_HW.sum() < truth_HW.sum()
    np.testing.assert_array_equal(outlines.thin_structures(truth_HW), thin_HW)
    mask_HW = rng.random(truth_HW.shape) < 0.7
    measured = metrics.measure(truth_HW, mask_HW)
    assert measured.thin_recall == pytest.approx(mask_HW[thin_HW].mean())


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("width_px", "is_thin"), [(1, True), (7, True), (8, False), (30, False)])
def test_a_bar_is_thin_below_8_px(width_px, is_thin, turned):
    truth_HW = np.zeros((60, 50), dtype=bool)
    truth_HW[:, 9 : 9 + width_px] = True
    truth_HW = truth_HW.T if turned else truth_HW
    np.testing.assert_array_equal(outlines.thin_structures(truth_HW), truth_HW & is_thin)


def test_thin_recall_counts_thin_pixels_alone():
    truth_HW = np.zeros((80, 80), dtype=bool)
    truth_HW[20:, :] = True
    truth_HW[5:20, 30:33] = True
    mask_HW = truth_HW.copy()
    mask_HW[40:] = False
    mask_HW[5:10] = False
    assert metrics.measure(truth_HW, mask_HW).thin_recall == pytest.approx(2 / 3)
    assert math.isnan(metrics.measure(truth_HW[20:], mask_HW[20:]).thin_recall)
    known_HW = np.ones_like(truth_HW)
    known_HW[:8] = False
    assert metrics.measure(truth_HW, mask_HW, known_HW).thin_recall == pytest.approx(10 / 12)
    # Beside unknown pixels nobody knows how thick it is.
    known_HW[:20, 33:50] = False
    assert math.isnan(metrics.measure(truth_HW, mask_HW, known_HW).thin_recall)


@given(st.integers(0, 12), st.integers(0, 400))
def test_a_photo_without_an_object_scores_by_the_share_of_its_known_pixels_that_is_called_one(
    wrong: int, unknown: int
) -> None:
    truth_HW, mask_HW, known_HW = (np.full((100, 100), value) for value in (False, False, True))
    mask_HW.flat[:wrong] = True
    known_HW.flat[5000 : 5000 + unknown] = False
    mask_HW.flat[5000 : 5000 + unknown] = True
    score = metrics.photo_dice(truth_HW, mask_HW, known_HW)
    assert score == float(wrong / (10_000 - unknown) < 0.001)
    truth_HW.flat[0] = True
    assert metrics.photo_dice(truth_HW, mask_HW, known_HW) == metrics.dice(truth_HW, mask_HW, known_HW)
