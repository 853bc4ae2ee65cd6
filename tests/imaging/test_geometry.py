from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from carmask.imaging.geometry import (
    Geometry,
    GeometryError,
    Placement,
    fit_image,
    fit_known,
    fit_mask,
    plan,
    restore,
)

sides = st.integers(1, 3000)
strides = st.sampled_from([1, 2, 4, 32, 64])
geometries = st.builds(
    Geometry, height_px=st.integers(16, 300), width_px=st.integers(16, 300), keep_aspect=st.booleans()
)
stretched = st.builds(Geometry, height_px=st.integers(16, 300), width_px=st.integers(16, 300))


def area_average(pixels_HW: NDArray[np.floating], size_HW: tuple[int, int]) -> NDArray[np.float64]:
    """Mean of the photo over the area of each new pixel, from interpolated running sums."""
    for axis, new in enumerate(size_HW):
        side = pixels_HW.shape[axis]
        sums = np.concatenate([np.zeros_like(pixels_HW.take([0], axis)), pixels_HW.cumsum(axis)], axis)
        at = np.linspace(0, side, new + 1)
        edges = np.apply_along_axis(lambda line, at=at, side=side: np.interp(at, np.arange(side + 1), line), axis, sums)
        pixels_HW = np.diff(edges, axis=axis) * new / side
    return pixels_HW


def disc(size_HW: tuple[int, int], center_yx: tuple[float, float], radius: float) -> NDArray[np.bool_]:
    y_HW, x_HW = np.mgrid[: size_HW[0], : size_HW[1]] + 0.5
    return (y_HW - center_yx[0]) ** 2 + (x_HW - center_yx[1]) ** 2 < radius**2


def centroid(weight_HW: NDArray[np.floating]) -> tuple[float, float]:
    """Center of mass as shares of height and width."""
    y_HW, x_HW = np.mgrid[: weight_HW.shape[0], : weight_HW.shape[1]] + 0.5
    total = weight_HW.sum()
    return (y_HW * weight_HW).sum() / total / weight_HW.shape[0], (x_HW * weight_HW).sum() / total / weight_HW.shape[1]


def there_and_back(mask_HW: NDArray[np.bool_], placement: Placement) -> NDArray[np.float32]:
    """What a perfect network would give for this mask."""
    return restore(fit_mask(mask_HW.astype(np.uint8) * 255, placement).astype(np.float32) / 255, placement)


@settings(max_examples=60)
@given(sides, sides, geometries, strides, st.integers(0, 255), st.sampled_from([1, 3]))
@example(1, 1, Geometry(height_px=70, width_px=129, keep_aspect=False), 1, 129, 1)
def test_every_size_fits_and_a_constant_stays_constant(
    height: int, width: int, geometry: Geometry, stride: int, value: int, channels: int
) -> None:
    placement = plan((height, width), geometry, stride_px=stride)
    canvas_HW = placement.canvas_HW
    for canvas, wanted in zip(canvas_HW, geometry.size_HW, strict=True):
        assert canvas % stride == 0
        assert wanted <= canvas < wanted + stride
    image_HWC = np.full((height, width, channels), value, np.uint8)
    fitted_HWC = fit_image(image_HWC, placement)
    assert fitted_HWC.shape == (*canvas_HW, channels)
    assert fitted_HWC.dtype == np.uint8
    assert (fitted_HWC == value).all()
    soft_HW = fit_mask(image_HWC[:, :, 0], placement)
    assert soft_HW.shape == canvas_HW
    assert (soft_HW == value).all()
    probability_HW = restore(np.full(canvas_HW, value / 255, np.float32), placement)
    assert probability_HW.shape == (height, width)
    assert probability_HW.dtype == np.float32
    # A mean over thousands of float32.
    np.testing.assert_allclose(probability_HW, value / 255, atol=1e-4)


@settings(max_examples=60)
@given(sides, sides, geometries)
def test_the_photo_keeps_its_proportions_when_asked(height: int, width: int, geometry: Geometry) -> None:
    placement = plan((height, width), geometry)
    content_height, content_width = placement.content_HW
    if not geometry.keep_aspect:
        assert placement.content_HW == geometry.size_HW
        return
    scale = min(geometry.height_px / height, geometry.width_px / width)
    assert abs(content_height - max(1, height * scale)) <= 0.5
    assert abs(content_width - max(1, width * scale)) <= 0.5
    free_height, free_width = geometry.height_px - content_height, geometry.width_px - content_width
    assert min(free_height, free_width) == 0
    assert abs(2 * placement.top_px - free_height) <= 1
    assert abs(2 * placement.left_px - free_width) <= 1


