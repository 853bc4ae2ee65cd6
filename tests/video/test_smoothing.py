"""Smoothing over time: what stands still flickers less, what moves leaves no trail, and a cut begins anew."""

from pathlib import Path

import numpy as np
import pytest
from clips import Clip, make_clip, overlap, read_clip
from numpy.typing import NDArray

from bright_photos import Command
from carmask.imaging.decode import Photo
from carmask.pipeline.video.frames import TemporalSmoother
from carmask.segmenter import Fitted, Segmenter

SIZE_HW = (64, 96)  # of the network, so that its canvas is the picture itself
GROUND, VEHICLE = 60, 200


@pytest.fixture(scope="module")
def segmenter(bright: Path) -> Segmenter:
    return Segmenter.load(bright)


def scene(left_px: int, *, noise: float = 0.0, seed: int = 0) -> NDArray[np.uint8]:
    gray_HW = np.full(SIZE_HW, float(GROUND))
    gray_HW[20:50, left_px : left_px + 30] = VEHICLE
    gray_HW += np.random.default_rng(seed).normal(0, noise, SIZE_HW)
    return np.clip(gray_HW, 0, 255).astype(np.uint8)[..., None].repeat(3, axis=2)


def fitted(segmenter: Segmenter, image_HW3: NDArray[np.uint8]) -> Fitted:
    return segmenter.fit(Photo(image_HW3, SIZE_HW))


def masks_of(
    segmenter: Segmenter, images: list[NDArray[np.uint8]], smoother: TemporalSmoother | None
) -> NDArray[np.bool_]:
    """The mask of each image as the network gives it, or after smoothing."""
    masks = []
    for image_HW3 in images:
        fit = fitted(segmenter, image_HW3)
        (raw,) = segmenter.infer([fit])
        found = smoother.smooth(fit, raw) if smoother else raw
        masks.append(segmenter.restore(fit, found) >= segmenter.threshold)
    return np.stack(masks)


def test_probabilities_that_flicker_on_a_still_picture_are_steadied(segmenter: Segmenter) -> None:
    fit = fitted(segmenter, scene(30))
    rng = np.random.default_rng(1)
    raws = [rng.uniform(0.3, 0.7, SIZE_HW).astype(np.float32) for _ in range(40)]
    smoother = TemporalSmoother()
    steadied = [smoother.smooth(fit, (raw,))[0] for raw in raws]
    # For white noise, an exponential mean that keeps 0.6 has a deviation of sqrt(0.4 / 1.6) = 0.5 of it.
    assert abs(np.std(steadied[10:]) / np.std(raws[10:]) - 0.5) < 0.02
    assert abs(np.mean(steadied[10:]) - np.mean(raws[10:])) < 0.002


@pytest.mark.parametrize("step_px", [1, 2, 5, 20])
def test_what_moves_leaves_no_trail(segmenter: Segmenter, step_px: int) -> None:
    images = [scene(5 + step_px * number, noise=2, seed=number) for number in range(60 // step_px + 1)]
    plain_NHW = masks_of(segmenter, images, None)
    smooth_NHW = masks_of(segmenter, images, TemporalSmoother())
    assert plain_NHW.sum() > 0
    np.testing.assert_array_equal(smooth_NHW, plain_NHW)


def test_a_cut_begins_anew(segmenter: Segmenter) -> None:
    before_HW3 = np.full((*SIZE_HW, 3), 20, np.uint8)
    after_HW3 = before_HW3.copy()
    after_HW3[:, :40] = 235  # the rest looks the same by chance
    low_HW, high_HW = np.full(SIZE_HW, 0.1, np.float32), np.full(SIZE_HW, 0.9, np.float32)
    smoother = TemporalSmoother()
    smoother.smooth(fitted(segmenter, before_HW3), (high_HW,))
    np.testing.assert_array_equal(smoother.smooth(fitted(segmenter, after_HW3), (low_HW,))[0], low_HW)


def test_probabilities_stay_probabilities_and_none_is_changed_in_place(segmenter: Segmenter) -> None:
    rng = np.random.default_rng(2)
    smoother = TemporalSmoother()
    for _ in range(10):
        raw = rng.uniform(0, 1, SIZE_HW).astype(np.float32)
        kept = raw.copy()
        (found,) = smoother.smooth(fitted(segmenter, scene(30, noise=4, seed=int(rng.integers(99)))), (raw,))
        assert found.dtype == np.float32
        assert found.min() >= 0
        assert found.max() <= 1
        np.testing.assert_array_equal(raw, kept)


def test_the_command_smooths(video: Command) -> None:
    clip = Clip(frames=10)
    make_clip(Path("a.mp4"), clip)
    assert video("a.mp4", "b.mp4", "--kind", "mask", "--smooth") == 0
    assert overlap(read_clip(Path("b.mp4")).masks(), clip.vehicles()) > 0.9
