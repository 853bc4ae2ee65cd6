"""Choose which photos of a data set to measure, and report whether the model was trained on any of them."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from carmask.data.pairs import Dataset, Pair
from carmask.data.split import Split
from carmask.evaluation.results import EvaluationError
from carmask.files import SimilarNames
from carmask.models.card import ModelCard
from carmask.models.config import CONFIG_OF_RUN, EMPTY_SOURCE, SPLIT_OF_RUN

Part = Literal["validation", "train", "all"]


@dataclass(frozen=True)
class Selection:
    """The photos to measure, and what to report about the choice.

    Out of fold, `folds` names all folds in the order of the ensemble's networks, and `fold_of` (photo id -> fold) says
    which network measures a photo: the one that was not trained on its group.
    """

    pairs: tuple[Pair, ...] = field(repr=False)
    part: Part | Literal["out-of-fold"] = "all"
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    folds: tuple[str, ...] = ()
    fold_of: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class PhotoSet:
    """One side of a split: the ids of its photos, and their groups.

    Of an exported model only the groups are known: `kind` is "group", and `names` are the groups, not the ids.
    """

    kind: Literal["photo", "group"]
    names: frozenset[str]
    groups: frozenset[str]

    @classmethod
    def of_groups(cls, groups: Iterable[str]) -> "PhotoSet":
        """Return the set of all photos of some groups."""
        return cls("group", frozenset(groups), frozenset(groups))

    def __contains__(self, pair: Pair) -> bool:
        return self.name_of(pair) in self.names

    def within(self, prefix: str, pairs: Sequence[Pair]) -> "PhotoSet":
        """Return the photos whose names begin with the prefix, without it, and spelled like those of `pairs`."""
        names, groups = (
            _spelled_as(known, {name.removeprefix(prefix) for name in full if name.startswith(prefix)})
            for full, known in (
                (self.names, {self.name_of(pair) for pair in pairs}),
                (self.groups, {pair.group for pair in pairs}),
            )
        )
        return PhotoSet(self.kind, names, groups)

    def name_of(self, pair: Pair) -> str:
        """Return what `names` has for a photo: its id or its group."""
        return pair.id if self.kind == "photo" else pair.group


@dataclass(frozen=True)
class TrainingSplit:
    """The photos that a model was trained on, and those held out, by which its best epoch was chosen."""

    train: PhotoSet
    validation: PhotoSet

    @classmethod
    def from_split(cls, split: Split) -> "TrainingSplit":
        """Know each photo by its id."""
        train, validation = (
            PhotoSet("photo", frozenset(ids), frozenset(split.group_of[id_] for id_ in ids))
            for ids in (split.train, split.validation)
        )
        return cls(train, validation)

    def within(self, dataset: Dataset, run: Path | None = None) -> "TrainingSplit":
        """Return the part that is of this data set, of a split of several, in which its name begins all names.

        The data set is known by its path in the settings of the run, or else by its folder's name.
        """
        prefix, pairs = self._prefix_of(dataset, run), dataset.pairs
        return TrainingSplit(self.train.within(prefix, pairs), self.validation.within(prefix, pairs))

    def _prefix_of(self, dataset: Dataset, run: Path | None) -> str:
        def fits(prefix: str) -> bool:
            sides = (side.within(prefix, dataset.pairs) for side in (self.train, self.validation))
            return any(pair in side for side in sides for pair in dataset.pairs)

        root = dataset.root.resolve()
        # A data set may be named by the folder above it.
        places = (root, root.parent)
        named = [f"{name}/" for name, place in _sources_of(run).items() if place in places] if run else []
        return next(filter(fits, [*named, "", *(f"{place.name}/" for place in places)]), "")


def _spelled_as(known: Set[str], names: Set[str]) -> frozenset[str]:
    if names <= known:
        return frozenset(names)
    similar = SimilarNames(known - names)
    return frozenset(name if name in known else similar.find(name) or name for name in names)


def _sources_of(run: Path) -> dict[str, Path]:
    """Return the folders of a run's data sets that have a name."""
    try:
        config = yaml.safe_load((run / CONFIG_OF_RUN).read_text(encoding="utf-8"))
        found = {name: Path(config["data"], source["path"]) for name, source in config.get("datasets", {}).items()}
        if empty := config.get("dataset", {}).get("empty"):
            found[EMPTY_SOURCE] = Path(empty)
    except (OSError, ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError):
        return {}  # not the settings of a run: only its split is needed
    # A data set may be given as a label file; its root is the folder.
    return {name: (path.parent if path.is_file() else path).resolve() for name, path in found.items()}


def find_run(model: str | Path) -> Path | None:
    """Return the folder of the training run that a model is, or lies in; None where it belongs to no run."""
    place = Path(model).absolute()
    # `split.json` alone does not make a run: `carmask split` writes one into the working folder.
    for folder in (place, *place.parents[:2]):
        if all((folder / name).is_file() for name in (CONFIG_OF_RUN, SPLIT_OF_RUN)):
            return folder
    return None


