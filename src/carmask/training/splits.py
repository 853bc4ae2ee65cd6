"""The split of a run: that of each of its data sets, read or made, and all of them joined."""

from collections.abc import Mapping
from functools import partial

from rich.console import Console

from carmask.data.cache import Cache
from carmask.data.own_split import find_own_split
from carmask.data.pairs import Dataset
from carmask.data.split import FOLDS, Split, SplitError, make_split
from carmask.progress import say
from carmask.training.config import TrainSettings
from carmask.training.distributed import DistributedContext


def prefix_of(name: str) -> str:
    """Return how the ids of a data set of this name begin in a run; they are as they are where it has no name."""
    return f"{name}/" if name else ""


def load_split_of_all(settings: TrainSettings, distributed: DistributedContext) -> Split | None:
    """Read `dataset.split` if it is a split of several data sets, as that of an earlier stage is.

    Raises:
        SplitError: it is not, and `datasets` say which data sets there are.
    """
    file, names = settings.dataset.split, [name for name in settings.sources() if name]
    if file is None or not names:
        return None
    split: Split = distributed.broadcast_object(partial(Split.load, file))
    absent = [name for name in names if not any(id_.startswith(prefix_of(name)) for id_ in split.group_of)]
    if absent and settings.datasets:
        raise SplitError(
            f"{file}: names no photos of the data set {absent[0]}; give the split of each data set in `datasets` "
            "instead of dataset.split"
        )
    return None if absent else split


def load_splits(
    settings: TrainSettings, found: Mapping[str, Dataset], distributed: DistributedContext
) -> dict[str, Split]:
    """Read the splits that the settings name, by data set."""
    splits = {}
    for name, source in settings.sources().items():
        if source.split is not None:
            splits[name] = distributed.broadcast_object(partial(Split.load, source.split))
            splits[name].select(found[name].pairs)
    return splits


def split_dataset(settings: TrainSettings, dataset: Dataset, cache: Cache, console: Console) -> Split:
    """Split a data set as its own folders or lists do, or as the settings say if they say anything."""
    options = settings.dataset
    own = find_own_split(dataset, cache.row_of)
    if own is not None:
        follow = options.own_split and options.fraction is None and (options.fold, options.folds) == (0, FOLDS)
        sides = f"{len(own.train)} to train on, {len(own.validation)} held out"
        what = f"{own.method}: {sides}" if follow else f"not {own.method}, since the settings divide the photos anew"
        say(console, f"split     {what} ({dataset.root})")
        if follow:
            return own
    return make_split(
        {pair.id: pair.group for pair in dataset.pairs if pair.id in cache.row_of},
        cache.area_of,
        folds=options.folds,
        fold=options.fold,
        fraction=options.fraction,
        seed=options.split_seed,
    )


def join_splits(splits: Mapping[str, Split]) -> Split:
    """One split of all data sets; that of a single unnamed one stays as it is."""
    if splits.keys() == {""}:
        return splits[""]
    return Split(
        method=f"of {len(splits)} data sets, each for itself",
        fraction=None if any(split.validation for split in splits.values()) else 0,
        seed=next(iter(splits.values())).seed,
        train=tuple(prefix_of(name) + id_ for name, split in splits.items() for id_ in split.train),
        validation=tuple(prefix_of(name) + id_ for name, split in splits.items() for id_ in split.validation),
        group_of={
            prefix_of(name) + id_: prefix_of(name) + group
            for name, split in splits.items()
            for id_, group in split.group_of.items()
        },
    )
