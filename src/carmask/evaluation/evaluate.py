"""Measure a segmenter on photos with masks, every photo at its own size.

A photo that cannot be measured is reported, and the rest goes on. Memory is bounded; see `carmask.runner`.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from carmask.data.own_split import find_own_split
from carmask.data.pairs import Dataset, Pair, find_pairs, load_soft_mask
from carmask.data.split import Split
from carmask.data.turned import TURNED, fits_turned
from carmask.errors import CarmaskError
from carmask.evaluation.folds import read_folds, select_out_of_fold
from carmask.evaluation.metrics import empty_dice, measure
from carmask.evaluation.results import Evaluation, EvaluationError, EvaluationFailure, PhotoRow
from carmask.evaluation.selection import Part, Selection, TrainingSplit, find_training_split, select_pairs
from carmask.imaging.decode import MaskReading, Photo, UnreadableImage
from carmask.imaging.geometry import size_text
from carmask.labels.shapes import PhotoLabels
from carmask.models.series_file import fold_folders
from carmask.progress import Progress, counted
from carmask.runner import Prediction, run_segmenter
from carmask.runtime.locate import folder_of_folds
from carmask.segmenter import Model, Segmenter


class MaskSizeError(EvaluationError):
    """A mask has another size than its photo."""


def evaluate(
    data: str | Path,
    model: Segmenter | Model | None = None,
    *,
    part: Part | None = None,
    split: Path | None = None,
    group_pattern: str | None = None,
    foreground: int | None = None,
    ignore: int | None = None,
    empty: bool = False,
    labels: str | Sequence[str] = (),
    ignore_labels: str | Sequence[str] = (),
    batch_size: int = 4,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model on a folder of photos and masks: `evaluate("cars", "fast").summary["dice"].mean`.

    By default it measures the photos that the model's training held out, if these are known, and otherwise all.
    `Evaluation.warnings` says if the model was trained on some of them.

    Args:
        data: Folder in Carvana's layout, or with images/ and masks/; photos without a mask are left out, except those
            in no_vehicle/.
        model: A segmenter, or what `Segmenter.load` takes: the name of packaged weights, an `.onnx` file, a run's
            folder. With a folder of folds, each photo is measured with the network that was not trained on its group.
        part: Which side of the split, or all photos.
        split: A split.json to take the part from, instead of the model's own.
        group_pattern: Regular expression that finds a photo's group in its id.
        foreground: The stored mask value that is foreground; see `decode_mask`.
        ignore: The stored mask value of unknown pixels, which are not measured; see `decode_mask`.
        empty: `data` holds only photos without a vehicle, and no masks.
        labels: As for `find_pairs`.
        ignore_labels: As for `find_pairs`.
        batch_size: Number of photos in a batch.
        progress: Called with (photos done, photos in all).

    Raises:
        CarmaskError: the data, the model or the part cannot be found or read.
    """
    dataset = find_pairs(
        data,
        group_pattern=group_pattern,
        foreground=foreground,
        ignore=ignore,
        empty=empty,
        labels=labels,
        ignore_labels=ignore_labels,
    )
    segmenter = model if isinstance(model, Segmenter) else Segmenter.load(model)
    folds = None if isinstance(model, Segmenter) else folder_of_folds(model)
    selection = select(dataset, segmenter, folds=folds, part=part, split=split)
    return evaluate_selection(selection, segmenter, batch_size=batch_size, progress=progress)


def select(
    dataset: Dataset,
    segmenter: Segmenter,
    *,
    folds: Path | None = None,
    part: Part | None = None,
    split: Path | None = None,
) -> Selection:
    """Choose the photos to measure; see `evaluate`. `folds`: the folder of folds that `segmenter` was loaded from.

    Raises:
        CarmaskError: the part is not known, none of its photos is in the data set, or a split cannot be read.
    """
    if folds is not None and part in (None, "validation") and split is None:
        out_of_fold = select_out_of_fold(dataset, read_folds(fold_folders(folds)), folds)
        if out_of_fold is not None:
            return out_of_fold
    trained_on = find_training_split([(member.place, member.card) for member in segmenter.networks], dataset)
    given = Split.load(split) if split else None
    sides_known = (trained_on.train, trained_on.validation) if trained_on else ()
    if given is None and part is not None and not any(pair in side for side in sides_known for pair in dataset.pairs):
        given = find_own_split(dataset)
    sides = TrainingSplit.from_split(given).within(dataset) if given else None
    return select_pairs(dataset.pairs, part=part, split=sides, trained_on=trained_on)


