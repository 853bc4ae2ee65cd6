"""The data sets of a run: found, split, decoded into caches, and read photo by photo."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from carmask.data.cache import Cache
from carmask.data.cache_build import CacheUnfinished, open_cache
from carmask.data.composite import Cutout
from carmask.data.pairs import Dataset, Pair, describe_inverted, describe_odd, describe_rules, find_pairs
from carmask.data.split import Split
from carmask.errors import CarmaskError
from carmask.imaging.formats import describe_left_out
from carmask.progress import progress_bar, say
from carmask.training.config import TrainSettings
from carmask.training.config_sections import MaskSettings, SourceSettings
from carmask.training.distributed import DistributedContext
from carmask.training.splits import join_splits, load_split_of_all, load_splits, prefix_of, split_dataset

SHOWN_SKIPPED = 20


@dataclass(frozen=True)
class FittedPair:
    """A photo and its soft mask at the network's size, uint8.

    `known_HW` is 255 where the mask is known, 0 elsewhere; None if it is known everywhere.
    """

    image_HWC: NDArray[np.uint8]
    soft_HW: NDArray[np.uint8]
    known_HW: NDArray[np.uint8] | None


@dataclass(frozen=True)
class Source:
    """One data set, decoded. Its pairs have the ids and groups of the run, which begin with its name, if it has one."""

    name: str
    settings: SourceSettings
    cache: Cache
    pairs: Sequence[Pair]

    def row(self, pair_id: str) -> int | None:
        """Row of a pair in the cache; None if it could not be used."""
        return self.cache.row_of.get(pair_id.removeprefix(prefix_of(self.name)))

    def read(self, pair_id: str) -> FittedPair:
        """Read a pair from the cache."""
        row, cache = self.row(pair_id), self.cache
        known_HW = None if cache.known_NHW is None else cache.known_NHW[row]
        return FittedPair(cache.images_NHWC[row], cache.masks_NHW[row], known_HW)


@dataclass(frozen=True)
class TrainingData:
    """The photos to train on, those held out, and why others cannot be used (photo, cause).

    `split` names the photos of all sources. `train` and `validation` have those that are shown; `cutouts` are those to
    train on whose vehicles are pasted onto photos without a vehicle. If no photo is held out, `validation` is `train`.
    """

    sources: Sequence[Source]
    split: Split
    train: Sequence[Pair]
    validation: Sequence[Pair]
    skipped: Sequence[tuple[str, str]] = ()
    cutouts: Sequence[Pair] = ()

    @cached_property
    def _source_of(self) -> Mapping[str, Source]:
        return {pair.id: source for source in self.sources for pair in source.pairs}

    def source_of(self, pair_id: str) -> Source:
        """The data set of a pair."""
        return self._source_of[pair_id]

    def read(self, pair_id: str) -> FittedPair:
        """Read a pair at the network's size."""
        return self._source_of[pair_id].read(pair_id)

    def read_cutout(self, pair_id: str) -> Cutout | None:
        """Cut out the vehicle of a pair; None where its mask is empty at the network's size."""
        pair = self.read(pair_id)
        return Cutout.of(pair.image_HWC, pair.soft_HW)

    @property
    def held_out(self) -> Sequence[Pair]:
        """The photos of `validation`, unless they are trained on, too."""
        return self.validation if self.split.validation else ()

    @property
    def digest(self) -> str:
        """Differs if any photo, mask or the way in which they are fitted differs."""
        names = [source.cache.folder.name for source in self.sources]
        return names[0] if len(names) == 1 else hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]

    @property
    def is_fresh(self) -> bool:
        """Whether any photo was decoded just now."""
        return any(source.cache.fresh for source in self.sources)


