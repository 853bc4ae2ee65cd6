"""From a folder of photos to batches on the device. Which photos a step sees follows from (seed, step) alone."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from carmask.data.cache import Cache, CacheUnfinished, open_cache
from carmask.data.pairs import Dataset, Pair, describe_odd, describe_rules, find_pairs
from carmask.data.split import Split, make_split
from carmask.errors import CarmaskError
from carmask.progress import progress_bar
from carmask.runner import map_ahead
from carmask.runtime.torch_engine import to_input
from carmask.training.config import TrainSettings
from carmask.training.distributed import DistributedContext
from carmask.training.loggers import say

# Images (float32 B x C x H x W, 0..1) and soft masks (float32 B x 1 x H x W, 0..1).
Batch = tuple[Tensor, Tensor]

SHOWN_SKIPPED = 20


@dataclass(frozen=True)
class TrainingData:
    """Cached photos, those to train on, those held out, and why others cannot be used (photo, cause)."""

    cache: Cache
    split: Split
    train: Sequence[Pair]
    validation: Sequence[Pair]
    skipped: Sequence[tuple[str, str]]


def load_data(
    settings: TrainSettings,
    distributed: DistributedContext,
    console: Console,
    *,
    split: Split | None = None,
    is_time_over: Callable[[], bool] = lambda: False,
) -> TrainingData:
    """Find, decode, resize and split the photos; writes nothing but the cache.

    One process of each machine decodes, until `is_time_over`. `split` is that of a resumed run; without it, the split
    is read or made as the settings say.

    Raises:
        CarmaskError: data, split or settings cannot be used.
        CacheUnfinished: the time was over before all photos were decoded, on one of the machines.

    """
    dataset = find_pairs(settings.data, group_pattern=settings.dataset.group_pattern)
    split_file = settings.dataset.split
    if split is None and split_file is not None:
        split = distributed.broadcast_object(lambda: Split.load(split_file))
    if split is not None:
        # Fails before decoding if the split does not fit.
        split.select(dataset.pairs)
    cache = _fill_cache(settings, dataset, distributed, console, is_time_over)
    problems = [(problem.subject, f"{problem.kind}, {problem.detail}") for problem in dataset.problems]
    skipped = problems + list(cache.failures.items())
    _print_findings(cache, skipped, console)
    if not cache.row_of:
        raise CarmaskError(f"{settings.data}: none of its {len(dataset.pairs)} pairs can be used; see `carmask check`")
    if split is None:
        options = settings.dataset
        split = make_split(
            {pair.id: pair.group for pair in dataset.pairs if pair.id in cache.row_of},
            cache.area_of,
            folds=options.folds,
            fold=options.fold,
            fraction=options.fraction,
            seed=options.split_seed,
        )
    train, validation = ([pair for pair in side if pair.id in cache.row_of] for side in split.select(dataset.pairs))
    if not train or not validation:
        raise CarmaskError("one side of the split has no usable photo; make another with `carmask split`")
    return TrainingData(cache, split, train, validation, skipped)


def _fill_cache(
    settings: TrainSettings,
    dataset: Dataset,
    distributed: DistributedContext,
    console: Console,
    is_time_over: Callable[[], bool],
) -> Cache:
    """Fill the cache on the first process of each machine, then open it on the others.

    Raises:
        CacheUnfinished: the time was over, on one of the machines.

    """

    def open_() -> Cache:
        with progress_bar(console, "decoding photos") as advance:
            return open_cache(
                dataset.pairs,
                settings.cache_key(),
                settings.dataset.cache,
                progress=advance,
                wants_stop=is_time_over,
            )

    cache, unfinished = None, None
    if distributed.local_rank == 0:
        try:
            cache = open_()
        except CacheUnfinished as error:
            unfinished = str(error)
    for message in distributed.all_gather_object(unfinished, slow=True):
        if message is not None:
            raise CacheUnfinished(message)
    cache = cache or open_()
    # Opening verifies the whole cache, which takes the other processes a while.
    distributed.all_gather_object(None, slow=True)
    return cache


def _print_findings(cache: Cache, skipped: Sequence[tuple[str, str]], console: Console) -> None:
    for name, cause in skipped[:SHOWN_SKIPPED]:
        say(console, f"left out  {name}: {cause}", style="yellow")
    if len(skipped) > SHOWN_SKIPPED:
        say(console, f"left out  {len(skipped) - SHOWN_SKIPPED} more; `carmask check` lists all", style="yellow")
    for rule in describe_rules(cache.rules):
        say(console, f"masks     {rule}")
    odd = describe_odd(cache.odd)
    if odd is not None:
        say(console, f"masks     {odd}", style="yellow")


def epoch_steps(settings: TrainSettings, photos: int) -> int:
    """Steps in one epoch: each of `photos` once, or `epoch_samples`, rounded to whole batches."""
    assert settings.batch_size is not None
    return max(1, round((settings.epoch_samples or photos) / settings.batch_size))


def batch_indices(step: int, batch_size: int, count: int, seed: int) -> NDArray[np.int64]:
    """Return the photos of one step, as indices from 0 to `count` - 1.

    Photos come in an endless sequence of shuffled passes, each with every photo once. A batch may reach from one pass
    into the next, so all batches are full and no photo is dropped.
    """
    positions = range(step * batch_size, (step + 1) * batch_size)
    passes = {
        number: np.random.default_rng([seed, number]).permutation(count)
        for number in range(positions[0] // count, positions[-1] // count + 1)
    }
    return np.array([passes[position // count][position % count] for position in positions])


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's generators for one step on one process, so that a resumed run draws the same numbers."""
    numbers = [seed, step, rank] if rank else [seed, step]
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1))


def iterate_batches(
    data: TrainingData, steps: range, batch_size: int, seed: int, device: torch.device, part: slice = slice(None)
) -> Iterator[tuple[int, Batch]]:
    """Yield each step's number and `part` of its batch, on the device. A thread reads one step ahead."""
    rows = np.array([data.cache.row_of[pair.id] for pair in data.train])

    def read(step: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        chosen = rows[batch_indices(step, batch_size, len(rows), seed)[part]]
        return data.cache.images_NHWC[chosen], data.cache.masks_NHW[chosen]

    with ThreadPoolExecutor(1) as pool:
        for step, (images_BHWC, masks_BHW) in zip(steps, map_ahead(pool, read, steps, 1), strict=True):
            yield step, to_batch(images_BHWC, masks_BHW, device)


def to_batch(images_BHWC: NDArray[np.uint8], masks_BHW: NDArray[np.uint8], device: torch.device) -> Batch:
    """Scale images and soft masks (uint8, 0..255) to float32 0..1 on the device."""
    soft_B1HW = torch.from_numpy(masks_BHW).to(device, non_blocking=True).unsqueeze(1)
    return to_input(images_BHWC, device), soft_B1HW.float().div_(255)
