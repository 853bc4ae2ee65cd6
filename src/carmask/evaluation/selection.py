"""Choose which photos of a data set to measure, and say honestly whether the model has learned from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from carmask.data.pairs import Pair
from carmask.data.split import Split
from carmask.evaluation.evaluate import EvaluationError
from carmask.models.config import CONFIG_OF_RUN, SPLIT_OF_RUN
from carmask.runtime.card import ModelCard

Part = Literal["validation", "train", "all"]


@dataclass(frozen=True)
class Selection:
    """The photos to measure; what is to be said about the choice, and what to be warned of."""

    pairs: tuple[Pair, ...] = field(repr=False)
    part: Part | Literal["out-of-fold"]
    remarks: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Side:
    """The photos that were trained on, or that were held out: by their ids, or known by their groups alone."""

    names: frozenset[str]
    of: Literal["photo", "group"]

    def holds(self, pair: Pair) -> bool:
        """Whether the photo is on this side."""
        return self.name_of(pair) in self.names

    def name_of(self, pair: Pair) -> str:
        """That by which this side knows a photo."""
        return pair.id if self.of == "photo" else pair.group


@dataclass(frozen=True)
class Learned:
    """What a model has learned from, and by what its best epoch was chosen."""

    train: Side
    validation: Side
    train_groups: frozenset[str]
    validation_groups: frozenset[str]

    @classmethod
    def from_split(cls, split: Split) -> "Learned":
        """What a run with this split learns from."""
        train, validation = (Side(frozenset(ids), "photo") for ids in (split.train, split.validation))
        groups = (frozenset(split.group_of[id_] for id_ in side.names) for side in (train, validation))
        return cls(train, validation, *groups)

    @classmethod
    def from_groups(cls, train: frozenset[str], validation: frozenset[str]) -> "Learned":
        """Where no more is known than the groups."""
        return cls(Side(train, "group"), Side(validation, "group"), train, validation)


def find_run(model: str | Path) -> Path | None:
    """The folder of the training run that a model is, or lies in, where it has a `split.json`."""
    place = Path(model).absolute()
    # `split.json` alone is no sign of a run: `carmask split` writes one into the working folder.
    for folder in (place, *place.parents[:2]):
        if all((folder / name).is_file() for name in (CONFIG_OF_RUN, SPLIT_OF_RUN)):
            return folder
    return None


def what_was_learned(models: Sequence[tuple[Path, ModelCard]]) -> Learned | None:
    """What these models together have learned from, each given by its place and its card; nothing if one is silent."""
    known = [_learned_by(place, card) for place, card in models]
    if len(known) == 1:
        return known[0]
    groups: set[str] = set()
    held_out: set[str] = set()
    for learned in known:
        if learned is None:
            return None
        groups |= learned.train_groups
        held_out |= learned.validation_groups
    return Learned.from_groups(frozenset(groups), frozenset(held_out - groups))


def _learned_by(place: Path, card: ModelCard) -> Learned | None:
    if card.train_groups:
        return Learned.from_groups(frozenset(card.train_groups), frozenset(card.held_out_groups))
    run = find_run(place)
    return Learned.from_split(Split.load(run / SPLIT_OF_RUN)) if run else None


def select_pairs(
    pairs: Sequence[Pair], *, part: Part | None = None, split: Split | None = None, learned: Learned | None = None
) -> Selection:
    """Choose the photos to measure.

    Without `part` it is the held-out photos where a split or the model says which these are, and all photos otherwise.

    Args:
        pairs: The photos of the data set.
        part: Which side of the split, or all photos.
        split: A split that the user names; without it what the model says.
        learned: What the model has learned from, where it is known.

    Raises:
        EvaluationError: A side is asked for and it is not known, or none of its photos is among `pairs`.

    """
    sides = Learned.from_split(split) if split else learned
    remarks: list[str] = []
    warnings: list[str] = []
    if part is None:
        part = "validation" if split or (learned and any(map(learned.validation.holds, pairs))) else "all"
        if learned and part == "all":
            remarks.append("None of these photos is among those that the model's training held out: all are measured.")
    if part == "all":
        chosen = tuple(pairs)
    elif sides is None:
        raise EvaluationError(
            f"nothing says which photos are the {part} part: name a split with --split, give as --model a model that "
            "knows (the folder of a training run, or what was exported from it), or measure all with --part all"
        )
    else:
        side = sides.validation if part == "validation" else sides.train
        chosen = _on_side(side, pairs, part)
        if gone := len(side.names - {side.name_of(pair) for pair in pairs}):
            # That a data set has not all the groups that some exported model has ever seen is nothing to be warned of.
            said_to = warnings if side.of == "photo" else remarks
            said_to.append(f"{gone} of the split's {len(side.names)} {part} {side.of}s are not in the data.")
    said, warned = _leak(chosen, learned)
    return Selection(chosen, part, (*remarks, *said), (*warnings, *warned))


def _on_side(side: Side, pairs: Sequence[Pair], part: Part) -> tuple[Pair, ...]:
    chosen = tuple(sorted((pair for pair in pairs if side.holds(pair)), key=lambda pair: pair.id))
    if not chosen:
        names = f"; the split names {min(side.names)}" if side.names else ""
        raise EvaluationError(
            f"none of the {len(side.names)} {part} {side.of}s of the split is in the data (it has "
            f"{side.name_of(pairs[0])}{names}); measure all with --part all"
        )
    return chosen


def _leak(chosen: Sequence[Pair], learned: Learned | None) -> tuple[list[str], list[str]]:
    """Say whether the model has learned from the chosen photos, or from others of their groups."""
    total = len(chosen)
    if learned is None:
        return ["What the model was trained on is not known, so neither is whether these photos were held out."], []
    seen = {pair.id for pair in chosen if learned.train.of == "photo" and learned.train.holds(pair)}
    kin = sum(pair.group in learned.train_groups and pair.id not in seen for pair in chosen)
    if not seen and not kin:
        groups = len({pair.group for pair in chosen})
        of = f" of {groups} groups" if groups < total else ""
        said = [f"Held out: the model was trained on none of these {total} photos{of}, nor on others of their groups."]
        if any(map(learned.validation.holds, chosen)):
            said.append("The run chose its best epoch by them, which flatters the figures a little.")
        return said, []
    warnings = []
    if seen:
        warnings.append(f"{len(seen)} of {total} photos were trained on; these figures are not held-out.")
    if kin:
        warnings.append(f"{kin} of {total} photos are of groups that were trained on; these figures are not held-out.")
    return [], warnings
