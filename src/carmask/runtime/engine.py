"""What runs a trained network: the base class of all engines."""

import ctypes
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.models.card import ModelCard


class EngineMissing(CarmaskError):
    """An engine cannot run here: a package is not installed, or this machine or this file does not support it."""


class EngineError(CarmaskError):
    """An engine was called wrongly, or failed."""


class Engine(ABC):
    """A loaded network, in the process that loaded it. Any thread may run it.

    Threads take turns: simultaneous calls to one compiled network have given wrong outputs without an error.

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
        self._lock = threading.Lock()
        _ENGINES.add(self)

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn fitted photos (uint8 0..255, N x H x W x C) into probabilities (float32 0..1, N x H x W).

        Raises:
            EngineError: the images are not such an array, or it failed.
        """
        # Engines would cast other images silently, or return an old output.
        channels = self.card.channels
        is_batch = images_NHWC.dtype == np.uint8 and images_NHWC.ndim == 4 and images_NHWC.shape[3] == channels
        if not is_batch or not images_NHWC.size:
            raise EngineError(
                f"the network takes uint8 images N x H x W x {channels}, not {images_NHWC.dtype} "
                f"{' x '.join(map(str, images_NHWC.shape))}"
            )
        with self._lock:
            return self._run(images_NHWC)

    def run_in_batches(
        self, images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8], *, at_once: int, steady: bool
    ) -> Iterator[NDArray[np.float32]]:
        """Run fitted photos, `at_once` together, and yield the probabilities of each: float32 0..1, H x W.

        With `steady`, short batches are filled, so that the result of an image is the same to the last bit, whatever
        and how many the others are.

        Raises:
            EngineError: the images are not as for `run`, or it failed.
        """
        # For steady results some engines need fewer images at once.
        least = min(at_once, self.steady_batch or at_once) if steady else 1
        for start in range(0, len(images), at_once):
            batch = list(images[start : start + at_once])
            fill = batch[-1:] * (least - len(batch))
            yield from self.run(np.stack([*batch, *fill]))[: len(batch)]

    @abstractmethod
    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Compute the probabilities of a checked batch. Raises `EngineError`."""


_ENGINES: WeakSet[Engine] = WeakSet()


def _keep_forever() -> None:
    """Never delete the engines of the process that was forked: that would wait for threads that only it has."""
    for engine in _ENGINES:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_forever)