@settings(max_examples=40)
@given(st.integers(16, 400), st.integers(16, 400), stretched, st.integers(0, 1000))
@example(64, 96, Geometry(height_px=64, width_px=96), 0)
@example(192, 288, Geometry(height_px=64, width_px=96), 0)
def test_shrinking_averages_areas(height: int, width: int, geometry: Geometry, seed: int) -> None:
    photo_HW = (height + geometry.height_px, width + geometry.width_px)
    soft_HW = np.random.default_rng(seed).integers(0, 256, photo_HW, dtype=np.uint8)
    fitted_HW = fit_mask(soft_HW, plan(photo_HW, geometry))
    wanted_HW = area_average(soft_HW.astype(np.float64), geometry.size_HW)
    assert np.abs(fitted_HW - wanted_HW).max() <= 1
    # The mean is the mask's area.
    assert abs(fitted_HW.mean() - soft_HW.mean()) < 0.2


@pytest.mark.parametrize(("photo_HW", "size_HW"), [((700, 40), (100, 120)), ((40, 700), (120, 100))])
def test_one_side_shrinks_while_the_other_grows(photo_HW: tuple[int, int], size_HW: tuple[int, int]) -> None:
    soft_HW = np.random.default_rng(0).integers(0, 256, photo_HW, dtype=np.uint8)
    fitted_HW = fit_mask(soft_HW, plan(photo_HW, Geometry(height_px=size_HW[0], width_px=size_HW[1])))
    averaged_HW = area_average(soft_HW.astype(np.float64), tuple(np.minimum(photo_HW, size_HW)))
    wanted_HW = functional.interpolate(
        torch.from_numpy(averaged_HW)[None, None], size_HW, mode="bilinear", align_corners=False
    )
    assert np.abs(fitted_HW - wanted_HW[0, 0].numpy()).max() <= 1.5


@settings(max_examples=40)
@given(stretched, st.integers(0, 700), st.integers(0, 700), st.integers(0, 1000))
def test_restoring_is_bilinear_with_half_pixel_centers(geometry: Geometry, taller: int, wider: int, seed: int) -> None:
    photo_HW = (geometry.height_px + taller, geometry.width_px + wider)
    probability_HW = np.random.default_rng(seed).random(geometry.size_HW, dtype=np.float32)
    wanted_11HW = functional.interpolate(
        torch.from_numpy(probability_HW)[None, None], photo_HW, mode="bilinear", align_corners=False
    )
    restored_HW = restore(probability_HW, plan(photo_HW, geometry))
    np.testing.assert_allclose(restored_HW, wanted_11HW[0, 0].numpy(), atol=1e-4)


