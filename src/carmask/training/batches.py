"""Which photos a step sees, and getting them to the device. Both follow from (seed, step) alone."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carmask.data.cache import Cache
from carmask.runner import map_ahead
from carmask.runtime.torch_engine import to_input

Batch = tuple[Tensor, Tensor]

# Apart from the numbers by which everything else is drawn.
_STREAM_OF_HARD_PHOTOS = 1


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


def harder_indices(
    indices_B: NDArray[np.int64], step: int, seed: int, *, share: float, losses_N: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The same indices, but for this share (0..1) of them, for which photos are drawn in proportion to their losses."""
    if not share:
        return indices_B
    rng = np.random.default_rng([seed, step, _STREAM_OF_HARD_PHOTOS])
    drawn_B = rng.choice(len(losses_N), len(indices_B), p=losses_N / losses_N.sum())
    return np.where(rng.random(len(indices_B)) < share, drawn_B, indices_B)


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's generators for one step of one process, so that a run taken up at any step repeats itself."""
    numbers = [seed, step, rank] if rank else [seed, step]
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1))


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

    def steps(self, steps: range, choose: Callable[[int], NDArray[np.int64]]) -> Iterator[tuple[int, Batch]]:
        """Each step's number and its batch, of the photos (places in `ids`) that `choose` names for the step."""

        def read(step: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
            rows = self._rows[choose(step)]
            return self._cache.images_NHWC[rows], self._cache.masks_NHW[rows]

        with ThreadPoolExecutor(1) as pool:
            for step, (images_BHWC, masks_BHW) in zip(steps, map_ahead(pool, read, steps, 1), strict=True):
                yield step, to_batch(images_BHWC, masks_BHW, self._device)
