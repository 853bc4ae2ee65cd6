"""Boxes and regions against brute force and SciPy; packing and unpacking."""

from fractions import Fraction
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from carmask.imaging import Vehicles
from carmask.imaging.masks import Area, PackedMask, Regions, box_of

shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14)
masks = hnp.arrays(np.bool_, shapes)
probabilities = hnp.arrays(np.float32, shapes, elements=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0]))


@given(masks)
def test_the_box_is_the_smallest_that_holds_the_mask(mask_HW):
    box_px = box_of(mask_HW)
    if not mask_HW.any():
        assert box_px is None
        return
    rows, columns = np.nonzero(mask_HW)
    assert box_px == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
    assert all(type(side) is int for side in box_px)


@given(masks)
def test_the_box_of_a_view_is_read_right(mask_HW):
    assert box_of(mask_HW.T) == box_of(np.ascontiguousarray(mask_HW.T))


def nearest_to_middle(region_HW, among):
    """The regions of `among` with the pixel nearest to the middle: distances of all pixels as exact fractions."""
    height, width = region_HW.shape
    squared = {}
    for (row, column), region in np.ndenumerate(region_HW):
        if region in among:
            distance = Fraction(2 * row + 1 - height, 2) ** 2 + Fraction(2 * column + 1 - width, 2) ** 2
            squared[int(region)] = min(distance, squared.get(int(region), distance))
    return {region for region, distance in squared.items() if distance == min(squared.values())}


@given(probabilities, st.sampled_from(get_args(Vehicles)), st.integers(0, 12))
def test_regions_are_those_of_scipy(probability_HW, vehicles, min_area_px):
    before_HW = probability_HW.copy()
    kept_HW = Regions(vehicles, Area(px=min_area_px)).keep(probability_HW, 0.5)
    np.testing.assert_array_equal(probability_HW, before_HW)
    region_HW, count = ndimage.label(probability_HW >= 0.5, structure=np.ones((3, 3)))
    areas = {region: int((region_HW == region).sum()) for region in range(1, count + 1)}
    large_enough = {region for region, area in areas.items() if area >= min_area_px}
    left = {int(region) for region in np.unique(region_HW[kept_HW >= 0.5])}
    if vehicles == "all":
        assert left == large_enough
    else:
        among = {region for region in large_enough if 20 * areas[region] >= max(areas.values())}
        if vehicles == "center":
            among = nearest_to_middle(region_HW, among)
        # Of equally large ones any, but only one.
        assert len(left) == min(1, len(among))
        assert all(region in among and areas[region] == max(areas[other] for other in among) for region in left)
    # A region stays or goes as a whole, and what stays keeps its probability.
    for region in range(1, count + 1):
        expected = probability_HW[region_HW == region] if region in left else 0
        np.testing.assert_array_equal(kept_HW[region_HW == region], expected)
    assert set(np.unique(kept_HW)) <= {0.0, *np.unique(probability_HW)}


@given(probabilities)
def test_nothing_is_changed_where_nothing_goes(probability_HW):
    assert Regions().keep(probability_HW, 0.5) is probability_HW


@given(probabilities)
def test_the_soft_fringe_goes_with_its_region(probability_HW):
    kept_HW = Regions("largest").keep(probability_HW, 0.5)
    mask_HW = probability_HW >= 0.5
    stays_HW = mask_HW & (kept_HW >= 0.5)
    if kept_HW is probability_HW:
        return
    to_staying_HW = ndimage.distance_transform_edt(~stays_HW)
    to_going_HW = ndimage.distance_transform_edt(~(mask_HW & ~stays_HW))
    clearly_stays, clearly_goes = to_staying_HW * 1.1 < to_going_HW, to_going_HW * 1.1 < to_staying_HW
    np.testing.assert_array_equal(kept_HW[clearly_stays], probability_HW[clearly_stays])
    assert not kept_HW[clearly_goes].any()


def test_a_smaller_blob_vanishes_with_its_halo():
    rows, columns = np.mgrid[:80, :120]
    large = 1 - np.hypot(rows - 40, columns - 30) / 40
    small = 0.8 - np.hypot(rows - 40, columns - 100) / 15
    probability_HW = np.maximum(np.maximum(large, small), 0).astype(np.float32)
    kept_HW = Regions("largest").keep(probability_HW, 0.5)
    assert not kept_HW[:, 90:].any()
    np.testing.assert_array_equal(kept_HW[:, :70], probability_HW[:, :70])
    np.testing.assert_array_equal(Regions(min_area=Area(px=200)).keep(probability_HW, 0.5), kept_HW)
    assert Regions(min_area=Area(px=10)).keep(probability_HW, 0.5) is probability_HW
    assert not Regions(min_area=Area(px=80 * 120)).keep(probability_HW, 0.5).any()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_regions_are_those_at_the_threshold(threshold):
    probability_HW = np.array([[0.95, 0.95, 0.6, 0.92]], dtype=np.float32)
    kept_HW = Regions("largest").keep(probability_HW, threshold)
    assert (kept_HW[0, 3] == 0) == (threshold == 0.9)


@pytest.mark.parametrize("text", ["0px", "400px", "1234567px", "98765432px", "0.500000%", "12.345678%"])
def test_an_area_is_written_as_it_is_read(text):
    assert str(Area.parse(text)) == text


@pytest.mark.parametrize(("speck_px", "wins"), [(4, False), (5, True)])
def test_a_speck_in_the_middle_is_not_the_vehicle(speck_px, wins):
    probability_HW = np.zeros((21, 31), dtype=np.float32)
    probability_HW[:10, 20:30] = 0.9
    probability_HW[14:18, 1:9] = 0.9
    probability_HW[12, 15 : 15 + speck_px] = 0.9
    kept_HW = Regions("center").keep(probability_HW, 0.5) > 0
    assert (kept_HW[12, 15], kept_HW[5, 25], kept_HW[15, 5]) == (wins, not wins, False)


def test_of_two_as_near_to_the_middle_the_larger_is_kept():
    probability_HW = np.zeros((20, 30), dtype=np.float32)
    probability_HW[5:15, 2:8] = probability_HW[5:15, -8:-2] = 0.9
    probability_HW[15, -4] = 0.9
    kept_HW = Regions("center").keep(probability_HW, 0.5) > 0
    assert kept_HW[10, -5]
    assert not kept_HW[:, :15].any()


@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_a_packed_mask_comes_back_as_it_was(mask_HW):
    packed = PackedMask.of(mask_HW)
    assert packed.size_HW == mask_HW.shape
    assert packed.mask_HW.dtype == np.bool_
    np.testing.assert_array_equal(packed.mask_HW, mask_HW)


def test_packing_takes_an_eighth_of_the_memory():
    assert PackedMask.of(np.ones((10, 800), bool)).bits.nbytes == 1000
