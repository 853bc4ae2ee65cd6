"""Which photos a person looks at: those whose expected Dice is lowest."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from carmask.errors import CarmaskError

_NUMBER = re.compile(r"(?P<number>[0-9]{1,9}(\.[0-9]{1,6})?)(?P<percent>%?)")


@dataclass(frozen=True)
class ReviewChoice:
    """A share 0..1 of the photos, or a number of them, or all whose score is below a limit 0..1."""

    share: float = 0.0
    count: int = 0
    below: float = 0.0

    @classmethod
    def parse(cls, most: str | None, below: float | None) -> "ReviewChoice | None":
        """Read the options `--review` (`5%` or `100`) and `--review-below` (`0.97`); None if neither is given.

        Raises:
            CarmaskError: they are not such values, or both are given.
        """
        if most is not None and below is not None:
            raise CarmaskError("--review and --review-below: give only one of them")
        if below is not None:
            if not 0 < below <= 1:
                raise CarmaskError(f"--review-below {below:g}: give an expected Dice above 0 and up to 1, such as 0.97")
            return cls(below=below)
        if most is None:
            return None
        match = _NUMBER.fullmatch(most.strip())
        number = float(match["number"]) if match else 0.0
        is_share = match is not None and bool(match["percent"])
        if number <= 0 or (is_share and number > 100) or (not is_share and number % 1):
            raise CarmaskError(
                f"--review {most}: give a share of the photos, such as 5%, or a number of photos, such as 100"
            )
        return cls(share=number / 100) if is_share else cls(count=int(number))

    def choose(self, scores: Sequence[float]) -> list[int]:
        """Return the positions of the photos to review, the lowest score first; a photo with NaN has no result."""
        order = sorted((score, position) for position, score in enumerate(scores) if not math.isnan(score))
        if self.below:
            return [position for score, position in order if score < self.below]
        # Rounded first: 5% of 20 photos are not 2 because a share is no exact binary number.
        count = self.count or math.ceil(round(self.share * len(order), 6))
        return [position for _, position in order[:count]]