@settings(max_examples=40)
@given(st.integers(20, 900), st.integers(20, 900), geometries, strides, st.integers(0, 1000))
def test_a_flipped_photo_gives_the_flipped_result(
    height: int, width: int, geometry: Geometry, stride: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    mask_HW = disc((height, width), (rng.uniform(0, height), rng.uniform(0, width)), rng.uniform(5, width))
    placement = plan((height, width), geometry, stride_px=stride)
    straight_HW = there_and_back(mask_HW, placement)
    flipped_HW = there_and_back(np.ascontiguousarray(mask_HW[:, ::-1]), placement)
    assert np.abs(flipped_HW[:, ::-1] - straight_HW).max() < 3 / 255


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize("size_HW", [(128, 128), (101, 211), (512, 768)])
@pytest.mark.parametrize("photo_HW", [(1280, 1918), (333, 517), (200, 90)])
def test_nothing_moves(photo_HW: tuple[int, int], size_HW: tuple[int, int], keep_aspect: bool) -> None:
    geometry = Geometry(height_px=size_HW[0], width_px=size_HW[1], keep_aspect=keep_aspect)
    placement = plan(photo_HW, geometry, stride_px=32)
    mask_HW = disc(photo_HW, (photo_HW[0] * 0.45, photo_HW[1] * 0.6), min(photo_HW) * 0.3)
    there_HW = there_and_back(mask_HW, placement)
    moved_px = (np.array(centroid(there_HW)) - centroid(mask_HW.astype(float))) * photo_HW
    # A hundredth of a pixel of the network, or of the photo where that is the coarser one.
    assert np.abs(moved_px).max() < 0.01 * max(1, *np.divide(photo_HW, placement.content_HW))
    if not keep_aspect and placement.canvas_HW == size_HW:
        assert centroid(fit_mask(mask_HW.astype(np.uint8) * 255, placement).astype(float)) == pytest.approx(
            centroid(mask_HW.astype(float)), abs=1e-4
        )


def test_what_the_photo_leaves_free_repeats_its_edge() -> None:
    image_HWC = np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    placement = plan((40, 20), Geometry(height_px=40, width_px=50, keep_aspect=True), stride_px=16)
    fitted_HWC = fit_image(image_HWC, placement)
    assert (placement.canvas_HW, placement.content_HW) == ((48, 64), (40, 20))
    assert (placement.top_px, placement.left_px) == (4, 22)
    np.testing.assert_array_equal(fitted_HWC, np.pad(image_HWC, ((4, 4), (22, 22), (0, 0)), mode="edge"))


def test_a_reduced_decoding_covers_the_same_area() -> None:
    full_HWC = np.random.default_rng(0).integers(0, 256, (160, 240, 3), dtype=np.uint8)
    half_HWC = full_HWC.reshape(80, 2, 120, 2, 3).mean((1, 3)).round().astype(np.uint8)
    placement = plan((160, 240), Geometry(height_px=40, width_px=60))
    difference = fit_image(half_HWC, placement).astype(int) - fit_image(full_HWC, placement)
    assert np.abs(difference).max() <= 1


def test_wrong_sizes_are_refused() -> None:
    placement = plan((50, 60), Geometry(height_px=32, width_px=32))
    with pytest.raises(GeometryError):
        fit_mask(np.zeros((60, 50), np.uint8), placement)
    with pytest.raises(GeometryError):
        restore(np.zeros((50, 60), np.float32), placement)
    for photo_HW in ((0, 5), (5, 0)):
        with pytest.raises(GeometryError):
            plan(photo_HW, Geometry(height_px=32, width_px=32))


@pytest.mark.parametrize(("side_px", "least"), [(128, 0.9970), (256, 0.9987), (512, 0.9995)])
def test_dice_of_a_perfect_network_on_real_masks(carvana: Path, side_px: int, least: float) -> None:
    files = sorted((carvana / "train_masks").glob("*.gif"))
    geometry = Geometry(height_px=side_px, width_px=side_px)
    scores = []
    for file in files[:: len(files) // 24][:24]:
        truth_HW = np.array(Image.open(file)) > 0
        mask_HW = there_and_back(truth_HW, plan(truth_HW.shape, geometry)) >= 0.5
        scores.append(2 * (truth_HW & mask_HW).sum() / (truth_HW.sum() + mask_HW.sum()))
    assert len(scores) == 24
    assert np.mean(scores) >= least


@settings(max_examples=80)
@given(st.integers(2, 60), st.integers(2, 60), geometries, st.sampled_from([1, 16]), st.integers(0, 1000))
def test_a_fitted_pixel_is_known_if_all_that_it_comes_from_is(
    height: int, width: int, geometry: Geometry, stride: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    placement = plan((height, width), geometry, stride_px=stride)
    known_HW = rng.random((height, width)) > rng.choice([0.01, 0.3])
    fitted_HW = fit_known(known_HW, placement)
    assert fitted_HW.dtype == np.bool_
    assert fitted_HW.shape == placement.canvas_HW
    # A change of what is unknown changes no known fitted pixel, and all that unknown ones have a share in.
    soft_HW = rng.random((height, width)).astype(np.float32)
    other_HW = np.where(known_HW, soft_HW, np.float32(8))
    changed_HW = np.abs(fit_mask(other_HW, placement) - fit_mask(soft_HW, placement)) > 1e-5
    assert not (changed_HW & fitted_HW).any()
    assert changed_HW[fit_mask((~known_HW).astype(np.float32), placement) > 1e-4].all()
