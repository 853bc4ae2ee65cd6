"""Validation during training: Dice of each held-out photo at its own size, as `carmask evaluate` measures it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

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
from carmask.training.team import Team

T = TypeVar("T")
SHOWN_PHOTOS = 6


@dataclass(frozen=True)
class Validation:
    """Dice and coverage (0..1) of each held-out photo, and some masks (bool, canvas height x width) to be shown."""

    dice_of: dict[str, float]
    coverage_of: dict[str, float]
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

    @property
    def one_class(self) -> Literal["background", "vehicle"] | None:
        """The one class of every pixel of every photo, where that is so: nothing was learned, or all was forgotten."""
        found = set(self.coverage_of.values())
        return {0.0: "background", 1.0: "vehicle"}.get(found.pop()) if len(found) == 1 else None  # type: ignore[return-value]


class Validator:
    """Holds the true masks in memory, one bit for each pixel, and measures networks against them.

    In a team every process measures its share of the photos, and all know all figures.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        cache: Cache,
        hardware: Hardware,
        batch_size: int,
        foreground: int | None,
        team: Team,
    ) -> None:
        self._team = team
        # Those in the pictures of each epoch.
        self._shown = frozenset(pair.id for pair in spread(pairs, SHOWN_PHOTOS))
        pairs = team.share(pairs)
        self._ids = tuple(pair.id for pair in pairs)
        self._cache = cache
        self._hardware = hardware
        self._batch_size = batch_size

        def read(pair: Pair) -> PackedMask:
            return PackedMask.of(load_soft_mask(pair, foreground=foreground).mask_HW)

        with ThreadPoolExecutor(usable_cpus()) as pool:
            self._truths = dict(zip(self._ids, pool.map(read, pairs), strict=True))

    def __call__(self, network: Network) -> Validation:
        """Measure a network; leaves it in the mode (training or not) in which it came."""
        was_training = network.training
        engine = TorchEngine(network, self._hardware)
        mine = Validation({}, {}, {})
        with ThreadPoolExecutor(usable_cpus()) as pool:
            for ids in in_batches(self._ids, self._batch_size):
                rows = [self._cache.row_of[id_] for id_ in ids]
                probability_NHW = engine.run(self._cache.images_NHWC[rows])
                truths = [self._truths[id_] for id_ in ids]
                scores = pool.map(lambda item: _score(network, *item), zip(probability_NHW, truths, strict=True))
                for id_, (dice_, coverage) in zip(ids, scores, strict=True):
                    mine.dice_of[id_], mine.coverage_of[id_] = dice_, coverage
                masks_NHW = probability_NHW >= network.card.threshold
                mine.shown.update((id_, mask) for id_, mask in zip(ids, masks_NHW, strict=True) if id_ in self._shown)
        network.train(was_training)
        return _all_of(self._team.gather(mine))


def _all_of(parts: Sequence[Validation]) -> Validation:
    """What the processes of a team found, in an order that does not depend on their number."""
    whole = Validation({}, {}, {})
    for part in parts:
        whole.dice_of.update(part.dice_of)
        whole.coverage_of.update(part.coverage_of)
        whole.shown.update(part.shown)
    return Validation(_sorted(whole.dice_of), _sorted(whole.coverage_of), _sorted(whole.shown))


def _sorted(items: dict[str, T]) -> dict[str, T]:
    return dict(sorted(items.items()))


def _score(network: Network, probability_HW: NDArray[np.float32], truth: PackedMask) -> tuple[float, float]:
    """Dice and coverage."""
    placement = plan(truth.size_HW, network.card.geometry, stride_px=network.card.stride_px)
    mask_HW = restore(probability_HW, placement) >= network.card.threshold
    return dice(truth.mask_HW, mask_HW), float(mask_HW.mean())
