"""What the Dice of a mask will be, from the network's probabilities alone: a score, and a map from it to Dice."""

import math
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

# About as many pixels of a photo are read; it takes 0.3 ms.
_PIXELS_READ = 2**17

_Share = Annotated[float, Field(ge=0, le=1)]
_Knots = Annotated[tuple[_Share, ...], Field(min_length=1, max_length=32)]


class Certainty(NamedTuple):
    """How sure a network is of a mask: a score 0..1, and whether no pixel that was read is in the mask."""

    score: float
    is_empty: bool


def read_sparsely(probability_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return every n-th row and column of a probability, about as many pixels as a network sees; the same if small."""
    step = max(1, round(math.sqrt(probability_HW.size / _PIXELS_READ)))
    return probability_HW[step // 2 :: step, step // 2 :: step]


def certainty(probability_HW: NDArray[np.float32], threshold: float) -> Certainty:
    """Score a mask without knowing the truth, from float32 probabilities 0..1, (height, width).

    With the doubts d = 1 - p inside the mask (p >= threshold) and d = p outside, the score is the soft Dice of n pixels
    inside, (n - sum_inside(d^3)) / (n + (sum_outside(d^3) - sum_inside(d^3)) / 2). With d instead of d^3 it would be
    what Dice is if the probabilities are true; but most doubt lies along the edge, where it says little of the mask.
    Of an empty mask the score is 1 minus the largest probability.
    """
    read_HW = np.ascontiguousarray(read_sparsely(probability_HW))
    is_inside_HW = read_HW >= threshold
    if not is_inside_HW.any():
        return Certainty(1 - float(read_HW.max(initial=0)), is_empty=True)
    inside, outside = 1 - read_HW[is_inside_HW], read_HW[~is_inside_HW]
    missed, extra = (float((doubts * doubts * doubts).sum()) for doubts in (inside, outside))
    return Certainty((inside.size - missed) / (inside.size + (extra - missed) / 2), is_empty=False)


class DiceMap(BaseModel):
    """A map from scores to Dice: linear between knots, which both ascend, and constant outside."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scores: _Knots
    dice: _Knots

    @model_validator(mode="after")
    def _check_knots(self) -> "DiceMap":
        if len(self.scores) != len(self.dice):
            raise ValueError("scores and dice: must be as many")
        if any(list(knots) != sorted(knots) for knots in (self.scores, self.dice)):
            raise ValueError("scores and dice: must ascend")
        return self

    def __call__(self, score: float) -> float:
        """Return the Dice of a score, both 0..1."""
        return float(np.interp(score, self.scores, self.dice))


class DiceCalibration(BaseModel):
    """What a network's scores of masks meant on photos with true masks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    found: DiceMap = Field(description="of masks that are not empty")
    empty: DiceMap | None = Field(
        default=None, description="of empty masks, whose Dice is 1 if the photo shows no vehicle; None if not known"
    )
    masks: int = Field(ge=1, description="number of masks it was fitted on")
    fitted_on: str = Field(description="the photos of these masks, in words")

    def __call__(self, certain: Certainty) -> float | None:
        """Return the expected Dice of a mask, 0..1; None for an empty mask if it is not known."""
        if certain.is_empty:
            return None if self.empty is None else self.empty(certain.score)
        return self.found(certain.score)
