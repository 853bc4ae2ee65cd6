"""From cached photos to batches on the device. What a step sees follows from (seed, step) alone."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carmask.data.composite import CompositeSettings, draw_widths_px, paste_cutout
from carmask.limits import usable_cpus
from carmask.runner import map_ahead
from carmask.runtime.torch_engine import to_input
from carmask.training.config import TrainSettings
from carmask.training.datasets import FittedPair, TrainingData

# Images (uint8 B x H x W x C), soft masks, and where these are known (uint8 B x H x W; None: everywhere).
Arrays = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8] | None]

# Distinguishes the draws of composites from those of the photos' order.
_COMPOSITES = 1


class Batch(NamedTuple):
    """Images (float32 B x C x H x W, 0..1), soft masks and where these are known (float32 B x 1 x H x W, 0..1).

    `known_B1HW` is None where all pixels of all masks are known.
    """

    images_BCHW: Tensor
    soft_B1HW: Tensor
    known_B1HW: Tensor | None = None

    def clone(self) -> "Batch":
        """A copy that may be changed in place."""
        known_B1HW = None if self.known_B1HW is None else self.known_B1HW.clone()
        return Batch(self.images_BCHW.clone(), self.soft_B1HW.clone(), known_B1HW)

    def chunk(self, parts: int) -> "Iterator[Batch]":
        """Divide the batch, as `Tensor.chunk` does."""
        images, soft = self.images_BCHW.chunk(parts), self.soft_B1HW.chunk(parts)
        known = [None] * len(images) if self.known_B1HW is None else self.known_B1HW.chunk(parts)
        return map(Batch, images, soft, known)


def epoch_steps(settings: TrainSettings, data: TrainingData) -> int:
    """Steps in one epoch: a pass over the photos, or `epoch_samples`, rounded to whole batches."""
    assert settings.batch_size is not None
    photos = settings.epoch_samples or pass_length(pair_weights(data))
    return max(1, round(photos / settings.batch_size))


def pair_weights(data: TrainingData) -> list[float]:
    """How often each photo to train on comes in a pass."""
    return [data.source_of(pair.id).settings.weight for pair in data.train]


def pass_length(weights: Sequence[float]) -> int:
    """Number of photos in a pass, each as often as `pass_order` shows it."""
    return sum(int(weight) * count + round(weight % 1 * count) for weight, count in _runs(weights))


def pass_order(weights: Sequence[float], seed: int, number: int) -> NDArray[np.int64]:
    """Return the photos of one pass, shuffled, as indices into `weights`.

    A photo of weight 2 comes twice. Of neighbors with weight 0.25 another quarter is drawn for each pass.
    """
    rng = np.random.default_rng([seed, number])
    chosen, start = [], 0
    for weight, count in _runs(weights):
        indices = np.arange(start, start + count)
        chosen += [indices] * int(weight)
        if part := round(weight % 1 * count):
            chosen.append(rng.permutation(indices)[:part])
        start += count
    return rng.permutation(np.concatenate(chosen))


def _runs(weights: Sequence[float]) -> Iterator[tuple[float, int]]:
    """Each weight with the number of neighbors that have it."""
    return ((weight, sum(1 for _ in same)) for weight, same in groupby(weights))


def batch_indices(step: int, batch_size: int, weights: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Return the photos of one step, as indices into `weights`.

    Photos come in an endless sequence of shuffled passes. A batch may reach from one pass into the next, so all batches
    are full and no photo is dropped.
    """
    count = pass_length(weights)
    positions = range(step * batch_size, (step + 1) * batch_size)
    passes = {
        number: pass_order(weights, seed, number) for number in range(positions[0] // count, positions[-1] // count + 1)
    }
    return np.array([passes[position // count][position % count] for position in positions])


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's generators for one step on one process, so that a resumed run draws the same numbers."""
    numbers = [seed, step, rank] if rank else [seed, step]
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1))


def iterate_batches(
    data: TrainingData,
    steps: range,
    batch_size: int,
    seed: int,
    device: torch.device,
    part: slice = slice(None),
    composite: CompositeSettings | None = None,
) -> Iterator[tuple[int, Batch]]:
    """Yield each step's number and `part` of its batch, on the device. Threads read ahead."""
    weights = pair_weights(data)
    composite = composite if composite and composite.probability else None

    def read(step: int) -> Arrays:
        chosen = batch_indices(step, batch_size, weights, seed)
        return stack(
            read_pair(data, data.train[chosen[place]].id, (seed, step, place), composite)
            for place in range(batch_size)[part]
        )

    # Composites take long to make; rows of a cache are read faster than any network learns from them.
    threads = usable_cpus() if composite else 1
    with ThreadPoolExecutor(threads) as pool:
        for step, arrays in zip(steps, map_ahead(pool, read, steps, threads), strict=True):
            yield step, to_batch(arrays, device)


def read_pair(
    data: TrainingData, pair_id: str, draw: tuple[int, int, int], composite: CompositeSettings | None
) -> FittedPair:
    """Read a photo, and paste vehicles onto it if it is drawn for that; `draw`: seed, step and place in the batch."""
    pair = data.read(pair_id)
    if composite is None or not data.source_of(pair_id).settings.empty:
        return pair
    rng = np.random.default_rng([*draw, _COMPOSITES])
    if rng.random() >= composite.probability:
        return pair
    image_HWC, soft_HW = pair.image_HWC.copy(), pair.soft_HW.copy()
    for width_px in draw_widths_px(rng, image_HWC.shape[1], composite):
        cutout = data.read_cutout(data.cutouts[int(rng.integers(len(data.cutouts)))].id)
        if cutout is not None:
            paste_cutout(image_HWC, soft_HW, cutout, width_px, rng, composite)
    return FittedPair(image_HWC, soft_HW, pair.known_HW)


def stack(pairs: Iterable[FittedPair]) -> Arrays:
    """Stack photos, soft masks and, unless all are known everywhere, where they are known."""
    images, masks, known = zip(*((pair.image_HWC, pair.soft_HW, pair.known_HW) for pair in pairs), strict=True)
    if all(known_HW is None for known_HW in known):
        return np.stack(images), np.stack(masks), None
    whole_HW = np.full_like(masks[0], 255)
    return np.stack(images), np.stack(masks), np.stack([whole_HW if one is None else one for one in known])


def to_batch(arrays: Arrays, device: torch.device) -> Batch:
    """Scale images and masks (uint8, 0..255) to float32 0..1 on the device."""
    images_BHWC, masks_BHW, known_BHW = arrays
    known_B1HW = None if known_BHW is None else _to_unit(known_BHW, device)
    return Batch(to_input(images_BHWC, device), _to_unit(masks_BHW, device), known_B1HW)


def _to_unit(masks_BHW: NDArray[np.uint8], device: torch.device) -> Tensor:
    return torch.from_numpy(masks_BHW).to(device, non_blocking=True).unsqueeze(1).float().div_(255)
