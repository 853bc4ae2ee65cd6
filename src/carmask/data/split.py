"""Split a data set into training and validation photos, by group and stratified by mask area.

Photos of one car are nearly copies of each other, so all photos of a car must be on one side: a model scores too well
on a car that it has seen. Cars are assigned by their mean mask area, so that both sides have small and large ones.
"""

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from carmask import __version__
from carmask.data.pairs import Pair
from carmask.errors import CarmaskError, explain, first_few
from carmask.files import SimilarNames, write_bytes_atomically

# The default number of folds, of which one is held out.
FOLDS = 5
# What helps a small data set.
_FEWER = (
    "give fewer --folds (in training --dataset.folds), at least 2, or more photos or groups; with --dataset.fraction 0 "
    "training uses all photos and holds out none"
)
METHOD = "by group, stratified by mean mask area"


class SplitError(CarmaskError):
    """A split that cannot be made, or one that cannot be trusted."""


class Split(BaseModel):
    """The ids to train on and the ids that are held out. A group or an id on both sides is an error.

    Attributes:
        train: Ids to train on, sorted.
        validation: Held-out ids, sorted.
        group_of: Group of every id of both sides.
        seed: Seed of the shuffle.
        folds: Number of folds, if the split is one of k folds.
        fold: The fold that is held out, from 0.
        fraction: The requested share of held-out photos, if the split was made by fraction; 0 holds out none.
        method: How the split was made, for the reader.
        carmask_version: The version of carmask that made it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    carmask_version: str = __version__
    method: str = METHOD
    seed: int = Field(ge=0)
    folds: int | None = None
    fold: int | None = None
    fraction: float | None = None
    train: tuple[str, ...]
    validation: tuple[str, ...]
    group_of: dict[str, str]

    @model_validator(mode="after")
    def _refuse_leaks(self) -> Self:
        for name, side in (("train", self.train), ("validation", self.validation)):
            if not side and not (name == "validation" and self.fraction == 0):
                raise SplitError(f"the split has no {name} photos")
            if len(set(side)) != len(side):
                twice = next(id_ for id_ in sorted(side) if side.count(id_) > 1)
                raise SplitError(f"the split names {twice} more than once in {name}")
        ids = {*self.train, *self.validation}
        without_group = sorted(ids - self.group_of.keys())
        if without_group:
            raise SplitError(f"the split gives no group for {first_few(without_group)}")
        if extra := sorted(self.group_of.keys() - ids):
            raise SplitError(f"the split gives a group for {first_few(extra)}, on neither side")
        refuse_shared_groups(self.train, self.validation, self.group_of)
        return self

    def save(self, path: str | Path) -> None:
        """Write the split as readable JSON; missing folders are made. Raises `UnwritableFile`."""
        text = json.dumps(self.model_dump(), indent=1) + "\n"
        write_bytes_atomically(Path(path), text.encode(), fsync=True)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a split.

        Raises:
            SplitError: the file is missing, is not a split, or has a group on both sides.
        """
        try:
            return cls.model_validate(json.loads(Path(path).read_bytes()))
        except OSError as error:
            raise SplitError(f"{path}: cannot be read ({error.strerror})") from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SplitError(f"{path}: not JSON ({error}); create it again with `carmask split`") from error
        except ValidationError as error:
            faults = explain(error, cls)
            raise SplitError(f"{path}: not a split ({faults}); create it again with `carmask split`") from error
        except SplitError as error:
            raise SplitError(f"{path}: {error}") from error

    def spelled_as(self, ids: Iterable[str]) -> Self:
        """Return the split with its ids spelled as these, if they differ in case or in how accents are stored."""
        known = set(ids)
        if not (unknown := [id_ for id_ in self.group_of if id_ not in known]):
            return self
        similar = SimilarNames(known - self.group_of.keys())
        new = {id_: similar.find(id_) or id_ for id_ in unknown}
        train, validation = (tuple(sorted(new.get(id_, id_) for id_ in side)) for side in (self.train, self.validation))
        group_of = {new.get(id_, id_): group for id_, group in self.group_of.items()}
        return self.model_copy(update={"train": train, "validation": validation, "group_of": group_of})

    def select(self, pairs: Iterable[Pair]) -> tuple[list[Pair], list[Pair]]:
        """Return the training and the validation pairs, each sorted by id, without pairs that the split does not name.

        Raises:
            SplitError: the split names a photo that is not in `pairs`, or has one of the pairs' groups on both sides.
        """
        by_id = {pair.id: pair for pair in pairs}
        split = self.spelled_as(by_id)
        if gone := sorted({*split.train, *split.validation} - by_id.keys()):
            raise SplitError(
                f"the split names {first_few(gone)}, not in the data; create the split again with `carmask split`"
            )
        refuse_shared_groups(split.train, split.validation, {id_: pair.group for id_, pair in by_id.items()})
        return [by_id[id_] for id_ in sorted(split.train)], [by_id[id_] for id_ in sorted(split.validation)]


def shared_groups(train: Iterable[str], validation: Iterable[str], group_of: Mapping[str, str]) -> list[str]:
    """Return the groups that are on both sides, sorted."""
    return sorted({group_of[id_] for id_ in train} & {group_of[id_] for id_ in validation})


def refuse_shared_groups(train: Iterable[str], validation: Iterable[str], group_of: Mapping[str, str]) -> None:
    """Raise `SplitError` with the names of the groups if any is on both sides."""
    if both := shared_groups(train, validation, group_of):
        raise SplitError(
            f"group {first_few(both)} in both train and validation: the model would be evaluated on what it has seen; "
            "put every photo of a group on one side"
        )


