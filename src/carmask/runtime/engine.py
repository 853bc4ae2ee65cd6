"""The protocol behind which a trained network runs, and what all engines have in common."""

import threading
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError


class EngineMissing(CarmaskError):
    """What was asked for cannot be had: a package is not installed, or this machine does not have it."""


class EngineError(CarmaskError):
    """An engine was used as it must not be, or could not compute."""


class Engine(Protocol):
    """A network, loaded and ready. The thread that runs it first owns it; any other is refused.

    name: openvino, onnxruntime, tensorrt or torch. device: cpu, cuda:0, ... precision: what the convolutions really
    compute in: float32, tf32, float16, bf16 or int8. threads: CPU threads; nothing on other devices.
    steady_batch: from this many images on, what comes out for an image does not depend on the others of its batch, nor
    on how many they are, to the last bit; nothing where only batches of one size can be relied on to agree so.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - explained above

    @property
    def device(self) -> str: ...  # noqa: D102

    @property
    def precision(self) -> str: ...  # noqa: D102

    @property
    def threads(self) -> int | None: ...  # noqa: D102

    @property
    def steady_batch(self) -> int | None: ...  # noqa: D102

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Fitted photos (uint8 0..255, N x H x W x C) to probabilities (float32 0..1, N x H x W).

        Raises:
            EngineError: the images are not such an array, another thread owns the engine, or it failed.

        """
        ...


class Owner:
    """The one thread that may run an engine: the first that does.

    Calls to one compiled network from several threads have given wrong outputs without an error.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def check(self) -> None:
        """Refuse every thread but the owner.

        Raises:
            EngineError: this is another thread.

        """
        thread = threading.current_thread()
        if self._thread is None:
            self._thread = thread
        elif self._thread is not thread:
            raise EngineError(
                f"a network is run by one thread only: thread '{self._thread.name}' has run this one, now thread "
                f"'{thread.name}' wants to; hand the photos to that thread, or load one segmenter for each thread"
            )


def check_images(images_NHWC: NDArray[np.uint8], channels: int) -> None:
    """Refuse what is no batch of fitted photos: engines would cast it silently, or give a stale output.

    Raises:
        EngineError: not uint8 N x H x W x `channels`, or empty.

    """
    if images_NHWC.dtype != np.uint8 or images_NHWC.ndim != 4 or images_NHWC.shape[3] != channels:
        raise EngineError(
            f"the network takes uint8 images N x H x W x {channels}, not {images_NHWC.dtype} "
            f"{' x '.join(map(str, images_NHWC.shape))}"
        )
    if 0 in images_NHWC.shape:
        raise EngineError(f"the images are empty: {' x '.join(map(str, images_NHWC.shape))}")
