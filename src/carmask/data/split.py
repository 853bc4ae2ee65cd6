"""Split a data set into training and validation photos, by group and stratified by mask area.

Photos of one car are near copies of each other, so a car must stand wholly on one side: a model that has seen the
car scores too well on it. Cars are dealt out along their mean mask area, so that every side has small and large ones.
"""

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from carmask import __version__
from carmask.data.pairs import Pair
from carmask.errors import CarmaskError, explain
from carmask.files import write_bytes_atomically

# How many parts there are, of which one is held out, where nobody says.
FOLDS = 5
METHOD = "by group, stratified by mean mask area"


class SplitError(CarmaskError):
    """A split that cannot be made, or one that cannot be trusted."""


class Split(BaseModel):
    """Which ids are trained on and which are held out. Refuses a group, or an id, on both sides.

    Attributes:
        train: Ids to learn from, sorted.
        validation: Ids held out, sorted.
        group_of: Group of every id of both sides.
        seed: Seed of the shuffle.
        folds: Number of folds, where the split is one of k folds.
        fold: Which fold is held out, from 0.
        fraction: The part of the photos that was asked for validation, where it was one fraction.
        method: How the split was made, for the reader.
        carmask_version: What made it.

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
            if not side:
                raise SplitError(f"the split has no {name} photos")
            if len(set(side)) != len(side):
                twice = next(id_ for id_ in sorted(side) if side.count(id_) > 1)
                raise SplitError(f"the split names {twice} more than once in {name}")
        ids = {*self.train, *self.validation}
        without_group = sorted(ids - self.group_of.keys())
        if without_group:
            raise SplitError(f"the split gives no group for {some(without_group)}")
        if extra := sorted(self.group_of.keys() - ids):
            raise SplitError(f"the split gives a group for {some(extra)}, on neither side")
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
            SplitError: The file is missing, is not a split, or has a group on both sides.

        """
        try:
            return cls.model_validate(json.loads(Path(path).read_bytes()))
        except OSError as error:
            raise SplitError(f"{path}: cannot be read ({error.strerror})") from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise SplitError(f"{path}: is not JSON ({error}); make it anew with `carmask split`") from error
        except ValidationError as error:
            faults = explain(error, cls)
            raise SplitError(f"{path}: is not a split ({faults}); make it anew with `carmask split`") from error
        except SplitError as error:
            raise SplitError(f"{path}: {error}") from error

    def select(self, pairs: Iterable[Pair]) -> tuple[list[Pair], list[Pair]]:
        """Return the training and the validation pairs, each sorted by id. Pairs the split does not name are left out.

        Raises:
            SplitError: The split names a photo that is not among `pairs`, or, by the pairs' own groups, has a group
                on both sides.

        """
        by_id = {pair.id: pair for pair in pairs}
        if gone := sorted({*self.train, *self.validation} - by_id.keys()):
            raise SplitError(f"the split names {some(gone)}, not in the data; make the split anew with `carmask split`")
        refuse_shared_groups(self.train, self.validation, {id_: pair.group for id_, pair in by_id.items()})
        return [by_id[id_] for id_ in sorted(self.train)], [by_id[id_] for id_ in sorted(self.validation)]


def shared_groups(train: Iterable[str], validation: Iterable[str], group_of: Mapping[str, str]) -> list[str]:
    """Return the groups that stand on both sides, sorted."""
    return sorted({group_of[id_] for id_ in train} & {group_of[id_] for id_ in validation})


def refuse_shared_groups(train: Iterable[str], validation: Iterable[str], group_of: Mapping[str, str]) -> None:
    """Raise `SplitError`, naming the groups, where one stands on both sides."""
    if both := shared_groups(train, validation, group_of):
        raise SplitError(
            f"group {some(both)} in both train and validation: the model would be measured on what it has seen. "
            "Put every photo of a group on one side"
        )


def split_folds(group_of: Mapping[str, str], area_of: Mapping[str, float], *, folds: int, seed: int) -> list[list[str]]:
    """Deal the ids into `folds` lists, each sorted, no group torn apart.

    Groups are sorted by mean mask area and dealt in blocks of `folds`, one to each fold; inside a block the group
    with the most photos goes to the fold with the fewest so far, and equals are shuffled. So the folds differ by at
    most one group, and by at most the photos of the largest group.

    Args:
        group_of: Group of every id.
        area_of: Mask area of every id, in any one unit; the fraction of the picture is usual.
        folds: Number of folds, at least 2.
        seed: The same ids, areas and seed give the same folds, in whatever order the ids come.

    Raises:
        SplitError: There are fewer groups than folds, or an area is missing or not a number.

    """
    if folds < 2:
        raise SplitError(f"{folds} folds: at least 2 are needed")
    groups = _groups_by_area(group_of, area_of)
    if len(groups) < folds:
        raise SplitError(
            f"{len(groups)} groups cannot be dealt into {folds} folds: every fold needs one. Use fewer folds"
        )
    rng = _generator(seed)
    dealt: list[list[str]] = [[] for _ in range(folds)]
    for start in range(0, len(groups), folds):
        block = [groups[start + k] for k in rng.permutation(len(groups[start : start + folds]))]
        block.sort(key=lambda group: -len(group.ids))
        by_need = sorted(rng.permutation(folds).tolist(), key=lambda fold: len(dealt[fold]))
        for fold, group in zip(by_need, block, strict=False):
            dealt[fold].extend(group.ids)
    return [sorted(ids) for ids in dealt]


