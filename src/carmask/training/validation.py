"""Validation during training: Dice of each held-out photo at its own size, as `carmask evaluate` measures it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from carmask.data.cache import Cache
from carmask.data.pairs import Pair, load_soft_mask
from carmask.evaluation.metrics import dice
from carmask.imaging.geometry import Size, plan, restore
from carmask.models.network import Network
from carmask.runtime.hardware import Hardware
from carmask.training.batches import BatchReader


@dataclass(frozen=True)
class Validation:
    """Dice (0..1) of each held-out photo, and its averages."""

    dice_of: dict[str, float]

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
        self, pairs: Sequence[Pair], cache: Cache, hardware: Hardware, *, foreground: int | None, batch_size: int
    ) -> None:
        self._ids = tuple(pair.id for pair in pairs)
        self._reader = BatchReader(cache, self._ids, hardware.device)
        self._hardware = hardware
        self._batch_size = batch_size
        with ThreadPoolExecutor(2) as pool:
            self._truths = list(pool.map(lambda pair: _packed_truth(pair, foreground), pairs))

    def __call__(self, network: Network) -> Validation:
        """Measure a network; leaves it in the mode (training or not) in which it came."""
        was_training = network.training
        network.eval()
        scores: list[float] = []
        with torch.inference_mode(), ThreadPoolExecutor(2) as pool:
            for images_BCHW, _ in self._reader.in_order(self._batch_size):
                probability_BHW = self._predict(network, images_BCHW).cpu().numpy()
                truths = self._truths[len(scores) : len(scores) + len(probability_BHW)]
                scores += pool.map(lambda item: _score(network, *item), zip(probability_BHW, truths, strict=True))
        network.train(was_training)
        return Validation(dict(zip(self._ids, scores, strict=True)))

    def _predict(self, network: Network, images_BCHW: Tensor) -> Tensor:
        with self._hardware.autocast():
            logits_B1HW: Tensor = network(images_BCHW)
        return logits_B1HW[:, 0].float().sigmoid()


def _packed_truth(pair: Pair, foreground: int | None) -> tuple[NDArray[np.uint8], Size]:
    truth_HW = load_soft_mask(pair, foreground=foreground).mask_HW
    return np.packbits(truth_HW, axis=1), (truth_HW.shape[0], truth_HW.shape[1])


def _score(network: Network, probability_HW: NDArray[np.float32], truth: tuple[NDArray[np.uint8], Size]) -> float:
    packed, size_HW = truth
    truth_HW = np.unpackbits(packed, axis=1, count=size_HW[1]).view(np.bool_)
    placement = plan(size_HW, network.config.geometry, stride_px=network.config.unet.stride_px)
    return dice(truth_HW, restore(probability_HW, placement) >= network.config.threshold)
