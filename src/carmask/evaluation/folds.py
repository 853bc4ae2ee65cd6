"""The runs of all folds of one split: each photo is measured by the network that was not trained on its group."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from carmask.data.pairs import Dataset, Pair
from carmask.data.split import Split
from carmask.errors import first_few
from carmask.evaluation.results import EvaluationError
from carmask.evaluation.selection import Selection, TrainingSplit, select_pairs
from carmask.models.config import SPLIT_OF_RUN


class FoldsError(EvaluationError):
    """Folds that are not those of one split."""


def read_folds(folders: Sequence[Path]) -> dict[str, Split]:
    """Read the splits of the runs of all folds, by the names of their folders.

    Raises:
        SplitError: a split is missing or damaged.
        FoldsError: they are not all the folds of one split.
    """
    splits = {folder.name: Split.load(folder / SPLIT_OF_RUN) for folder in folders}
    check_folds(splits)
    named = next(iter(splits.values())).group_of.keys()
    if missing := named - {id_ for split in splits.values() for id_ in split.validation}:
        raise FoldsError(
            f"no fold holds out {first_few(missing)}: these are not all the folds of one split; train the folds again"
        )
    return splits


def check_folds(splits: Mapping[str, Split]) -> None:
    """Check that folds, all or some of them, are of one split: the same photos and groups, and no overlap.

    Raises:
        FoldsError: they are not; it names the folds.
    """
    (first, reference), *others = splits.items()
    held_out_by = dict.fromkeys(reference.validation, first)
    for name, split in others:
        if split.group_of != reference.group_of:
            differing = {id_ for id_, _ in split.group_of.items() ^ reference.group_of.items()}
            raise FoldsError(
                f"{first} and {name} were split differently: they do not agree on {first_few(differing)}. "
                "The photos have changed between them; train the folds again"
            )
        if (split.folds, split.seed) != (reference.folds, reference.seed):
            raise FoldsError(
                f"{first} and {name} were split differently: into {reference.folds} folds by seed {reference.seed}, "
                f"and into {split.folds} by seed {split.seed}; train the folds again"
            )
        if both := held_out_by.keys() & set(split.validation):
            raise FoldsError(
                f"{held_out_by[min(both)]} and {name} overlap: both hold out {first_few(both)}; train the folds again"
            )
        held_out_by |= dict.fromkeys(split.validation, name)


def select_out_of_fold(dataset: Dataset, splits: Mapping[str, Split], folder: Path) -> Selection | None:
    """Choose the photos that the folds, in `folder`, held out; None where none of them is in the data set."""
    pairs = dataset.pairs
    unknown = {pair.id for pair in pairs}
    of_folds: dict[str, tuple[Pair, ...]] = {}
    warnings: list[str] = []
    for name, split in splits.items():
        trained_on = TrainingSplit.from_split(split).within(dataset, folder / name)
        unknown -= trained_on.train.names | trained_on.validation.names
        if not any(pair in trained_on.validation for pair in pairs):
            warnings.append(f"{name}: none of the {len(split.validation)} photos that it held out is in the data.")
            continue
        of_fold = select_pairs(pairs, part="validation", trained_on=trained_on)
        of_folds[name] = of_fold.pairs
        warnings += [f"{name}: {warning}" for warning in of_fold.warnings]
    if not of_folds:
        return None
    if unknown:
        warnings.append(f"{len(unknown)} photos of the data are in no fold and are left out: {first_few(unknown)}.")
    chosen = sorted((pair for of_fold in of_folds.values() for pair in of_fold), key=lambda pair: pair.id)
    remarks = (
        f"Out of fold: each of these {len(chosen)} photos was measured by the network of the fold that held it out, "
        "which was trained on no photo of its group.",
        "Each run chose its best epoch by the photos that it held out, which flatters the figures a little.",
    )
    return Selection(
        tuple(chosen),
        "out-of-fold",
        remarks,
        tuple(warnings),
        folds=tuple(splits),
        fold_of={pair.id: name for name, of_fold in of_folds.items() for pair in of_fold},
    )