def find_training_split(
    models: Sequence[tuple[Path, ModelCard]], dataset: Dataset | None = None
) -> TrainingSplit | None:
    """Find what models, each given by its path and its card, were trained on; None if it is unknown for one of them.

    Of a training on several data sets only what is of `dataset` is returned, if it is one of them. Several models
    together have held out the groups that none of them was trained on.
    """
    known = []
    for place, card in models:
        run = find_run(place)
        if card.train_groups:
            train, held_out = PhotoSet.of_groups(card.train_groups), PhotoSet.of_groups(card.held_out_groups)
            split = TrainingSplit(train, held_out)
        elif run:
            split = TrainingSplit.from_split(Split.load(run / SPLIT_OF_RUN))
        else:
            return None
        known.append(split.within(dataset, run) if dataset else split)
    if len(known) == 1:
        return known[0]
    trained = frozenset[str]().union(*(split.train.groups for split in known))
    validation = frozenset[str]().union(*(split.validation.groups for split in known))
    return TrainingSplit(PhotoSet.of_groups(trained), PhotoSet.of_groups(validation - trained))


def select_pairs(
    pairs: Sequence[Pair],
    *,
    part: Part | None = None,
    split: TrainingSplit | None = None,
    trained_on: TrainingSplit | None = None,
) -> Selection:
    """Choose the photos to measure: by default those that the model held out, where that is known, otherwise all.

    Args:
        pairs: The photos of the data set.
        part: Which side of the split, or all photos.
        split: A split to take the part from, instead of the model's own.
        trained_on: The model's own split, where it is known.

    Raises:
        EvaluationError: the part is not known, or none of its photos is among `pairs`.
    """
    sides = split or trained_on
    remarks: list[str] = []
    warnings: list[str] = []
    if part is None:
        part = "validation" if split or (trained_on and any(pair in trained_on.validation for pair in pairs)) else "all"
        if trained_on and part == "all":
            remarks.append("None of these photos is among those that the model's training held out: all are measured.")
    if part == "all":
        chosen = tuple(pairs)
    elif sides is None:
        raise EvaluationError(
            f"it is not known which photos are the {part} part; give a split with --split, give --model the folder of "
            "a training run or a file exported from it, or measure all photos with --part all"
        )
    else:
        side = sides.validation if part == "validation" else sides.train
        chosen = _pairs_in(side, pairs, part)
        if missing := len(side.names - {side.name_of(pair) for pair in pairs}):
            # An exported model may name groups of photos that this data set never had: no reason to warn.
            messages = warnings if side.kind == "photo" else remarks
            messages.append(f"{missing} of the split's {len(side.names)} {part} {side.kind}s are not in the data.")
    leaks = _leak_warnings(chosen, trained_on.train) if trained_on else []
    if not leaks:
        remarks += _held_out_remarks(chosen, trained_on)
    return Selection(chosen, part, tuple(remarks), (*warnings, *leaks))


def _pairs_in(side: PhotoSet, pairs: Sequence[Pair], part: Part) -> tuple[Pair, ...]:
    chosen = tuple(sorted((pair for pair in pairs if pair in side), key=lambda pair: pair.id))
    if not chosen:
        names = f"; the split names {min(side.names)}" if side.names else ""
        raise EvaluationError(
            f"none of the {len(side.names)} {part} {side.kind}s of the split is in the data (it has "
            f"{side.name_of(pairs[0])}{names}); measure all with --part all"
        )
    return chosen


def _leak_warnings(chosen: Sequence[Pair], train: PhotoSet) -> list[str]:
    """Warn of photos that the model was trained on, and of others of their groups."""
    seen = {pair.id for pair in chosen if train.kind == "photo" and pair in train}
    related = sum(pair.group in train.groups and pair.id not in seen for pair in chosen)
    of = f"of {len(chosen)} photos"
    warnings = []
    if seen:
        warnings.append(f"{len(seen)} {of} were trained on; these figures are not held-out.")
    if related:
        warnings.append(f"{related} {of} are of groups that were trained on; these figures are not held-out.")
    return warnings


def _held_out_remarks(chosen: Sequence[Pair], trained_on: TrainingSplit | None) -> list[str]:
    if trained_on is None:
        return ["What the model was trained on is not known, so neither is whether these photos were held out."]
    total, groups = len(chosen), len({pair.group for pair in chosen})
    of = f" of {groups} groups" if groups < total else ""
    remarks = [f"Held out: the model was trained on none of these {total} photos{of}, nor on others of their groups."]
    if any(pair in trained_on.validation for pair in chosen):
        remarks.append("The run chose its best epoch by these photos, so the figures are slightly too good.")
    return remarks
