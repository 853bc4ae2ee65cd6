"""Frames in, composited frames out, in order: every stage in threads of its own, a few frames between them."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count, islice, takewhile
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from carmask.imaging.decode import Photo
from carmask.pipeline.regions import ALL_REGIONS, Regions
from carmask.pipeline.video.smooth import Smoother
from carmask.runner import in_batches, map_ahead, one_opencv_thread
from carmask.segmenter import Fitted, Raw, Segmenter

Source = TypeVar("Source")
Made = TypeVar("Made")

_WORKERS = 2


@dataclass(frozen=True)
class _Shot(Generic[Source]):
    source: Source
    image_HWC: NDArray[np.uint8]
    fitted: Fitted


@dataclass(frozen=True)
class Finished(Generic[Source, Made]):
    """A frame as it came, what was made of it, and whether a vehicle was found in it."""

    source: Source
    made: Made
    is_found: bool


def finish_frames(
    sources: Iterator[Source],
    segmenter: Segmenter,
    to_image: Callable[[Source], NDArray[np.uint8]],
    make: Callable[[NDArray[np.uint8], NDArray[np.float32]], Made],
    *,
    regions: Regions = ALL_REGIONS,
    smooth: bool = False,
    batch_size: int = 1,
    ahead: int = 4,
) -> Generator[Finished[Source, Made]]:
    """Cut the vehicle out of frame after frame. The thread that iterates runs the networks, and so owns them.

    Args:
        sources: Frames in the order in which they are shown; taken in a thread of its own.
        segmenter: What finds the vehicle.
        to_image: Makes upright uint8 RGB pixels (height, width, 3) of a frame; in any thread.
        make: Makes what is wanted of those pixels and the probability (float32 0..1, height x width); in any thread.
        regions: Which parts of a mask are kept.
        smooth: Whether to smooth the probability over time.
        batch_size: Frames that pass through the networks together.
        ahead: Frames that may wait behind each stage.

    """

    def fit(source: Source) -> _Shot[Source]:
        image_HWC = to_image(source)
        size_HW = (image_HWC.shape[0], image_HWC.shape[1])
        return _Shot(source, image_HWC, segmenter.fit(Photo(image_HWC, size_HW)))

    def finish(found: tuple[_Shot[Source], Raw]) -> Finished[Source, Made]:
        shot, raw = found
        probability_HW = regions.keep(segmenter.restore(shot.fitted, raw), segmenter.threshold)
        is_found = bool(probability_HW.max() >= segmenter.threshold)
        return Finished(shot.source, make(shot.image_HWC, probability_HW), is_found)

    with ExitStack() as stack:
        stack.enter_context(one_opencv_thread())
        reading, fitting, smoothing, making = (
            stack.enter_context(ThreadPoolExecutor(threads)) for threads in (1, _WORKERS, 1, _WORKERS)
        )
        shots = map_ahead(fitting, fit, _in_thread(reading, sources, ahead), ahead)
        found = _infer(segmenter, shots, batch_size)
        if smooth:
            smoother = Smoother()
            found = map_ahead(smoothing, lambda one: (one[0], smoother(one[0].fitted, one[1])), found, ahead)
        yield from map_ahead(making, finish, found, ahead)


def _infer(
    segmenter: Segmenter, shots: Iterator[_Shot[Source]], batch_size: int
) -> Iterator[tuple[_Shot[Source], Raw]]:
    for batch in in_batches(shots, batch_size):
        raws = segmenter.infer([shot.fitted for shot in batch], pad_to=batch_size)
        yield from zip(batch, raws, strict=True)


def _in_thread(pool: ThreadPoolExecutor, sources: Iterator[Source], ahead: int) -> Iterator[Source]:
    """The items of an iterator that works in a pool of one thread, a few ahead."""
    slots = map_ahead(pool, lambda _: list(islice(sources, 1)), count(), ahead)
    return (source for slot in takewhile(bool, slots) for source in slot)