def make_split(
    group_of: Mapping[str, str],
    area_of: Mapping[str, float],
    *,
    folds: int = FOLDS,
    fold: int = 0,
    fraction: float | None = None,
    seed: int = 0,
) -> Split:
    """Hold out one fold of `folds`, or, where `fraction` is given, about that part of the groups and of the photos.

    Raises:
        SplitError: The figures are out of range or there are too few groups for them.

    """
    if fraction is not None:
        held_out = _fraction_of(_groups_by_area(group_of, area_of), fraction, seed)
        return _split(group_of, held_out, seed=seed, fraction=fraction)
    if not 0 <= fold < folds:
        raise SplitError(f"fold {fold}: the folds of {folds} are numbered 0 to {folds - 1}")
    held_out = split_folds(group_of, area_of, folds=folds, seed=seed)[fold]
    return _split(group_of, held_out, seed=seed, folds=folds, fold=fold)


def make_fold_splits(
    group_of: Mapping[str, str], area_of: Mapping[str, float], *, folds: int = 5, seed: int = 0
) -> list[Split]:
    """Return one split for each fold held out; every id is held out once."""
    dealt = split_folds(group_of, area_of, folds=folds, seed=seed)
    return [_split(group_of, ids, seed=seed, folds=folds, fold=fold) for fold, ids in enumerate(dealt)]


@dataclass(frozen=True)
class _Group:
    name: str
    ids: tuple[str, ...]
    area: float


def _groups_by_area(group_of: Mapping[str, str], area_of: Mapping[str, float]) -> list[_Group]:
    if missing := sorted(id_ for id_ in group_of if id_ not in area_of):
        raise SplitError(f"no mask area for {some(missing)}")
    if odd := sorted(id_ for id_ in group_of if not math.isfinite(area_of[id_])):
        raise SplitError(f"the mask area is not a number for {some(odd)}")
    ids_of: dict[str, list[str]] = defaultdict(list)
    for id_ in sorted(group_of):
        ids_of[group_of[id_]].append(id_)
    groups = [
        _Group(name, tuple(ids), math.fsum(area_of[id_] for id_ in ids) / len(ids)) for name, ids in ids_of.items()
    ]
    return sorted(groups, key=lambda group: (group.area, group.name))


def _fraction_of(groups: list[_Group], fraction: float, seed: int) -> list[str]:
    """Pick one group from each of equal strata of area, the one that keeps the number of photos nearest its due."""
    if not 0.0 < fraction < 1.0:
        raise SplitError(f"fraction {fraction}: must lie between 0 and 1")
    if len(groups) < 2:
        raise SplitError("there is only one group, so it cannot be split; give each photo its group")
    rng = _generator(seed)
    photos = sum(len(group.ids) for group in groups)
    wanted = min(max(round(fraction * len(groups)), 1), len(groups) - 1)
    picked: list[str] = []
    for stratum in range(wanted):
        first, end = (len(groups) * k // wanted for k in (stratum, stratum + 1))
        due = fraction * photos * (stratum + 1) / wanted - len(picked)
        candidates = [groups[first + k] for k in rng.permutation(end - first)]
        picked += min(candidates, key=lambda group: abs(len(group.ids) - due)).ids
    return picked


def _split(
    group_of: Mapping[str, str],
    held_out: Iterable[str],
    *,
    seed: int,
    folds: int | None = None,
    fold: int | None = None,
    fraction: float | None = None,
) -> Split:
    validation = set(held_out)
    return Split(
        seed=seed,
        folds=folds,
        fold=fold,
        fraction=fraction,
        train=tuple(sorted(group_of.keys() - validation)),
        validation=tuple(sorted(validation)),
        group_of={id_: group_of[id_] for id_ in sorted(group_of)},
    )


def _generator(seed: int) -> np.random.Generator:
    if seed < 0:
        raise SplitError(f"seed {seed}: must be 0 or more")
    return np.random.default_rng(seed)


def some(names: Collection[str]) -> str:
    """The first few of these names, for a message, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(sorted(names)[:3]) + more