def split_folds(group_of: Mapping[str, str], area_of: Mapping[str, float], *, folds: int, seed: int) -> list[list[str]]:
    """Divide the ids into `folds` sorted lists that keep groups together.

    Groups are sorted by mean mask area and assigned in blocks of `folds`, one to each fold. Within a block the group
    with the most photos goes to the fold with the fewest so far, and ties are shuffled. So the folds differ by at most
    one group, and by at most the photos of the largest group.

    Args:
        group_of: Group of every id.
        area_of: Mask area of every id, in any unit.
        folds: Number of folds, at least 2.
        seed: The same ids, areas and seed give the same folds, whatever the order of the ids.

    Raises:
        SplitError: there are fewer groups than folds, or an area is missing or not a number.
    """
    if folds < 2:
        raise SplitError(f"{folds} folds: at least 2 are needed")
    groups = _groups_by_area(group_of, area_of)
    if len(groups) < folds:
        raise SplitError(
            f"{len(groups)} group{'s' * (len(groups) > 1)} cannot be divided into {folds} folds, since every fold "
            f"needs one; {_FEWER}"
        )
    rng = _generator(seed)
    assigned: list[list[str]] = [[] for _ in range(folds)]
    for start in range(0, len(groups), folds):
        block = [groups[start + k] for k in rng.permutation(len(groups[start : start + folds]))]
        block.sort(key=lambda group: -len(group.ids))
        by_need = sorted(rng.permutation(folds).tolist(), key=lambda fold: len(assigned[fold]))
        for fold, group in zip(by_need, block, strict=False):
            assigned[fold].extend(group.ids)
    return [sorted(ids) for ids in assigned]


def make_split(
    group_of: Mapping[str, str],
    area_of: Mapping[str, float],
    *,
    folds: int = FOLDS,
    fold: int = 0,
    fraction: float | None = None,
    seed: int = 0,
) -> Split:
    """Hold out one fold of `folds` or, with `fraction`, about that share of the groups and photos, or none.

    Raises:
        SplitError: a number is out of range, or there are too few groups.
    """
    if fraction is not None:
        validation = _fraction_of(_groups_by_area(group_of, area_of), fraction, seed) if fraction else []
        return _split(group_of, validation, seed=seed, fraction=fraction)
    assigned = split_folds(group_of, area_of, folds=folds, seed=seed)
    if not 0 <= fold < folds:
        raise SplitError(f"fold {fold}: the folds of {folds} are numbered 0 to {folds - 1}")
    return _split(group_of, assigned[fold], seed=seed, folds=folds, fold=fold)


def make_fold_splits(
    group_of: Mapping[str, str], area_of: Mapping[str, float], *, folds: int = FOLDS, seed: int = 0
) -> list[Split]:
    """Return one split for each fold; every id is held out in exactly one of them."""
    assigned = split_folds(group_of, area_of, folds=folds, seed=seed)
    return [_split(group_of, ids, seed=seed, folds=folds, fold=fold) for fold, ids in enumerate(assigned)]


def _split(group_of: Mapping[str, str], validation: Collection[str], **how: Any) -> Split:
    """Hold out these ids, and train on the others. how: the other fields of `Split`."""
    return Split(
        train=tuple(sorted(group_of.keys() - set(validation))),
        validation=tuple(sorted(validation)),
        group_of={id_: group_of[id_] for id_ in sorted(group_of)},
        **how,
    )


@dataclass(frozen=True)
class _Group:
    name: str
    ids: tuple[str, ...]
    area: float


def _groups_by_area(group_of: Mapping[str, str], area_of: Mapping[str, float]) -> list[_Group]:
    if missing := sorted(id_ for id_ in group_of if id_ not in area_of):
        raise SplitError(f"no mask area for {first_few(missing)}")
    if odd := sorted(id_ for id_ in group_of if not math.isfinite(area_of[id_])):
        raise SplitError(f"the mask area is not a number for {first_few(odd)}")
    ids_of: dict[str, list[str]] = defaultdict(list)
    for id_ in sorted(group_of):
        ids_of[group_of[id_]].append(id_)
    groups = [
        _Group(name, tuple(ids), math.fsum(area_of[id_] for id_ in ids) / len(ids)) for name, ids in ids_of.items()
    ]
    return sorted(groups, key=lambda group: (group.area, group.name))


def _fraction_of(groups: list[_Group], fraction: float, seed: int) -> list[str]:
    """Choose a group from each of equal strata of area: the one that keeps the number of photos nearest its target."""
    if not 0.0 < fraction < 1.0:
        raise SplitError(f"fraction {fraction}: must lie between 0 and 1")
    if len(groups) < 2:
        raise SplitError(f"there is only one group, which cannot be split; {_FEWER}")
    rng = _generator(seed)
    photos = sum(len(group.ids) for group in groups)
    wanted = min(max(round(fraction * len(groups)), 1), len(groups) - 1)
    picked: list[str] = []
    for stratum in range(wanted):
        first, end = (len(groups) * k // wanted for k in (stratum, stratum + 1))
        target = fraction * photos * (stratum + 1) / wanted - len(picked)
        candidates = [groups[first + k] for k in rng.permutation(end - first)]
        picked += min(candidates, key=lambda group: abs(len(group.ids) - target)).ids
    return picked


def _generator(seed: int) -> np.random.Generator:
    if seed < 0:
        raise SplitError(f"seed {seed}: must be 0 or more")
    return np.random.default_rng(seed)
