"""Out-of-fold figures: each photo measured by the network that was not trained on its group, all folds together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from carmask.data.pairs import Pair
from carmask.data.split import Split, some
from carmask.evaluation.evaluate import EvaluationError, Segments, evaluate
from carmask.evaluation.results import Evaluation
from carmask.evaluation.selection import Learned, Selection, select_pairs
from carmask.models.config import SPLIT_OF_RUN
from carmask.progress import Progress


class FoldsError(EvaluationError):
    """Folds that were not dealt together."""


@dataclass(frozen=True)
class Share:
    """Photos that one segmenter measures; `name` is its fold's, and empty where there are no folds."""

    name: str
    pairs: tuple[Pair, ...] = field(repr=False)
    segmenter: Segments


def read_folds(folders: Sequence[Path]) -> dict[str, Split]:
    """Read who was held out in the runs of all folds, by the names of their folders.

    Raises:
        SplitError: a split is missing or damaged.
        FoldsError: they are not the folds of one split.

    """
    splits = {folder.name: Split.load(folder / SPLIT_OF_RUN) for folder in folders}
    refuse_mixed_folds(splits)
    if forgotten := _all_ids(splits) - {id_ for split in splits.values() for id_ in split.validation}:
        raise FoldsError(
            f"no fold holds out {some(forgotten)}: these are not all the folds of one split; train the folds again"
        )
    return splits


def refuse_mixed_folds(splits: Mapping[str, Split]) -> None:
    """Refuse folds, all or some of them, that were not dealt together: of other photos or groups, or that overlap.

    Raises:
        FoldsError: names the folds.

    """
    (first, reference), *others = splits.items()
    held_out_by = dict.fromkeys(reference.validation, first)
    for name, split in others:
        if split.group_of != reference.group_of:
            odd = {id_ for id_, _ in split.group_of.items() ^ reference.group_of.items()}
            raise FoldsError(
                f"{first} and {name} were split differently: they do not agree on {some(odd)}. The photos have "
                "changed between them; train the folds again"
            )
        if (split.folds, split.seed) != (reference.folds, reference.seed):
            raise FoldsError(
                f"{first} and {name} were split differently: into {reference.folds} folds by seed {reference.seed}, "
                f"and into {split.folds} by seed {split.seed}; train the folds again"
            )
        if both := held_out_by.keys() & set(split.validation):
            raise FoldsError(
                f"{held_out_by[min(both)]} and {name} overlap: both hold out {some(both)}; train the folds again"
            )
        held_out_by |= dict.fromkeys(split.validation, name)


def select_out_of_fold(
    pairs: Sequence[Pair], splits: Mapping[str, Split]
) -> tuple[Selection, dict[str, tuple[Pair, ...]]] | None:
    """Choose the photos that the folds held out, all and by fold; nothing where none of them is among `pairs`."""
    by_fold: dict[str, tuple[Pair, ...]] = {}
    warnings: list[str] = []
    for name, split in splits.items():
        learned = Learned.from_split(split)
        if not any(map(learned.validation.holds, pairs)):
            warnings.append(f"{name}: none of the {len(split.validation)} photos that it held out is in the data.")
            continue
        of_fold = select_pairs(pairs, part="validation", learned=learned)
        by_fold[name] = of_fold.pairs
        warnings += [f"{name}: {warning}" for warning in of_fold.warnings]
    if not by_fold:
        return None
    if unknown := {pair.id for pair in pairs} - _all_ids(splits):
        warnings.append(f"{len(unknown)} photos of the data are in no fold and are left out: {some(unknown)}.")
    chosen = tuple(sorted((pair for share in by_fold.values() for pair in share), key=lambda pair: pair.id))
    remarks = (
        f"Out of fold: each of these {len(chosen)} photos was measured by the network of the fold that held it out, "
        "which was trained on no photo of its group.",
        "Each run chose its best epoch by the photos that it held out, which flatters the figures a little.",
    )
    return Selection(chosen, "out-of-fold", remarks, tuple(warnings)), by_fold


def evaluate_shares(
    shares: Sequence[Share], *, foreground: int | None = None, batch_size: int = 4, progress: Progress | None = None
) -> Evaluation:
    """Measure each share by its own segmenter, see `evaluate`, and put the rows of all together, sorted by id.

    Raises:
        EvaluationError: a share has no photos.

    """
    total = sum(len(share.pairs) for share in shares)
    found: dict[str, Evaluation] = {}
    done = 0
    for share in shares:
        count = _counter(progress, done, total)
        found[share.name] = evaluate(
            share.pairs, share.segmenter, foreground=foreground, batch_size=batch_size, progress=count
        )
        done += len(share.pairs)
    return found[""] if found.keys() == {""} else _together(found)


def _counter(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)


def _together(found: Mapping[str, Evaluation]) -> Evaluation:
    rules: Counter[str] = Counter()
    for one in found.values():
        rules.update(one.rules)
    return Evaluation(
        rows=tuple(sorted((row for one in found.values() for row in one.rows), key=lambda row: row.id)),
        failures=tuple(sorted((item for one in found.values() for item in one.failures), key=lambda item: item.id)),
        seconds=sum(one.seconds for one in found.values()),
        rules=dict(rules.most_common()),
        odd={id_: complaint for one in found.values() for id_, complaint in one.odd.items()},
        fold_of={id_: name for name, one in found.items() for id_ in one.ids},
    )


def _all_ids(splits: Mapping[str, Split]) -> set[str]:
    return {id_ for split in splits.values() for id_ in split.group_of}
