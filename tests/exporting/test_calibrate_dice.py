"""Calibrations of the expected Dice, on masks whose Dice is known."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.optimize import isotonic_regression

from bright_network import bright_is_vehicle
from carmask.exporting.calibrate_dice import ScoredMask, altered, calibrate, fit, fit_map, pool_adjacent_violators
from carmask.exporting.graph import build_graph, note_dice_calibration, to_file
from carmask.exporting.photos import PhotoOptions, chosen_photos
from carmask.models.card import read_card
from carmask.models.dice_calibration import Certainty
from carmask.models.network import Network
from carmask.segmenter import Segmenter


@settings(max_examples=100)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 5)), min_size=1, max_size=30))
def test_pooling_is_scipy_s_isotonic_regression(pairs: list[tuple[float, float]]) -> None:
    values, weights = map(list, zip(*pairs, strict=True))
    found = pool_adjacent_violators(values, weights)
    np.testing.assert_allclose(found, isotonic_regression(values, weights=weights).x, atol=1e-9)


def test_a_network_that_is_too_sure_is_corrected() -> None:
    rng = np.random.default_rng(0)
    masks = [
        ScoredMask(Certainty(score, is_empty=False), float(np.clip(score**3 + rng.normal(0, 0.02), 0, 1)))
        for score in rng.uniform(0.3, 1, 800)
    ]
    calibration = fit(masks, "these")
    assert calibration is not None
    for score in (0.5, 0.7, 0.9):
        assert calibration(Certainty(score, is_empty=False)) == pytest.approx(score**3, abs=0.02)
    assert calibration.empty is None
    assert fit(masks[:20], "these") is None


def test_a_mask_counts_as_often_as_its_weight_says() -> None:
    rare, often = (
        fit_map([ScoredMask(Certainty(0.5, is_empty=True), dice, weight) for dice, weight in ((0, first), (1, 1))], 1)
        for first in (0.1, 1.0)
    )
    assert rare.dice == pytest.approx((1 / 1.1,), abs=1e-4)
    assert often.dice == (0.5,)


def test_the_mask_of_an_altered_photo_stays_on_the_vehicle() -> None:
    truth_HW = np.zeros((90, 120), bool)
    truth_HW[20:70, 30:100] = True
    image_HWC = np.where(truth_HW, 240, 0).astype(np.uint8)[..., None].repeat(3, axis=2)
    versions = {one.version: one for one in altered(image_HWC, truth_HW, ~truth_HW, "key")}
    assert list(versions) == ["", "cropped", "darkened", "blurred"]
    for one in versions.values():
        level = one.image_HWC.max() // 2
        assert ((one.image_HWC[..., 0] > level) == one.truth_HW).mean() > 0.98
        assert one.known_HW is not None
        assert np.array_equal(one.known_HW, ~one.truth_HW)
    assert versions["cropped"].truth_HW.size < truth_HW.size
    assert versions["darkened"].image_HWC.max() < 130
    again = {one.version: one for one in altered(image_HWC, truth_HW, None, "key")}
    assert all(np.array_equal(one.image_HWC, versions[name].image_HWC) for name, one in again.items())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve photos: bright rectangles on dark ground."""
    root = tmp_path / "photos"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(12):
        rng = np.random.default_rng(number)
        mask_HW = np.zeros((80, 120), bool)
        top, left = rng.integers(5, 30, 2)
        mask_HW[top : top + 35, left : left + 60] = True
        image_HW = np.where(mask_HW, 200, 50) + rng.normal(0, 8, mask_HW.shape)
        Image.fromarray(image_HW.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{number}.png")
        Image.fromarray(mask_HW).save(root / "masks" / f"{number}.png")
    return root


def test_a_calibration_goes_into_the_file_and_changes_no_mask(photos: Path, tmp_path: Path) -> None:
    folder = bright_is_vehicle(tmp_path / "bright")
    network = Network.load(folder)
    plain, calibrated = tmp_path / "plain.onnx", tmp_path / "calibrated.onnx"
    plain.write_bytes(to_file(build_graph(network), network.card))
    shutil.copy(plain, calibrated)
    segmenter = Segmenter.load(plain)
    progress: list[tuple[int, int]] = []
    with chosen_photos(folder, PhotoOptions(data=photos), channels=1) as chosen:
        calibration = calibrate(segmenter, chosen, lambda *done: progress.append(done))
    assert calibration is not None
    assert progress[-1] == (12, 12)
    assert calibration.masks == 12 * 5 - 1  # the first photo has no other vehicle to paste
    note_dice_calibration(calibrated, calibration)
    assert read_card(calibrated).dice_calibration == calibration
    assert onnx.load(calibrated).graph == onnx.load(plain).graph
    photo = photos / "images" / "3.png"
    before, after = segmenter(photo), Segmenter.load(calibrated)(photo)
    assert np.array_equal(before.probability, after.probability)
    assert before.expected_dice is None
    assert after.expected_dice == pytest.approx(0.97, abs=0.04)
    with chosen_photos(folder, PhotoOptions(data=photos, dice_photos=0), channels=1) as chosen:
        assert calibrate(segmenter, chosen, lambda *_: None) is None
