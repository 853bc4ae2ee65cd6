import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from carmask.imaging.crops import LONGEST_PX, cut_inputs, outline_cells, paste_crops, refined_size

sizes = st.tuples(st.integers(1, 150), st.integers(1, 150))


@given(sizes, st.integers(0, 2**32 - 1), st.sampled_from([16, 32, 64]))
def test_all_pixels_near_the_outline_are_in_one_cell_and_no_cell_is_without_any(
    size_HW: tuple[int, int], seed: int, crop_px: int
) -> None:
    rng = np.random.default_rng(seed)
    probability_HW = ndimage.zoom(rng.random((4, 4)), [side / 4 for side in size_HW], order=1).astype(np.float32)
    cells = outline_cells(probability_HW, crop_px)
    cell_px = crop_px * 3 // 4
    covered_HW = np.zeros(size_HW, np.int64)
    for row, column in cells:
        covered_HW[row : row + cell_px, column : column + cell_px] += 1
    mask_HW = np.pad(probability_HW >= 0.5, 4, "edge")
    # A square of 9 x 9 pixels around a pixel is all vehicle, or all background, or has the outline in it.
    share_HW = ndimage.uniform_filter(mask_HW.astype(float), 9)[4:-4, 4:-4]
    is_near_HW = (share_HW > 1e-6) & (share_HW < 1 - 1e-6)
    assert covered_HW.max(initial=0) <= 1
    assert (covered_HW[is_near_HW] == 1).all()
    assert all(is_near_HW[row : row + cell_px, column : column + cell_px].any() for row, column in cells)


@given(sizes, st.integers(0, 2**32 - 1), st.sampled_from([16, 32, 64]))
def test_crops_that_nobody_changed_leave_the_probability_as_it_was(
    size_HW: tuple[int, int], seed: int, crop_px: int
) -> None:
    rng = np.random.default_rng(seed)
    probability_HW = rng.integers(0, 256, size_HW).astype(np.float32) / 255
    image_HWC = rng.integers(0, 256, (*size_HW, 3), dtype=np.uint8)
    cells = outline_cells(probability_HW, crop_px)
    crops = cut_inputs(image_HWC, probability_HW, cells, crop_px)
    assert crops.shape == (len(cells), crop_px, crop_px, 4)
    refined = (crop_HWC[..., 3].astype(np.float32) / 255 for crop_HWC in crops)
    np.testing.assert_allclose(paste_crops(probability_HW, cells, refined, crop_px), probability_HW, atol=1e-6)
    margin_px = crop_px // 8
    for (top, left), crop_HWC in zip(cells, crops, strict=True):
        inside_HWC = image_HWC[top : top + crop_px - margin_px, left : left + crop_px - margin_px]
        height, width = inside_HWC.shape[:2]
        np.testing.assert_array_equal(crop_HWC[margin_px:, margin_px:][:height, :width, :3], inside_HWC)


@given(st.tuples(st.integers(1, 60_000), st.integers(1, 60_000)))
def test_photos_are_refined_at_their_own_size_up_to_a_limit(photo_HW: tuple[int, int]) -> None:
    longest_px = max(photo_HW)
    refined_HW = refined_size(photo_HW)
    assert max(refined_HW) == min(LONGEST_PX, longest_px)
    scale = min(1, LONGEST_PX / longest_px)
    assert all(abs(side * scale - new) <= 1 for side, new in zip(photo_HW, refined_HW, strict=True))
