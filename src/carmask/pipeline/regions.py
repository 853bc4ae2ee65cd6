"""Which parts of a mask are kept: the largest one, or those that are large enough."""

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError

_AREA = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)\s*(?P<unit>%|px)?")


@dataclass(frozen=True)
class Area:
    """An area in pixels, or as a share 0..1 of the picture."""

    px: float = 0.0
    share: float = 0.0

    @classmethod
    def parse(cls, text: str, name: str = "--min-area") -> "Area":
        """Read `400`, `400px` or `0.5%`; `name` is what the user calls it.

        Raises:
            CarmaskError: it is no such area.

        """
        match = _AREA.fullmatch(text.strip())
        number = float(match["number"]) if match else 0.0
        if match is None or math.isinf(number) or (match["unit"] == "%" and number > 100):
            raise CarmaskError(f"{name} {text}: give pixels, as 400, or a share of the picture, as 0.5%")
        return cls(share=number / 100) if match["unit"] == "%" else cls(px=number)

    def __str__(self) -> str:
        return f"{self.share:.6%}" if self.share else f"{self.px:g}px"

    def of(self, size_HW: tuple[int, int]) -> int:
        """In whole pixels of a picture of this size, rounded up."""
        return int(np.ceil(max(self.px, self.share * size_HW[0] * size_HW[1])))


@dataclass(frozen=True)
class Regions:
    """Parts of a mask that touch are one region. The largest alone is kept, and none smaller than `min_area`."""

    largest_only: bool = False
    min_area: Area = Area()

    def keep(self, probability_HW: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
        """Take the other regions out of a probability (float32 0..1), with their soft fringes."""
        if not self.largest_only and self.min_area == Area():
            return probability_HW
        from carmask.imaging.masks import keep_regions

        return keep_regions(
            probability_HW,
            threshold,
            largest_only=self.largest_only,
            min_area_px=self.min_area.of(probability_HW.shape),
        )


ALL_REGIONS = Regions()
