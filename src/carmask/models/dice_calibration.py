"""What a mask's Dice will be, from the network's probabilities alone: a score, and a monotone map from it to Dice."""

import math
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

# A mask is scored on every n-th row and column, so that about this many pixels are read: 0.3 ms for any photo.
_PIXELS_READ = 2**17

Unit = Annotated[float, Field(ge=0, le=1)]


class Certainty(NamedTuple):
    """How sure a network is of a mask. score: 0..1, of masks or of empty masks. is_empty: no pixel is in the mask."""

    score: float
    is_empty: bool


def certainty(probability_HW: NDArray[np.float32], threshold: float) -> Certainty:
    """Score a mask without knowing the truth, from float32 probabilities 0..1, (height, width).

    With the probabilities p and the mask m = (p >= threshold), the score is the soft Dice of both, 2 sum(p m) /
    (sum(p) + sum(m)): what Dice would be if each pixel's probability were true. Of an empty mask it is 1 minus the
    largest probability.
    """
    height, width = probability_HW.shape
    step = max(1, round(math.sqrt(height * width / _PIXELS_READ)))
    read_HW = probability_HW[step // 2 :: step, step // 2 :: step]
    inside = read_HW[read_HW >= threshold]
    if not inside.size:
        largest = float(probability_HW.max(initial=0.0))
        return Certainty(1 - largest, is_empty=largest < threshold)
    return Certainty(2 * float(inside.sum()) / (float(read_HW.sum()) + inside.size), is_empty=False)


class DiceMap(BaseModel):
    """A map from scores to Dice, linear between its knots and constant outside: both ascend and have as many values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scores: tuple[Unit, ...] = Field(min_length=1, max_length=32)
    dice: tuple[Unit, ...] = Field(min_length=1, max_length=32)

    @model_validator(mode="after")
    def _check_knots(self) -> "DiceMap":
        if len(self.scores) != len(self.dice):
            raise ValueError("scores and dice: give as many of each")
        if list(self.scores) != sorted(self.scores) or list(self.dice) != sorted(self.dice):
            raise ValueError("scores and dice: must ascend")
        return self

    def __call__(self, score: float) -> float:
        """Return the Dice of a score, both 0..1."""
        return float(np.interp(score, self.scores, self.dice))


class DiceCalibration(BaseModel):
    """How a network's scores of masks became Dice on photos with true masks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    found: DiceMap = Field(description="of masks that are not empty")
    empty: DiceMap = Field(description="of empty masks: the share of photos without a vehicle")
    photos: int = Field(ge=1, description="number of photos it was fitted on, altered versions included")
    fitted_on: str = Field(description="these photos, in words")

    def expected_dice(self, probability_HW: NDArray[np.float32], threshold: float) -> float:
        """Return the expected Dice, 0..1, of the mask of a probability (float32 0..1, height x width)."""
        score, is_empty = certainty(probability_HW, threshold)
        return (self.empty if is_empty else self.found)(score)
