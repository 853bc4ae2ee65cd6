"""Measure a segmenter on photos with masks, every photo at its own size.

A photo that cannot be measured is reported, and the rest goes on. Memory is bounded; see `carmask.runner`.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from carmask.data.pairs import Pair, find_pairs, load_soft_mask
from carmask.data.split import Split
from carmask.errors import CarmaskError
from carmask.evaluation.metrics import BoolArray, measure
from carmask.evaluation.results import Evaluation, EvaluationError, EvaluationFailure, PhotoRow
from carmask.evaluation.selection import (
    Part,
    Selection,
    find_training_split,
    read_folds,
    select_out_of_fold,
    select_pairs,
)
from carmask.imaging.decode import MaskReading, Photo, UnreadableImage
from carmask.models.series_file import fold_folders
from carmask.progress import Progress
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
    batch_size: int = 4,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model on a folder of photos and masks, every photo at its own size.

    `evaluate("carvana", "runs/small").summary["dice"].mean`. Photos without a usable mask are left out. By default the
    photos that the model held out from its training are measured, where that is known, and otherwise all;
    `Evaluation.warnings` says if the model was trained on some of them.

    Args:
        data: Folder in Carvana's layout, or with images/ and masks/; see `find_pairs`.
        model: A segmenter, or what `Segmenter.load` takes: the name of packaged weights, an `.onnx` file, a run's
            folder. Of a folder of folds, each photo is measured by the network that was not trained on its group.
        part: Which side of the split, or "all" photos.
        split: A split.json to take the part from, instead of the model's own.
        group_pattern: Regular expression that finds a photo's group in its id.
        foreground: The stored mask value that is foreground, where 0 and one other value is not the rule.
        batch_size: Photos predicted together.
        progress: Called with (photos done, photos in all).

    Raises:
        CarmaskError: The data, the model or the part cannot be found.

    """
    dataset = find_pairs(data, group_pattern=group_pattern)
    segmenter = model if isinstance(model, Segmenter) else Segmenter.load(model)
    folds = None if isinstance(model, Segmenter) else folder_of_folds(model)
    selection = select(dataset.pairs, segmenter, folds=folds, part=part, split=split)
    return evaluate_selection(selection, segmenter, foreground=foreground, batch_size=batch_size, progress=progress)


def select(
    pairs: Sequence[Pair],
    segmenter: Segmenter,
    *,
    folds: Path | None = None,
    part: Part | None = None,
    split: Path | None = None,
) -> Selection:
    """Choose the photos to measure; see `evaluate`.

    Args:
        pairs: The photos of the data set.
        segmenter: What measures them.
        folds: The folder of folds that the segmenter was loaded from, if it was.
        part: Which side of the split, or all photos.
        split: A split.json to take the part from, instead of the model's own.

    Raises:
        CarmaskError: The part is not known, or none of its photos is among `pairs`; or a split cannot be read.

    """
    if folds is not None and part in (None, "validation") and split is None:
        out_of_fold = select_out_of_fold(pairs, read_folds(fold_folders(folds)))
        if out_of_fold is not None:
            return out_of_fold
    return select_pairs(
        pairs,
        part=part,
        split=Split.load(split) if split else None,
        trained_on=find_training_split([(member.place, member.card) for member in segmenter.members]),
    )


