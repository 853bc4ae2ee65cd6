"""The expected Dice against independent arithmetic."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from carmask.models.dice_calibration import Certainty, DiceCalibration, DiceMap, certainty
from carmask.result import Result

FOUND, EMPTY = DiceMap(scores=(0.2, 0.8), dice=(0.0, 0.6)), DiceMap(scores=(0.5, 1.0), dice=(0.4, 1.0))
CALIBRATION = DiceCalibration(found=FOUND, empty=EMPTY, masks=9, fitted_on="these")


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32), st.sampled_from([0.3, 0.5, 0.97]))
def test_the_score_is_the_dice_of_cubed_doubts_and_mask(height: int, width: int, seed: int, threshold: float) -> None:
    probability_HW = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    pixels = [float(pixel) for row in probability_HW for pixel in row]
    inside = [pixel for pixel in pixels if pixel >= np.float32(threshold)]
    score, is_empty = certainty(probability_HW, threshold)
    assert is_empty == (not inside)
    sure = [1 - (1 - pixel) ** 3 for pixel in inside]
    extra = [pixel**3 for pixel in pixels if pixel < np.float32(threshold)]
    wanted = 2 * sum(sure) / (sum(sure) + sum(extra) + len(inside)) if inside else 1 - max(pixels)
    assert score == pytest.approx(wanted, abs=1e-5)


def test_a_large_photo_scores_as_all_its_pixels_do() -> None:
    y_H1, x_1W = np.ogrid[:1280, :1918]
    distance_HW = np.hypot(y_H1 - 600, x_1W - 900)
    probability_HW = (1 / (1 + np.exp((distance_HW - 400) / 6))).astype(np.float32)
    mask_HW = probability_HW >= 0.5
    sure_HW = np.where(mask_HW, 1 - (1 - probability_HW) ** 3, probability_HW**3)
    wanted = 2 * sure_HW[mask_HW].sum() / (sure_HW.sum() + mask_HW.sum())
    assert certainty(probability_HW, 0.5).score == pytest.approx(wanted, abs=5e-4)


def test_what_a_result_expects() -> None:
    probability_HW = np.full((4, 5), 0.5, np.float32)
    assert Result(probability_HW, 0.5).expected_dice is None
    # All pixels are inside, with doubts of a half: 1 - 1 / 8 of each is sure.
    score = (7 / 8) / (15 / 16)
    wide = CALIBRATION.model_copy(update={"found": DiceMap(scores=(0.2, 1.0), dice=(0.0, 0.8))})
    assert Result(probability_HW, 0.5, calibrations=(wide,)).expected_dice == pytest.approx(score - 0.2, abs=1e-4)
    empty = Result(probability_HW / 2, 0.5, calibrations=(CALIBRATION,))
    assert empty.expected_dice == pytest.approx(0.7, abs=1e-4)
    knows_no_empty = CALIBRATION.model_copy(update={"empty": None})
    assert Result(probability_HW / 2, 0.5, calibrations=(knows_no_empty,)).expected_dice is None
    # Of several networks all must be able to tell.
    assert Result(probability_HW / 2, 0.5, calibrations=(CALIBRATION, knows_no_empty)).expected_dice is None


def test_a_map_is_constant_outside_its_knots() -> None:
    assert [CALIBRATION(Certainty(score, is_empty=False)) for score in (0, 0.2, 0.5, 0.8, 1)] == pytest.approx(
        [0, 0, 0.3, 0.6, 0.6]
    )


@pytest.mark.parametrize(
    ("scores", "dice"),
    [((0.1, 0.2), (0.5,)), ((0.2, 0.1), (0.5, 0.6)), ((0.1, 0.2), (0.6, 0.5)), ((), ()), ((0.1,), (1.5,))],
)
def test_a_map_that_does_not_ascend_is_refused(scores: tuple[float, ...], dice: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        DiceMap(scores=scores, dice=dice)
