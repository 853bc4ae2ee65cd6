"""Validation during training: Dice of each held-out photo at its own size, as `carmask evaluate` measures it."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from carmask.data.cache import Cache
from carmask.data.pairs import Pair, load_soft_mask, spread
from carmask.evaluation.metrics import dice
from carmask.imaging.geometry import plan, restore
from carmask.imaging.masks import PackedMask
from carmask.limits import usable_cpus
from carmask.models.network import Network
from carmask.runner import in_batches
from carmask.runtime.hardware import Hardware
from carmask.runtime.torch_engine import TorchEngine
from carmask.training.distributed import DistributedContext

SAMPLE_PHOTOS = 6


@dataclass(frozen=True)
class ValidationSet:
    """One process's share of the held-out photos, with their true masks in memory at one bit per pixel."""

    cache: Cache
    truths: Mapping[str, PackedMask]
    # Photos that are drawn in each epoch.
    samples: frozenset[str]


@dataclass(frozen=True)
class ValidationResult:
    """Dice (0..1) of each held-out photo, all coverages (0..1), and some masks (bool, network height x width)."""

    dice_of: dict[str, float]
    coverages: set[float]
    sample_masks: dict[str, NDArray[np.bool_]]

    @property
    def mean(self) -> float:
        """Mean Dice, by which the best weights are chosen."""
        return float(np.mean(list(self.dice_of.values())))

    @property
    def median(self) -> float:
        """Median Dice."""
        return float(np.median(list(self.dice_of.values())))

    @property
    def worst(self) -> float:
        """Lowest Dice."""
        return min(self.dice_of.values())


def load_validation_set(
    pairs: Sequence[Pair], cache: Cache, foreground: int | None, distributed: DistributedContext
) -> ValidationSet:
    """Read the true masks of this process's share of the held-out `pairs`."""
    samples = frozenset(pair.id for pair in spread(pairs, SAMPLE_PHOTOS))
    share = distributed.shard(pairs)

    def read(pair: Pair) -> PackedMask:
        return PackedMask.of(load_soft_mask(pair, foreground=foreground).mask_HW)

    with ThreadPoolExecutor(usable_cpus()) as pool:
        truths = dict(zip((pair.id for pair in share), pool.map(read, share), strict=True))
    return ValidationSet(cache, truths, samples)


def validate(
    network: Network, photos: ValidationSet, hardware: Hardware, batch_size: int, distributed: DistributedContext
) -> ValidationResult:
    """Measure a network on all held-out photos. Leaves it in the mode (training or evaluation) in which it was."""
    was_training = network.training
    engine = TorchEngine(network, hardware)
    rows = []
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for ids in in_batches(photos.truths, batch_size):
            probability_NHW = engine.run(photos.cache.images_NHWC[[photos.cache.row_of[id_] for id_ in ids]])
            truths = [photos.truths[id_] for id_ in ids]
            scores = pool.map(lambda item: _score(network, *item), zip(probability_NHW, truths, strict=True))
            for id_, probability_HW, (dice_, coverage) in zip(ids, probability_NHW, scores, strict=True):
                sample_HW = probability_HW >= network.card.threshold if id_ in photos.samples else None
                rows.append((id_, dice_, coverage, sample_HW))
    network.train(was_training)
    # Sorted, so that means do not depend on the number of processes.
    rows = sorted(chain(*distributed.all_gather_object(rows)), key=itemgetter(0))
    return ValidationResult(
        dice_of={id_: dice_ for id_, dice_, _, _ in rows},
        coverages={coverage for _, _, coverage, _ in rows},
        sample_masks={id_: sample_HW for id_, _, _, sample_HW in rows if sample_HW is not None},
    )


def _score(network: Network, probability_HW: NDArray[np.float32], truth: PackedMask) -> tuple[float, float]:
    """Dice and coverage, at the photo's size."""
    placement = plan(truth.size_HW, network.card.geometry, stride_px=network.card.stride_px)
    mask_HW = restore(probability_HW, placement) >= network.card.threshold
    return dice(truth.mask_HW, mask_HW), float(mask_HW.mean())
