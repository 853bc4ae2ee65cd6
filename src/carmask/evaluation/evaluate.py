"""Measure a segmenter on pairs of photo and mask, every photo at its own size.

Photos are decoded and masks compared by a thread for each CPU while the network runs; no more than a few batches, or a
photo for each thread, are in memory at any time. A photo that cannot be measured is reported and the rest goes on.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from carmask.data.pairs import Pair, load_soft_mask
from carmask.errors import CarmaskError
from carmask.evaluation.metrics import BoolArray, measure
from carmask.evaluation.results import Evaluation, Failure, PhotoRow
from carmask.imaging.decode import ImageSource, MaskReading, Photo, UnreadableImage
from carmask.limits import usable_cpus
from carmask.progress import Progress
from carmask.runner import in_batches, map_ahead


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
    progress: Progress | None = None,
) -> Evaluation:
    """Predict every photo and compare with its mask, at the photo's own size.

    Args:
        pairs: What to measure.
        segmenter: What to measure it with.
        foreground: The stored mask value that is foreground, where the usual rule does not fit; see `decode_mask`.
        batch_size: Photos predicted together.
        progress: Called with (photos done, photos in all).

    Raises:
        EvaluationError: There are no pairs.

    """
    if not pairs:
        raise EvaluationError("there are no photos to evaluate")
    started_s = time.perf_counter()
    rows: list[PhotoRow] = []
    failures: list[Failure] = []
    compared: list[Future[PhotoRow]] = []
    rules: Counter[str] = Counter()
    odd: dict[str, str] = {}
    done = 0
    workers = usable_cpus()
    with ThreadPoolExecutor(workers, thread_name_prefix="evaluate") as pool:
        loaded = map_ahead(pool, _loader(segmenter, foreground), pairs, ahead=max(batch_size, workers))
        for batch in in_batches(loaded, batch_size):
            readable = [item for item in batch if isinstance(item, _Labeled)]
            rules.update(item.rule for item in readable)
            odd |= {item.pair.id: item.odd for item in readable if item.odd}
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
    seconds = time.perf_counter() - started_s
    return Evaluation(tuple(rows), tuple(failures), seconds, dict(rules.most_common()), odd)


def load_truth(pair: Pair, size_HW: tuple[int, int], foreground: int | None) -> MaskReading:
    """Read a pair's true mask, and refuse one that is not of the photo's size, (height, width).

    Raises:
        CarmaskError: The mask cannot be read or has another size.

    """
    reading = load_soft_mask(pair, foreground=foreground)
    if reading.soft_HW.shape != size_HW:
        (height, width), (photo_height, photo_width) = reading.soft_HW.shape, size_HW
        raise EvaluationError(
            f"the mask is {height} x {width} px, its photo {photo_height} x {photo_width} px; "
            "replace one of them, or take both out of the folder"
        )
    return reading


def failure_of(pair: Pair, error: CarmaskError, file: str) -> Failure:
    """Say which file is to blame, without its folders; `file` unless the error names one."""
    cause = str(error)
    if isinstance(error, UnreadableImage):
        file, cause = Path(error.name).name, f"{error.cause}; {error.advice}"
    return Failure(pair.id, pair.group, pair.view, file, cause)


@dataclass(frozen=True)
class _Labeled:
    """A decoded photo with its true mask (bool), and how that was read."""

    pair: Pair
    photo: Photo
    truth_HW: BoolArray
    rule: str
    odd: str | None


@dataclass(frozen=True)
class _Both:
    """A photo's true mask (bool) and its prediction (float32 0..1)."""

    pair: Pair
    truth_HW: BoolArray
    probability_HW: NDArray[np.float32]


def _loader(segmenter: Segments, foreground: int | None) -> Callable[[Pair], _Labeled | Failure]:
    def load(pair: Pair) -> _Labeled | Failure:
        try:
            photo = segmenter.decode(pair.image)
        except CarmaskError as error:
            return failure_of(pair, error, pair.image.name)
        try:
            truth = load_truth(pair, photo.size_HW, foreground)
            return _Labeled(pair, photo, truth.mask_HW, truth.rule, truth.odd)
        except CarmaskError as error:
            return failure_of(pair, error, pair.mask.name if isinstance(pair.mask, Path) else pair.image.name)

    return load


def _predict(batch: list[_Labeled], segmenter: Segments) -> Iterator[_Both | Failure]:
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
