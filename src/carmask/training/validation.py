"""Validation during training: Dice of each held-out photo at its own size, as `carmask evaluate` measures it."""

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carmask.ahead import in_batches
from carmask.data.cache import Cache
from carmask.data.pairs import Pair, load_soft_mask
from carmask.evaluation.metrics import dice
from carmask.imaging.geometry import Size, plan, restore
from carmask.models.network import Network
from carmask.runtime.hardware import Hardware
from carmask.runtime.torch_engine import TorchEngine


@dataclass(frozen=True)
class Validation:
    """Dice (0..1) of each held-out photo, its averages, and some masks (bool, canvas height x width) to be shown."""

    dice_of: dict[str, float]
    shown: dict[str, NDArray[np.bool_]]

    @property
    def mean(self) -> float:
        """The figure by which the best weights are chosen."""
        return float(np.mean(list(self.dice_of.values())))

    @property
    def median(self) -> float:
        """Half of the photos are better."""
        return float(np.median(list(self.dice_of.values())))

    @property
    def worst(self) -> float:
        """The photo that is cut out worst."""
        return min(self.dice_of.values())


class Validator:
    """Holds the true masks in memory, one bit for each pixel, and measures networks against them."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        cache: Cache,
        hardware: Hardware,
        batch_size: int,
        foreground: int | None,
        shown: Collection[str],
    ) -> None:
        self._ids = tuple(pair.id for pair in pairs)
        self._cache = cache
        self._hardware = hardware
        self._batch_size = batch_size
        self._shown = shown
        with ThreadPoolExecutor(2) as pool:
            self._truths = dict(
                zip(self._ids, pool.map(lambda pair: _packed_truth(pair, foreground), pairs), strict=True)
            )

    def __call__(self, network: Network) -> Validation:
        """Measure a network; leaves it in the mode (training or not) in which it came."""
        was_training = network.training
        engine = TorchEngine(network, self._hardware)
        dice_of: dict[str, float] = {}
        shown: dict[str, NDArray[np.bool_]] = {}
        with ThreadPoolExecutor(2) as pool:
            for ids in in_batches(self._ids, self._batch_size):
                rows = [self._cache.row_of[id_] for id_ in ids]
                probability_NHW = engine.run(self._cache.images_NHWC[rows])
                truths = [self._truths[id_] for id_ in ids]
                scores = pool.map(lambda item: _score(network, *item), zip(probability_NHW, truths, strict=True))
                dice_of.update(zip(ids, scores, strict=True))
                masks_NHW = probability_NHW >= network.config.threshold
                shown.update((id_, mask_HW) for id_, mask_HW in zip(ids, masks_NHW, strict=True) if id_ in self._shown)
        network.train(was_training)
        return Validation(dice_of, shown)


def _packed_truth(pair: Pair, foreground: int | None) -> tuple[NDArray[np.uint8], Size]:
    truth_HW = load_soft_mask(pair, foreground=foreground).mask_HW
    return np.packbits(truth_HW, axis=1), (truth_HW.shape[0], truth_HW.shape[1])


def _score(network: Network, probability_HW: NDArray[np.float32], truth: tuple[NDArray[np.uint8], Size]) -> float:
    packed, size_HW = truth
    truth_HW = np.unpackbits(packed, axis=1, count=size_HW[1]).view(np.bool_)
    placement = plan(size_HW, network.config.geometry, stride_px=network.config.unet.stride_px)
    return dice(truth_HW, restore(probability_HW, placement) >= network.config.threshold)
