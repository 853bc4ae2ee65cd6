"""Validation during training: Dice of each held-out photo at its own size, as `carmask evaluate` measures it."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from carmask.data.pairs import Pair, load_soft_mask, spread
from carmask.evaluation.metrics import photo_dice
from carmask.imaging.decode import read_size
from carmask.imaging.geometry import plan, restore
from carmask.imaging.masks import PackedMask
from carmask.limits import usable_cpus
from carmask.models.network import Network
from carmask.runner import in_batches
from carmask.runtime.engine import EngineError
from carmask.runtime.hardware import Hardware
from carmask.runtime.torch_engine import TorchEngine
from carmask.training.datasets import TrainingData
from carmask.training.distributed import DistributedContext

SAMPLE_PHOTOS = 6


@dataclass(frozen=True)
class Truth:
    """A true mask in memory at one bit per pixel, and where it is known (None: everywhere)."""

    mask: PackedMask
    known: PackedMask | None


@dataclass(frozen=True)
class ValidationSet:
    """One process's share of the held-out photos, with their true masks."""

    data: TrainingData
    truths: Mapping[str, Truth]
    # Photos that are drawn in each epoch.
    samples: frozenset[str]


@dataclass(frozen=True)
class ValidationResult:
    """Dice (0..1) of each held-out photo, all coverages (0..1), and some masks (bool, network height x width).

    `mean_of_dataset` is empty if there is only one data set.
    """

    dice_of: dict[str, float]
    mean_of_dataset: dict[str, float]
    coverages: set[float]
    sample_masks: dict[str, NDArray[np.bool_]]

    @property
    def mean(self) -> float:
        """Mean Dice, by which the best weights are chosen; every data set counts the same."""
        return float(np.mean(list((self.mean_of_dataset or self.dice_of).values())))

    @property
    def median(self) -> float:
        """Median Dice."""
        return float(np.median(list(self.dice_of.values())))

    @property
    def worst(self) -> float:
        """Lowest Dice."""
        return min(self.dice_of.values())


def load_validation_set(data: TrainingData, distributed: DistributedContext) -> ValidationSet:
    """Read the true masks of this process's share of the held-out photos."""
    share = distributed.shard(data.validation)

    def read(pair: Pair) -> Truth:
        reading = load_soft_mask(pair, photo_HW=read_size(pair.image))
        known_HW = reading.known_HW
        return Truth(PackedMask.of(reading.mask_HW), None if known_HW is None else PackedMask.of(known_HW))

    with ThreadPoolExecutor(usable_cpus()) as pool:
        truths = dict(zip((pair.id for pair in share), pool.map(read, share), strict=True))
    samples = frozenset(pair.id for pair in spread(data.validation, SAMPLE_PHOTOS))
    return ValidationSet(data, truths, samples)


def validate(
    network: Network, photos: ValidationSet, hardware: Hardware, batch_size: int, distributed: DistributedContext
) -> ValidationResult:
    """Measure a network on all held-out photos. Leaves it in the mode (training or evaluation) in which it was."""
    was_training = network.training
    engine = TorchEngine(network, hardware)
    rows = []
    with ThreadPoolExecutor(usable_cpus()) as pool:
        for ids in in_batches(photos.truths, batch_size):
            probability_NHW = _run(engine, np.stack([photos.data.read(id_).image_HWC for id_ in ids]))
            truths = [photos.truths[id_] for id_ in ids]
            scores = pool.map(lambda item: _score(network, *item), zip(probability_NHW, truths, strict=True))
            for id_, probability_HW, (score, coverage) in zip(ids, probability_NHW, scores, strict=True):
                sample_HW = probability_HW >= network.card.threshold if id_ in photos.samples else None
                rows.append((id_, score, coverage, sample_HW))
    network.train(was_training)
    # Sorted, so that means do not depend on the number of processes.
    rows = sorted(chain(*distributed.all_gather_object(rows)), key=itemgetter(0))
    dice_of = {id_: score for id_, score, _, _ in rows}
    return ValidationResult(
        dice_of=dice_of,
        mean_of_dataset=_mean_of_dataset(photos.data, dice_of),
        coverages={coverage for _, _, coverage, _ in rows},
        sample_masks={id_: sample_HW for id_, _, _, sample_HW in rows if sample_HW is not None},
    )


def _run(engine: TorchEngine, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run the network on all photos at once, or on ever fewer where it fails: training may run batches in parts, too.

    Raises:
        EngineError: it fails on a single photo.
    """
    try:
        return engine.run(images_NHWC)
    except EngineError:
        if len(images_NHWC) == 1:
            raise
    # Not in the handler: while the error is handled, it holds what the failed pass has computed.
    return np.concatenate([_run(engine, half_NHWC) for half_NHWC in np.array_split(images_NHWC, 2)])


def _score(network: Network, probability_HW: NDArray[np.float32], truth: Truth) -> tuple[float, float]:
    """Dice and coverage of the known pixels, at the photo's size."""
    placement = plan(truth.mask.size_HW, network.card.geometry, stride_px=network.card.stride_px)
    mask_HW = restore(probability_HW, placement) >= network.card.threshold
    known_HW = None if truth.known is None else truth.known.mask_HW
    judged_HW = mask_HW if known_HW is None else mask_HW & known_HW
    return photo_dice(truth.mask.mask_HW, mask_HW, known_HW), float(judged_HW.mean())


def _mean_of_dataset(data: TrainingData, dice_of: Mapping[str, float]) -> dict[str, float]:
    if len(data.sources) == 1:
        return {}
    of_dataset: dict[str, list[float]] = {}
    for id_, score in dice_of.items():
        of_dataset.setdefault(data.source_of(id_).name or "photos", []).append(score)
    return {name: float(np.mean(values)) for name, values in of_dataset.items()}