def load_data(
    settings: TrainSettings,
    distributed: DistributedContext,
    console: Console,
    *,
    split: Split | None = None,
    is_time_over: Callable[[], bool] = lambda: False,
) -> TrainingData:
    """Find, decode, resize and split the photos; writes nothing but caches.

    One process of each machine decodes, until `is_time_over`. `split` is that of a resumed run; without it, the split
    of each data set is read or made as the settings say.

    Raises:
        CarmaskError: data, split or settings cannot be used.
        CacheUnfinished: the time was over before all photos were decoded, on one of the machines.
    """
    settings_of = settings.sources()
    found = {name: find_pairs_of(source) for name, source in settings_of.items()}
    pairs_of = {name: [renamed(pair, name) for pair in dataset.pairs] for name, dataset in found.items()}
    split = split or load_split_of_all(settings, distributed)
    # Splits that do not fit fail before photos are decoded.
    own_splits = {}
    if split is not None:
        split.select(pair for pairs in pairs_of.values() for pair in pairs)
    else:
        own_splits = load_splits(settings, found, distributed)
    sources, skipped = [], []
    for name, dataset in found.items():
        cache = _fill_cache(settings, settings_of[name], dataset, distributed, console, is_time_over)
        problems = [(problem.subject, f"{problem.kind}, {problem.detail}") for problem in dataset.problems]
        skipped += [(prefix_of(name) + subject, cause) for subject, cause in (*problems, *cache.failures.items())]
        if not cache.row_of:
            raise CarmaskError(
                f"{dataset.root}: none of its {len(dataset.pairs)} pairs can be used; see `carmask check`"
            )
        sources.append(Source(name, settings_of[name], cache, pairs_of[name]))
    for dataset in found.values():
        if dataset.left_out:
            say(console, f"left out  {describe_left_out(dataset.left_out)}", style="yellow")
    _print_findings([source.cache for source in sources], skipped, console)
    if split is None:
        split = join_splits(
            {
                source.name: own_splits.get(source.name)
                or split_dataset(settings, found[source.name], source.cache, console)
                for source in sources
            }
        )
    return _divide(sources, split, skipped)


def find_pairs_of(source: SourceSettings) -> Dataset:
    """Find the photos and masks of one data set of a run. Raises what `find_pairs` raises."""
    return find_pairs(source.path, **source.model_dump(include={"empty", *MaskSettings.model_fields}))


def renamed(pair: Pair, name: str) -> Pair:
    """Return a pair with the id and the group that it has in a run whose data set has this name."""
    return replace(pair, id=prefix_of(name) + pair.id, group=prefix_of(name) + pair.group)


def _divide(sources: Sequence[Source], split: Split, skipped: Sequence[tuple[str, str]]) -> TrainingData:
    """Both sides of the split, without photos that cannot be used and without data sets that are not shown.

    Raises:
        CarmaskError: a side is empty.
    """
    source_of = {pair.id: source for source in sources for pair in source.pairs if source.row(pair.id) is not None}
    train, validation = (
        [pair for pair in side if pair.id in source_of]
        for side in split.select(pair for source in sources for pair in source.pairs)
    )
    shown_train, shown_validation = (
        [pair for pair in side if source_of[pair.id].settings.weight] for side in (train, validation)
    )
    if not split.validation:
        shown_validation = shown_train
    if not shown_train or not shown_validation:
        raise CarmaskError("one side of the split has no usable photo; make another with `carmask split`")
    cutouts = [pair for pair in train if source_of[pair.id].settings.cutouts]
    return TrainingData(sources, split, shown_train, shown_validation, skipped, cutouts)


def _fill_cache(
    settings: TrainSettings,
    source: SourceSettings,
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
        with progress_bar("decoding photos", console=console) as advance:
            return open_cache(
                dataset.pairs,
                settings.cache_key(source),
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


def _print_findings(caches: Sequence[Cache], skipped: Sequence[tuple[str, str]], console: Console) -> None:
    for name, cause in skipped[:SHOWN_SKIPPED]:
        say(console, f"left out  {name}: {cause}", style="yellow")
    if len(skipped) > SHOWN_SKIPPED:
        say(console, f"left out  {len(skipped) - SHOWN_SKIPPED} more; `carmask check` lists all", style="yellow")
    for cache in caches:
        if (warning := describe_inverted(cache.inverted, sum(area > 0 for area in cache.area_of.values()))) is not None:
            say(console, f"masks     {warning}", style="yellow")
        for rule in describe_rules(cache.rules):
            say(console, f"masks     {rule}")
        if (odd := describe_odd(cache.odd)) is not None:
            say(console, f"masks     {odd}", style="yellow")
