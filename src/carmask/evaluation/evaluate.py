"""Measure a segmenter on pairs of photo and mask, every photo at its own size.

Photos are decoded and masks compared by a few threads while the network runs; no more than a few batches are in
memory at any time. A photo that cannot be measured is reported and the rest goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from carmask.ahead import in_batches, map_ahead
from carmask.data.pairs import Pair, load_soft_mask
from carmask.errors import CarmaskError
from carmask.evaluation.metrics import BoolArray, measure
from carmask.evaluation.results import Evaluation, Failure, PhotoRow
from carmask.imaging.decode import ImageSource, Photo, UnreadableImage

Progress = Callable[[int, int], None]


class EvaluationError(CarmaskError):
    """There is nothing to measure, or not what was asked for."""


class Segments(Protocol):
    """What evaluation needs of a segmenter; `carmask.segmenter.Segmenter` is the one in use."""

    @property
    def threshold(self) -> float:
        """The least probability, 0 to 1, that counts as object."""

    def decode(self, source: ImageSource) -> Photo:
        """Decode a photo with the channels and at the scale that the network needs."""

    def predict_photos(self, photos: list[Photo]) -> list[NDArray[np.float32]]:
        """Return for each photo its probability_HW, float32 0..1, at the photo's own size."""

    def describe(self) -> dict[str, Any]:
        """Say what the model is, in values that JSON can hold."""


def evaluate(
    pairs: Sequence[Pair],
    segmenter: Segments,
    *,
    foreground: int | None = None,
    batch_size: int = 4,
    workers: int = 2,
    progress: Progress | None = None,
) -> Evaluation:
    """Predict every photo and compare with its mask, at the photo's own size.

    Args:
        pairs: What to measure.
        segmenter: What to measure it with.
        foreground: The stored mask value that is foreground, where the usual rule does not fit; see `decode_mask`.
        batch_size: Photos predicted together.
        workers: Threads that decode photos and compare masks.
        progress: Called with (photos done, photos in all).

    Raises:
        EvaluationError: There are no pairs.

    """
    if not pairs:
        raise EvaluationError("there are no photos to evaluate.")
    started_s = time.perf_counter()
    rows: list[PhotoRow] = []
    failures: list[Failure] = []
    compared: list[Future[PhotoRow]] = []
    done = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="evaluate") as pool:
        loaded = map_ahead(pool, _loader(segmenter, foreground), pairs, ahead=batch_size)
        for batch in in_batches(loaded, batch_size):
            readable = [item for item in batch if isinstance(item, _Labelled)]
            predicted = list(_predict(readable, segmenter))
            # The previous batch was compared meanwhile; only now is it waited for.
            rows += [future.result() for future in compared]
            failures += [item for item in [*batch, *predicted] if isinstance(item, Failure)]
            compared = [
                pool.submit(_compare, item, segmenter.threshold) for item in predicted if isinstance(item, _Both)
            ]
            done += len(batch)
            if progress is not None:
                progress(done, len(pairs))
        rows += [future.result() for future in compared]
    return Evaluation(tuple(rows), tuple(failures), time.perf_counter() - started_s)


def load_truth(pair: Pair, size_HW: tuple[int, int], foreground: int | None) -> BoolArray:
    """Read a pair's true mask as bool, (height, width), and refuse one that is not of the photo's size.

    Raises:
        CarmaskError: The mask cannot be read or has another size.

    """
    truth_HW = load_soft_mask(pair, foreground=foreground).mask_HW
    if truth_HW.shape != size_HW:
        (height, width), (photo_height, photo_width) = truth_HW.shape, size_HW
        raise EvaluationError(
            f"the mask is {height} x {width} px, its photo {photo_height} x {photo_width} px; "
            "replace one of them, or take both out of the folder"
        )
    return truth_HW


def failure_of(pair: Pair, error: CarmaskError, file: str) -> Failure:
    """Say which file is to blame, without its folders; `file` unless the error names one."""
    cause = str(error)
    if isinstance(error, UnreadableImage):
        file, cause = Path(error.name).name, f"{error.cause}; {error.advice}"
    return Failure(pair.id, pair.group, pair.view, file, cause)


@dataclass(frozen=True)
class _Labelled:
    """A decoded photo with its true mask (bool)."""

    pair: Pair
    photo: Photo
    truth_HW: BoolArray


@dataclass(frozen=True)
class _Both:
    """A photo's true mask (bool) and its prediction (float32 0..1)."""

    pair: Pair
    truth_HW: BoolArray
    probability_HW: NDArray[np.float32]


def _loader(segmenter: Segments, foreground: int | None) -> Callable[[Pair], _Labelled | Failure]:
    def load(pair: Pair) -> _Labelled | Failure:
        try:
            photo = segmenter.decode(pair.image)
        except CarmaskError as error:
            return failure_of(pair, error, pair.image.name)
        try:
            return _Labelled(pair, photo, load_truth(pair, photo.size_HW, foreground))
        except CarmaskError as error:
            return failure_of(pair, error, pair.mask.name if isinstance(pair.mask, Path) else pair.image.name)

    return load


def _predict(batch: list[_Labelled], segmenter: Segments) -> Iterator[_Both | Failure]:
    """Predict a batch; where the network refuses it, each photo alone, to name the one that is at fault."""
    if not batch:
        return
    try:
        probabilities = segmenter.predict_photos([item.photo for item in batch])
    except CarmaskError as error:
        if len(batch) == 1:
            yield failure_of(batch[0].pair, error, batch[0].pair.image.name)
            return
        for item in batch:
            yield from _predict([item], segmenter)
        return
    for item, probability_HW in zip(batch, probabilities, strict=True):
        yield _Both(item.pair, item.truth_HW, probability_HW)


def _compare(item: _Both, threshold: float) -> PhotoRow:
    height, width = item.truth_HW.shape
    metrics = measure(item.truth_HW, item.probability_HW >= threshold)
    return PhotoRow(item.pair.id, item.pair.group, item.pair.view, (height, width), metrics)
