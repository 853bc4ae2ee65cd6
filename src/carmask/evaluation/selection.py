"""Choose which photos of a data set to measure, and say honestly whether the model has learnt from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from carmask.data.pairs import Pair
from carmask.data.split import Split
from carmask.evaluation.evaluate import EvaluationError

Part = Literal["validation", "train", "all"]


@dataclass(frozen=True)
class Selection:
    """The photos to measure; what is to be said about the choice, and what to be warned of."""

    pairs: tuple[Pair, ...] = field(repr=False)
    part: Part
    remarks: tuple[str, ...]
    warnings: tuple[str, ...]


def find_run(model: str | Path) -> Path | None:
    """The folder of the training run that a model's folder is, or lies in, where it has a `split.json`."""
    place = Path(model).absolute()
    # `split.json` alone is no sign of a run: `carmask split` writes one into the working folder.
    for folder in (place, *place.parents[:2]):
        if (folder / "config.yaml").is_file() and (folder / "split.json").is_file():
            return folder
    return None


def select_pairs(
    pairs: Sequence[Pair], *, part: Part | None = None, split: Split | None = None, trained: Split | None = None
) -> Selection:
    """Choose the photos to measure.

    Without `part` it is the held-out photos where a split says which these are, and all photos otherwise.

    Args:
        pairs: The photos of the data set.
        part: Which side of the split, or all photos.
        split: A split that the user names; without it the model's own.
        trained: The split that the model was trained with, where it is known.

    Raises:
        EvaluationError: A side is asked for and there is no split, or none of its photos is among `pairs`.

    """
    sides = split or trained
    by_id = {pair.id: pair for pair in pairs}
    remarks, warnings = [], []
    if part is None:
        part = "validation" if split or (trained and not by_id.keys().isdisjoint(trained.validation)) else "all"
        if trained and part == "all":
            remarks.append("The split that the model was trained with does not match these photos: all are measured.")
    if part == "all":
        chosen = tuple(pairs)
    elif sides is None:
        raise EvaluationError(
            f"there is no split that says which photos are the {part} part: name one with --split, "
            "give the folder of a training run as --model, or measure all with --part all"
        )
    else:
        wanted = sides.validation if part == "validation" else sides.train
        chosen = tuple(by_id[id_] for id_ in sorted(wanted) if id_ in by_id)
        if not chosen:
            raise EvaluationError(
                f"none of the {len(wanted)} {part} photos of the split is in the data (the split names {wanted[0]}, "
                f"the data {pairs[0].id}); measure all with --part all"
            )
        if gone := len(wanted) - len(chosen):
            warnings.append(f"{gone} of the split's {len(wanted)} {part} photos are not in the data.")
    said, warned = _leak(chosen, trained)
    return Selection(chosen, part, (*remarks, *said), (*warnings, *warned))


def _leak(chosen: Sequence[Pair], trained: Split | None) -> tuple[list[str], list[str]]:
    """Say whether the model has learnt from the chosen photos, or from others of their groups."""
    total = len(chosen)
    if trained is None:
        return ["What the model was trained on is not known, so neither is whether these photos were held out."], []
    learnt = set(trained.train)
    learnt_groups = {trained.group_of[id_] for id_ in learnt}
    seen = sum(pair.id in learnt for pair in chosen)
    kin = sum(pair.id not in learnt and pair.group in learnt_groups for pair in chosen)
    if not seen and not kin:
        groups = len({pair.group for pair in chosen})
        of = f" of {groups} groups" if groups < total else ""
        said = [f"Held out: the model was trained on none of these {total} photos{of}, nor on others of their groups."]
        if not {pair.id for pair in chosen}.isdisjoint(trained.validation):
            said.append("The run chose its best epoch by them, which flatters the figures a little.")
        return said, []
    warnings = []
    if seen:
        warnings.append(f"{seen} of {total} photos were trained on; these figures are not held-out.")
    if kin:
        warnings.append(f"{kin} of {total} photos are of groups that were trained on; these figures are not held-out.")
    return [], warnings