def evaluate_selection(
    selection: Selection,
    segmenter: Segmenter,
    *,
    foreground: int | None = None,
    batch_size: int = 4,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure the chosen photos, out of fold each by its own fold's network; see `evaluate_pairs`."""
    if not selection.folds:
        evaluation = evaluate_pairs(
            selection.pairs, segmenter, foreground=foreground, batch_size=batch_size, progress=progress
        )
    else:
        segmenter_of = segmenters_by_photo(selection, segmenter)
        of_folds: list[Evaluation] = []
        for fold in selection.folds:
            pairs = [pair for pair in selection.pairs if selection.fold_of[pair.id] == fold]
            if pairs:
                done = sum(len(one.rows) + len(one.failures) for one in of_folds)
                of_folds.append(
                    evaluate_pairs(
                        pairs,
                        segmenter_of[pairs[0].id],
                        foreground=foreground,
                        batch_size=batch_size,
                        progress=_offset(progress, done, len(selection.pairs)),
                    )
                )
        evaluation = _merge(of_folds)
    return replace(
        evaluation,
        part=selection.part,
        remarks=selection.remarks,
        warnings=selection.warnings,
        fold_of=selection.fold_of,
    )


def segmenters_by_photo(selection: Selection, segmenter: Segmenter) -> dict[str, Segmenter]:
    """Return what measures each photo, by its id: the segmenter, or out of fold its network of the photo's fold."""
    if not selection.folds:
        return {pair.id: segmenter for pair in selection.pairs}
    of_fold = dict(zip(selection.folds, segmenter.each(), strict=True))
    return {id_: of_fold[fold] for id_, fold in selection.fold_of.items()}


def _offset(progress: Progress | None, done_before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(done_before + done, total)


def _merge(of_folds: Sequence[Evaluation]) -> Evaluation:
    """Put the rows of all folds together, sorted by id."""
    rules: Counter[str] = Counter()
    for one in of_folds:
        rules.update(one.rules)
    return Evaluation(
        rows=tuple(sorted((row for one in of_folds for row in one.rows), key=lambda row: row.id)),
        failures=tuple(sorted((item for one in of_folds for item in one.failures), key=lambda item: item.id)),
        seconds=sum(one.seconds for one in of_folds),
        rules=dict(rules.most_common()),
        odd={id_: complaint for one in of_folds for id_, complaint in one.odd.items()},
    )


def evaluate_pairs(
    pairs: Sequence[Pair],
    segmenter: Segmenter,
    *,
    foreground: int | None = None,
    batch_size: int = 4,
    progress: Progress | None = None,
) -> Evaluation:
    """Predict every photo and compare with its mask, at the photo's own size.

    Args:
        pairs: What to measure.
        segmenter: What to measure it with.
        foreground: The stored mask value that is foreground, where 0 and one other value is not the rule; see
            `decode_mask`.
        batch_size: Photos predicted together.
        progress: Called with (photos done, photos in all).

    Raises:
        EvaluationError: There are no pairs.

    """
    if not pairs:
        raise EvaluationError("there are no photos to evaluate")
    started_s = time.perf_counter()
    readings: dict[str, tuple[str, str | None]] = {}

    def load(pair: Pair) -> tuple[Photo, BoolArray]:
        photo = segmenter.decode(pair.image)
        truth = load_truth(pair, photo.size_HW, foreground)
        readings[pair.id] = truth.rule, truth.odd
        return photo, truth.mask_HW

    def compare(predicted: Prediction[Pair, BoolArray]) -> PhotoRow | EvaluationFailure:
        pair, truth_HW = predicted.item, predicted.extra
        height, width = truth_HW.shape
        metrics = measure(truth_HW, predicted.probability_HW >= segmenter.threshold)
        return PhotoRow(pair.id, pair.group, pair.view, (height, width), metrics)

    rows: list[PhotoRow] = []
    failures: list[EvaluationFailure] = []
    measured = run_segmenter(pairs, segmenter, load=load, consume=compare, on_error=_failure, batch_size=batch_size)
    for done, one in enumerate(measured, start=1):
        if isinstance(one, PhotoRow):
            rows.append(one)
        else:
            failures.append(one)
        if progress is not None:
            progress(done, len(pairs))
    seconds = time.perf_counter() - started_s
    in_order = {pair.id: readings[pair.id] for pair in pairs if pair.id in readings}
    return Evaluation(
        tuple(rows),
        tuple(failures),
        seconds,
        rules=dict(Counter(rule for rule, _ in in_order.values()).most_common()),
        odd={id_: odd for id_, (_, odd) in in_order.items() if odd},
    )


def load_truth(pair: Pair, size_HW: tuple[int, int], foreground: int | None) -> MaskReading:
    """Read a pair's true mask, which must have its photo's size, (height, width).

    Raises:
        MaskSizeError: It has another size.
        CarmaskError: It cannot be read.

    """
    reading = load_soft_mask(pair, foreground=foreground)
    if reading.soft_HW.shape != size_HW:
        (height, width), (photo_height, photo_width) = reading.soft_HW.shape, size_HW
        raise MaskSizeError(
            f"the mask is {height} x {width} px, its photo {photo_height} x {photo_width} px; "
            "replace one of them, or take both out of the folder"
        )
    return reading


def make_failure(pair: Pair, error: CarmaskError) -> EvaluationFailure:
    """Name the file that caused the error, without its folders, and the cause."""
    file, cause = pair.image.name, str(error)
    if isinstance(error, UnreadableImage):
        file, cause = Path(error.name).name, f"{error.cause}; {error.advice}"
    elif isinstance(error, MaskSizeError) and isinstance(pair.mask, Path):
        file = pair.mask.name
    return EvaluationFailure(pair.id, pair.group, pair.view, file, cause)


def _failure(pair: Pair, error: Exception) -> PhotoRow | EvaluationFailure:
    if not isinstance(error, CarmaskError):
        raise error
    return make_failure(pair, error)
