"""What runs a trained network: the base class of all engines."""

import threading
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.models.card import ModelCard


class EngineMissing(CarmaskError):
    """An engine cannot run here: a package is not installed, or this machine or this file does not support it."""


class EngineError(CarmaskError):
    """An engine was called wrongly, or failed."""


class Engine(ABC):
    """A loaded network. Only the thread that runs it first may run it.

    Calls to one compiled network from several threads have given wrong outputs without an error.

    Attributes:
        card: The network's metadata.
        name: openvino, onnxruntime, tensorrt or torch.
        device: cpu, cuda:0, ...
        precision: What the convolutions really compute in: float32, tf32, float16, bf16 or int8.
        threads: CPU threads; None on other devices.
        steady_batch: From this batch size on, an image's result is the same to the last bit, whatever else is in the
            batch. None if only batches of one size agree like that.

    """

    name: str
    device: str
    precision: str
    threads: int | None
    steady_batch: int | None

    def __init__(self, card: ModelCard) -> None:
        self.card = card
        self._thread: threading.Thread | None = None

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn fitted photos (uint8 0..255, N x H x W x C) into probabilities (float32 0..1, N x H x W).

        Raises:
            EngineError: the images are not such an array, another thread owns the engine, or it failed.

        """
        thread = threading.current_thread()
        self._thread = self._thread or thread
        if self._thread is not thread:
            raise EngineError(
                f"only one thread may run a network: thread '{self._thread.name}' has run this one, now thread "
                f"'{thread.name}' tries to; pass the photos to that thread, or load one segmenter for each thread"
            )
        # Engines would cast other images silently, or return an old output.
        channels = self.card.channels
        is_batch = images_NHWC.dtype == np.uint8 and images_NHWC.ndim == 4 and images_NHWC.shape[3] == channels
        if not is_batch or not images_NHWC.size:
            raise EngineError(
                f"the network takes uint8 images N x H x W x {channels}, not {images_NHWC.dtype} "
                f"{' x '.join(map(str, images_NHWC.shape))}"
            )
        return self._run(images_NHWC)

    @abstractmethod
    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the probabilities of a checked batch. Raises `EngineError`."""
