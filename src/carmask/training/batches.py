"""Which photos a step sees, and getting them to the device. Both follow from (seed, step) alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carmask.ahead import map_ahead
from carmask.data.cache import Cache
from carmask.runtime.torch_engine import to_input

Batch = tuple[Tensor, Tensor]


def batch_indices(step: int, batch_size: int, count: int, seed: int) -> NDArray[np.int64]:
    """Indices (0 to `count` - 1) of the photos of one step.

    Photos come in one endless stream of shuffled passes, each pass with every photo once; batches run across the seam
    between two passes, so all are full and no photo is dropped.
    """
    places = range(step * batch_size, (step + 1) * batch_size)
    passes = {
        number: np.random.default_rng([seed, number]).permutation(count)
        for number in range(places[0] // count, places[-1] // count + 1)
    }
    return np.array([passes[place // count][place % count] for place in places])


def seed_step(seed: int, step: int) -> None:
    """Seed torch's generators for one step, so that a run can be taken up at any step and repeat itself."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1))


def to_batch(images_BHWC: NDArray[np.uint8], masks_BHW: NDArray[np.uint8], device: torch.device) -> Batch:
    """Images (float32 B x C x H x W, 0..1) and soft masks (float32 B x 1 x H x W, 0..1) on the device."""
    soft_B1HW = torch.from_numpy(masks_BHW).to(device, non_blocking=True).unsqueeze(1)
    return to_input(images_BHWC, device), soft_B1HW.float().div_(255)


class BatchReader:
    """Reads batches of cached rows, one step ahead in a thread, and puts them on the device."""

    def __init__(self, cache: Cache, ids: tuple[str, ...], device: torch.device) -> None:
        self._cache = cache
        self._rows = np.array([cache.row_of[id_] for id_ in ids])
        self._device = device

    def steps(self, first: int, end: int, batch_size: int, seed: int) -> Iterator[tuple[int, Batch]]:
        """Step number, images (float32 B x C x H x W, 0..1) and soft masks (float32 B x 1 x H x W, 0..1)."""

        def read(step: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
            rows = self._rows[batch_indices(step, batch_size, len(self._rows), seed)]
            return self._cache.images_NHWC[rows], self._cache.masks_NHW[rows]

        with ThreadPoolExecutor(1) as pool:
            steps = range(first, end)
            for step, (images_BHWC, masks_BHW) in zip(steps, map_ahead(pool, read, steps, 1), strict=True):
                yield step, to_batch(images_BHWC, masks_BHW, self._device)
