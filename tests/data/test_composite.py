import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from carmask.data.composite import CompositeSettings, Cutout, draw_widths_px, paste_cutout

PLAIN = CompositeSettings(probability=1, light=0, shadow=0, blur_px=0)


def disk(height: int, width: int, channels: int = 3) -> Cutout:
    """A red ellipse with a hard edge, and what lies around it in green, which must never be seen."""
    y_H1, x_1W = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    inside_HW = x_1W**2 + y_H1**2 <= 1
    image_HWC = np.where(inside_HW[..., None], (200, 20, 30), (0, 255, 0)).astype(np.uint8)[..., :channels]
    cutout = Cutout.of(image_HWC, inside_HW.astype(np.uint8) * 255)
    assert cutout is not None
    return cutout


def gray(height: int, width: int, channels: int = 3) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return np.full((height, width, channels), 90, np.uint8), np.zeros((height, width), np.uint8)


@given(st.integers(0, 10_000), st.integers(8, 300), st.sampled_from([1, 3]))
def test_where_the_mask_is_full_the_vehicle_shows_and_elsewhere_nothing_changes(
    seed: int, width_px: int, channels: int
) -> None:
    image_HWC, soft_HW = gray(120, 160, channels)
    paste_cutout(image_HWC, soft_HW, disk(60, 100, channels), width_px, np.random.default_rng(seed), PLAIN)
    inside_HW = soft_HW == 255
    np.testing.assert_allclose(image_HWC[inside_HW][:, 0].astype(int), 200, atol=1)
    assert (image_HWC[soft_HW == 0] == 90).all()


@given(st.integers(0, 10_000))
def test_an_edge_is_mixed_as_the_mask_says(seed: int) -> None:
    image_HWC, soft_HW = gray(120, 160)
    settings = PLAIN.model_copy(update={"blur_px": 2.0})
    whole = Cutout(np.full((40, 60, 3), 200, np.uint8), np.full((40, 60), 255, np.uint8))
    paste_cutout(image_HWC, soft_HW, whole, 50, np.random.default_rng(seed), settings)
    expected_HW = 90 + (soft_HW / 255) * (200 - 90)
    np.testing.assert_allclose(image_HWC[..., 0], expected_HW, atol=1.5)


def test_a_second_vehicle_hides_the_first_and_joins_its_mask() -> None:
    image_HWC, soft_HW = gray(200, 300)
    rng = np.random.default_rng(5)
    for _ in range(6):
        before_HW = soft_HW.copy()
        paste_cutout(image_HWC, soft_HW, disk(60, 100), 90, rng, PLAIN)
        assert (soft_HW >= before_HW).all()
    assert (soft_HW == 255).sum() > 90 * 54 * np.pi / 4


def test_only_the_inner_half_of_a_soft_edge_is_kept() -> None:
    soft_HW = np.tile(np.array([0, 60, 127, 128, 200, 255], np.uint8), (3, 1))
    cutout = Cutout.of(np.zeros((3, 6, 3), np.uint8), soft_HW)
    assert cutout is not None
    assert cutout.soft_HW[0].tolist() == [1, 145, 255]
    assert Cutout.of(np.zeros((3, 6, 3), np.uint8), np.full((3, 6), 127, np.uint8)) is None


@given(st.integers(0, 10_000))
def test_counts_and_widths_keep_to_the_settings(seed: int) -> None:
    settings = CompositeSettings(count=(2, 4), width=(0.1, 0.5))
    widths_px = draw_widths_px(np.random.default_rng(seed), 200, settings)
    assert 2 <= len(widths_px) <= 4
    assert widths_px == sorted(widths_px)
    assert all(20 <= width_px <= 100 for width_px in widths_px)


def test_light_moves_toward_that_of_the_ground_and_a_shadow_darkens_it() -> None:
    white = Cutout(np.full((40, 60, 3), 250, np.uint8), np.full((40, 60), 255, np.uint8))
    image_HWC, soft_HW = gray(120, 160)
    paste_cutout(image_HWC, soft_HW, white, 50, np.random.default_rng(0), PLAIN.model_copy(update={"light": 1.0}))
    assert 90 <= image_HWC[soft_HW == 255].mean() < 249
    image_HWC, soft_HW = gray(120, 160)
    shaded = PLAIN.model_copy(update={"shadow": 1.0})
    for seed in range(20):
        paste_cutout(image_HWC, soft_HW, white, 50, np.random.default_rng(seed), shaded)
    assert image_HWC[soft_HW == 0].min() < 80


@pytest.mark.parametrize("given_", [{"count": (3, 2)}, {"count": (0, 2)}, {"width": (0.5, 0.1)}, {"width": (0, 1)}])
def test_settings_out_of_order_are_refused(given_: dict[str, tuple[float, float]]) -> None:
    with pytest.raises(ValidationError):
        CompositeSettings.model_validate(given_)
