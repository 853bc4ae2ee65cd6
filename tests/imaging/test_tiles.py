from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carmask.imaging.geometry import Geometry
from carmask.imaging.masks import slices
from carmask.imaging.tiles import MOST_ZOOM, blend, plan_tiles

sides = st.integers(1, 700)
geometries = st.builds(
    Geometry, height_px=st.integers(16, 200), width_px=st.integers(16, 200), keep_aspect=st.booleans()
)


@settings(max_examples=200)
@given(sides, sides, geometries)
def test_tiles_cover_the_photo_and_overlap(height: int, width: int, geometry: Geometry) -> None:
    tiles = plan_tiles((height, width), geometry)
    seen_HW = np.zeros((height, width), int)
    for tile in tiles:
        top, left, bottom, right = tile
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
        seen_HW[top:bottom, left:right] += 1
    shrink = (max if geometry.keep_aspect else min)(height / geometry.height_px, width / geometry.width_px)
    assert bool(tiles) == (shrink > 1)
    if not tiles:
        return
    assert seen_HW.min() >= 1
    (tile_HW,) = {(bottom - top, right - left) for top, left, bottom, right in tiles}
    zoom = min(shrink, MOST_ZOOM)
    for side, tile, starts in (
        (height, tile_HW[0], sorted({tile[0] for tile in tiles})),
        (width, tile_HW[1], sorted({tile[1] for tile in tiles})),
    ):
        assert tile == pytest.approx(side / zoom, abs=1)
        # A quarter in common, but for rounding to whole pixels.
        assert all(right - left <= max(1, 0.75 * tile + 1) for left, right in pairwise(starts))


@settings(max_examples=100)
@given(sides, sides, geometries, st.integers(0, 1000))
def test_pieces_of_a_picture_are_blended_to_that_picture(
    height: int, width: int, geometry: Geometry, seed: int
) -> None:
    tiles = plan_tiles((height, width), geometry)
    if not tiles:
        return
    picture_HW = np.random.default_rng(seed).random((height, width), np.float32)
    pieces = [(tile, picture_HW[slices(tile)]) for tile in tiles]
    blended_HW = blend(pieces, (height, width))
    assert blended_HW.dtype == np.float32
    np.testing.assert_allclose(blended_HW, picture_HW, atol=1e-5)
    assert blended_HW.max() <= 1


def test_tiles_that_disagree_leave_no_seam() -> None:
    size_HW = (240, 360)
    tiles = plan_tiles(size_HW, Geometry(height_px=120, width_px=180, keep_aspect=True))
    rng = np.random.default_rng(0)
    pieces = [(tile, np.full_like(np.zeros(size_HW, np.float32)[slices(tile)], rng.random())) for tile in tiles]
    blended_HW = blend(pieces, size_HW)
    assert np.ptp(blended_HW) > 0.3
    # The steepest rise of sin² over the overlap of a quarter tile is a few hundredths of the difference.
    assert max(np.abs(np.diff(blended_HW, axis=axis)).max() for axis in (0, 1)) < 0.06