def evaluate_selection(
    selection: Selection,
    segmenter: Segmenter,
    *,
    batch_size: int = 4,
    progress: Progress | None = None,
) -> Evaluation:
    """Predict the chosen photos and compare each with its mask, at the photo's own size; see `evaluate`.

    Raises:
        EvaluationError: there are no photos.
    """
    if not selection.pairs:
        raise EvaluationError("there are no photos to evaluate")
    started_s = time.perf_counter()
    rows: list[PhotoRow] = []
    failures: list[EvaluationFailure] = []
    notes_of: dict[str, _MaskNotes] = {}
    assigned = assign_segmenters(selection, segmenter)
    measured = chain.from_iterable(_measure(pairs, one, batch_size) for one, pairs in assigned)
    for found in counted(measured, progress, len(selection.pairs)):
        if isinstance(found, EvaluationFailure):
            failures.append(found)
        else:
            row, notes = found
            rows.append(row)
            notes_of[row.id] = notes
    if selection.folds:
        rows.sort(key=lambda row: row.id)
        failures.sort(key=lambda failure: failure.id)
    in_order = {pair.id: notes_of[pair.id] for pair in selection.pairs if pair.id in notes_of}
    return Evaluation(
        rows=tuple(rows),
        failures=tuple(failures),
        seconds=time.perf_counter() - started_s,
        rules=dict(Counter(notes.rule for notes in in_order.values()).most_common()),
        odd={id_: notes.odd for id_, notes in in_order.items() if notes.odd},
        inverted={id_: notes.inverted for id_, notes in in_order.items() if notes.inverted is not None},
        part=selection.part,
        remarks=selection.remarks,
        warnings=selection.warnings,
        fold_of=selection.fold_of,
    )


def assign_segmenters(selection: Selection, segmenter: Segmenter) -> list[tuple[Segmenter, list[Pair]]]:
    """Pair the segmenter with all photos; out of fold, each of its networks with the photos of its fold."""
    if not selection.folds:
        return [(segmenter, list(selection.pairs))]
    return [
        (one, [pair for pair in selection.pairs if selection.fold_of[pair.id] == fold])
        for fold, one in zip(selection.folds, segmenter.each(), strict=True)
    ]


class _MaskNotes(NamedTuple):
    """How a true mask was read; see `MaskReading`."""

    rule: str
    odd: str | None
    inverted: int | None


def _measure(
    pairs: Sequence[Pair], segmenter: Segmenter, batch_size: int
) -> Iterator[tuple[PhotoRow, _MaskNotes] | EvaluationFailure]:
    """Measure each pair, in order."""

    def load(pair: Pair) -> tuple[Photo, MaskReading]:
        photo = segmenter.decode(pair.image)
        truth = load_truth(pair, photo.size_HW)
        return photo, replace(truth, odd=TURNED) if fits_turned(photo, truth.soft_HW) else truth

    def compare(predicted: Prediction[Pair, MaskReading]) -> tuple[PhotoRow, _MaskNotes] | EvaluationFailure:
        pair, truth = predicted.item, predicted.extra
        height, width = truth.soft_HW.shape
        found = segmenter.result(predicted.probability_HW)
        metrics = measure(truth.mask_HW, found.mask, truth.known_HW)
        if metrics.truth_area == 0:
            metrics = replace(metrics, dice=empty_dice(metrics.predicted_area))
        row = PhotoRow(pair.id, pair.group, pair.view, (height, width), metrics, found.expected_dice)
        return row, _MaskNotes(truth.rule, truth.odd, truth.inverted)

    def fail(pair: Pair, error: Exception) -> EvaluationFailure:
        if isinstance(error, CarmaskError):
            return make_failure(pair, error)
        raise error

    return run_segmenter(pairs, segmenter, load=load, consume=compare, on_error=fail, batch_size=batch_size)


def load_truth(pair: Pair, size_HW: tuple[int, int]) -> MaskReading:
    """Read a pair's true mask, which must have its photo's size, (height, width).

    Raises:
        MaskSizeError: it has another size.
        CarmaskError: it cannot be read.
    """
    reading = load_soft_mask(pair, photo_HW=size_HW)
    if reading.soft_HW.shape != size_HW:
        sizes = f"the mask is {size_text(reading.soft_HW.shape)}, its photo {size_text(size_HW)}"
        raise MaskSizeError(f"{sizes}; replace one of them, or take both out of the folder")
    return reading


def make_failure(pair: Pair, error: CarmaskError) -> EvaluationFailure:
    """Name the file that caused the error, without its folders, and the cause."""
    file, cause = pair.image.name, str(error)
    if isinstance(error, UnreadableImage):
        file, cause = Path(error.name).name, f"{error.cause}; {error.advice}"
    elif isinstance(error, MaskSizeError) and isinstance(pair.mask, Path):
        file = pair.mask.name
    elif isinstance(pair.mask, PhotoLabels):
        cause = cause.replace(str(pair.mask.file), pair.mask.file.name)
    return EvaluationFailure(pair.id, pair.group, pair.view, file, cause)
