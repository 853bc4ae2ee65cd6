"""The protocol behind which a trained network runs."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """A network, loaded and ready. Used from one thread at a time."""

    name: str
    device: str
    precision: str

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Fitted photos (uint8 0..255, N x H x W x C) to probabilities (float32 0..1, N x H x W)."""
        ...
