"""Masks that are kept for later, in an eighth of their memory."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from carmask.imaging.geometry import Size


@dataclass(frozen=True, eq=False)
class PackedMask:
    """One bit for each pixel, row by row, every row in bytes of its own."""

    bits: NDArray[np.uint8]
    size_HW: Size

    @classmethod
    def of(cls, mask_HW: NDArray[np.bool_]) -> Self:
        """Pack a mask (bool)."""
        height, width = mask_HW.shape
        return cls(np.packbits(mask_HW, axis=1), (height, width))

    @property
    def mask_HW(self) -> NDArray[np.bool_]:
        """The mask again (bool), unpacked each time."""
        return np.unpackbits(self.bits, axis=1, count=self.size_HW[1]).view(np.bool_)
