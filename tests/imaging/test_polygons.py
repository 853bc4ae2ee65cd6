"""Outlines, filled again by the rule that they state and by Pillow."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw
from scipy import ndimage

from carmask.imaging.decode import decode_mask
from carmask.imaging.polygons import OutlineError, fill_rings, find_polygons, geojson, joined, signed_area

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
FINER = 6


def rings_of(polygons):
    return [ring for polygon in polygons for ring in polygon]


def filled(rings, size_HW):
    """Pixels whose middle lies inside an odd number of rings: to its left they are crossed an odd number of times."""
    odd_HW = np.zeros(size_HW, dtype=np.bool_)
    middle_W = np.arange(size_HW[1]) + 0.5
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            for row in range(size_HW[0]):
                if (y0 <= row + 0.5) != (y1 <= row + 0.5):
                    odd_HW[row] ^= middle_W > x0 + (row + 0.5 - y0) / (y1 - y0) * (x1 - x0)
    return odd_HW


def filled_by_pillow(polygons, size_HW):
    """Exteriors drawn white and holes black, several times as large, and looked at in the middle of each pixel."""
    picture = Image.new("1", (size_HW[1] * FINER, size_HW[0] * FINER))
    for polygon in polygons:
        alone = Image.new("1", picture.size)
        pen = ImageDraw.Draw(alone)
        pen.polygon([(x * FINER, y * FINER) for x, y in polygon[0].tolist()], fill=1)
        for hole in polygon[1:]:
            pen.polygon([(x * FINER, y * FINER) for x, y in hole.tolist()], fill=0)
        picture.paste(1, mask=alone)
    return np.asarray(picture)[FINER // 2 :: FINER, FINER // 2 :: FINER]


@given(masks)
def test_exact_outlines_give_the_mask_back(mask_HW):
    polygons = find_polygons(mask_HW, tolerance_px=0)
    np.testing.assert_array_equal(filled(rings_of(polygons), mask_HW.shape), mask_HW)
    np.testing.assert_array_equal(filled_by_pillow(polygons, mask_HW.shape), mask_HW)


@given(masks, st.sampled_from([0, 0.5]))
def test_a_polygon_for_each_region_and_a_ring_for_each_hole(mask_HW, tolerance_px):
    polygons = find_polygons(mask_HW, tolerance_px=tolerance_px)
    _, regions = ndimage.label(mask_HW, structure=np.ones((3, 3)))
    _, gaps = ndimage.label(np.pad(~mask_HW, 1, constant_values=True))
    assert len(polygons) == regions
    assert sum(len(polygon[1:]) for polygon in polygons) == gaps - 1
    for polygon in polygons:
        assert signed_area(polygon[0]) > 0
        assert all(signed_area(hole) < 0 for hole in polygon[1:])


@given(masks)
def test_outlines_stay_in_the_picture_and_never_touch(mask_HW):
    rings = rings_of(find_polygons(mask_HW, tolerance_px=0))
    for ring in rings:
        assert (ring >= 0).all()
        assert (ring <= mask_HW.shape[::-1]).all()
    points = [tuple(point) for ring in rings for point in ring.tolist()]
    assert len(points) == len(set(points)), "no point is passed twice"


def test_a_square_with_a_hole_and_an_island_in_it():
    mask_HW = np.zeros((20, 30), dtype=np.bool_)
    mask_HW[4:16, 5:25] = True
    mask_HW[7:13, 10:20] = False
    mask_HW[9:11, 14:16] = True
    outer, island = find_polygons(mask_HW, tolerance_px=0)
    assert len(outer[1:]) == 1
    assert not island[1:]
    corners_cut = 4 * 0.5**3
    assert signed_area(outer[0]) == 12 * 20 - corners_cut
    assert signed_area(outer[1]) == -(6 * 10 - corners_cut)
    assert outer[0].min(axis=0).tolist() == [5, 4], "from the outer sides of the outermost pixels"
    assert outer[0].max(axis=0).tolist() == [25, 16]
    assert len(outer[0]) == 8, "straight lines have no points on them"


def test_simplified_outlines_of_real_masks(carvana):
    for path in sorted((carvana / "train_masks").glob("*.gif"))[::400]:
        mask_HW = decode_mask(path).mask_HW
        polygons = find_polygons(mask_HW)
        drawn_HW = filled_by_pillow(polygons, mask_HW.shape)
        dice = 2 * (drawn_HW & mask_HW).sum() / (drawn_HW.sum() + mask_HW.sum())
        assert dice > 0.9995
        assert len(json.dumps(geojson(polygons, mask_HW.shape, path.name))) < 20_000


@given(masks, st.sampled_from([0.3, 0.5, 1.0, 3.0]))
def test_simplified_outlines_have_no_more_points_and_lose_no_region(mask_HW, tolerance_px):
    exact, simple = find_polygons(mask_HW, tolerance_px=0), find_polygons(mask_HW, tolerance_px=tolerance_px)
    assert len(simple) == len(exact)
    for ring, exact_ring in zip(rings_of(simple), rings_of(exact), strict=True):
        assert 3 <= len(ring) <= len(exact_ring)
        assert set(map(tuple, ring.tolist())) <= set(map(tuple, exact_ring.tolist()))


# Off the middles of pixels, where rounding decides.
coordinates = st.integers(-40, 160).map(lambda tenth: tenth / 10 + 0.03)
rings_anywhere = st.lists(
    st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=6).map(np.array), min_size=1, max_size=4
)


@given(rings_anywhere, st.integers(1, 12), st.integers(1, 12))
def test_rings_are_filled_by_the_even_odd_rule_also_beyond_the_picture(rings, height, width):
    mask_HW = np.zeros((height, width), dtype=np.bool_)
    fill_rings(rings, mask_HW)
    np.testing.assert_array_equal(mask_HW, filled(rings, (height, width)))


@pytest.mark.parametrize(("times", "is_inside"), [(255, True), (256, False), (257, True)])
def test_a_ring_that_is_there_many_times(times, is_inside):
    mask_HW = np.zeros((4, 5), dtype=np.bool_)
    fill_rings([np.array([(1.0, 1.0), (4.0, 1.0), (4.0, 3.0), (1.0, 3.0)])] * times, mask_HW)
    assert mask_HW.sum() == (6 if is_inside else 0)


def test_filling_takes_little_more_memory_than_the_mask():
    mask_HW = np.zeros((2000, 1500), dtype=np.bool_)
    tracemalloc.start()
    fill_rings([np.array([(0.0, 0.0), (1500.0, 0.0), (1500.0, 2000.0), (0.0, 2000.0)])], mask_HW)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert mask_HW.all()
    assert peak_bytes < 4 * mask_HW.size


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e9])
def test_a_coordinate_that_is_no_place_is_refused(wrong):
    with pytest.raises(OutlineError):
        fill_rings([np.array([(0.0, 0.0), (wrong, 1.0), (1.0, 1.0)])], np.zeros((3, 4), dtype=np.bool_))


def test_geojson_is_closed_and_says_what_it_is_of():
    mask_HW = np.zeros((40, 60), dtype=np.bool_)
    mask_HW[10:30, 10:50] = True
    mask_HW[15:20, 20:30] = False
    document = json.loads(json.dumps(geojson(find_polygons(mask_HW, tolerance_px=0), mask_HW.shape, "cars/a b.jpg")))
    (feature,) = document["features"]
    assert (document["type"], feature["type"]) == ("FeatureCollection", "Feature")
    assert feature["properties"] == {
        "photo": "cars/a b.jpg",
        "height_px": 40,
        "width_px": 60,
        "coverage": pytest.approx(mask_HW.mean(), abs=1e-3),
    }
    assert feature["geometry"]["type"] == "MultiPolygon"
    ((exterior, hole),) = feature["geometry"]["coordinates"]
    for ring in (exterior, hole):
        assert ring[0] == ring[-1]
        assert len(ring) >= 4
    np.testing.assert_array_equal(filled([np.array(exterior[:-1]), np.array(hole[:-1])], mask_HW.shape), mask_HW)


def joined_by_looking_at_all_points(polygon):
    ring, *holes = polygon
    for hole in holes:
        nearest = int(np.square(ring - hole[0]).sum(axis=1).argmin())
        ring = np.concatenate([ring[: nearest + 1], hole, hole[:1], ring[nearest:]])
    return ring


def noise(side_px, seed):
    return np.random.default_rng(seed).random((side_px, side_px)) > 0.2


@settings(max_examples=10)
@given(st.integers(1, 90), st.integers(0, 999), st.sampled_from([0, 0.5]))
def test_holes_are_joined_where_they_are_nearest(side_px, seed, tolerance_px):
    for polygon in find_polygons(noise(side_px, seed), tolerance_px=tolerance_px):
        np.testing.assert_array_equal(joined(polygon), joined_by_looking_at_all_points(polygon))


def test_thousands_of_holes_are_joined():
    mask_HW = noise(200, 0)
    drawn_HW = np.zeros_like(mask_HW)
    polygons = find_polygons(mask_HW, tolerance_px=0)
    assert max(map(len, polygons)) > 4000
    for polygon in polygons:
        fill_rings([joined(polygon)], drawn_HW)
    np.testing.assert_array_equal(drawn_HW, mask_HW)


def test_no_vehicle_is_an_empty_multipolygon():
    empty_HW = np.zeros((4, 6), dtype=np.bool_)
    assert find_polygons(empty_HW) == []
    (feature,) = geojson([], (4, 6), "x.jpg")["features"]
    assert feature["geometry"] == {"type": "MultiPolygon", "coordinates": []}
    assert feature["properties"]["coverage"] == 0


def test_what_is_no_mask_is_refused():
    with pytest.raises(ValueError, match="bool"):
        find_polygons(np.zeros((3, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match="tolerance"):
        find_polygons(np.zeros((3, 4), dtype=np.bool_), tolerance_px=-1)
