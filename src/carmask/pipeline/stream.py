"""Photos through decoding, the network and encoding side by side, in order and in bounded memory."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import cv2

from carmask.ahead import in_batches, map_ahead
from carmask.errors import CarmaskError, first_line
from carmask.files import NoSpace
from carmask.imaging.decode import UnreadableImage
from carmask.pipeline.jobs import Job
from carmask.pipeline.outcome import Extent, Outcome
from carmask.pipeline.regions import ALL_REGIONS, Regions
from carmask.pipeline.stores import Put
from carmask.pipeline.threads import default_workers, one_opencv_thread
from carmask.result import Result
from carmask.segmenter import Fitted, Raw, Segmenter

Done = TypeVar("Done")


@dataclass(frozen=True)
class _Loaded:
    job: Job
    fitted: Fitted
    seconds: float


@dataclass(frozen=True)
class _Inferred:
    loaded: _Loaded
    raw: Raw
    seconds: float


@dataclass(frozen=True)
class _Stages:
    """What is done with every photo. One that failed passes through those that follow, as what became of it."""

    segmenter: Segmenter
    put: Put
    regions: Regions
    batch_size: int

    def load(self, job: Job) -> _Loaded | Outcome:
        """Decode a photo; in any thread."""

        def work() -> _Loaded:
            started_s = time.perf_counter()
            picture = job.read()
            fitted = self.segmenter.fit(self.segmenter.decode(picture))
            # Drawing may need the photo once more, which is fetched from an address but once.
            return _Loaded(replace(job, picture=picture), fitted, time.perf_counter() - started_s)

        return _try(job, work)

    def infer(self, batch: list[_Loaded | Outcome]) -> Iterator[_Inferred | Outcome]:
        """Run the networks; in the one thread that owns them."""
        readable = [item for item in batch if isinstance(item, _Loaded)]
        started_s = time.perf_counter()
        raws = iter(self.segmenter.infer([item.fitted for item in readable], pad_to=self.batch_size))
        each_s = (time.perf_counter() - started_s) / max(1, len(readable))
        for item in batch:
            yield item if isinstance(item, Outcome) else _Inferred(item, next(raws), item.seconds + each_s)

    def finish(self, item: _Inferred | Outcome) -> Outcome:
        """Bring what was found to the photo's size, and keep it; in any thread."""
        if isinstance(item, Outcome):
            return item
        job, threshold = item.loaded.job, self.segmenter.threshold

        def work() -> Outcome:
            started_s = time.perf_counter()
            probability_HW = self.regions.keep(self.segmenter.restore(item.loaded.fitted, item.raw), threshold)
            return _keep(job, Result(probability_HW, threshold), self.put, item.seconds, started_s)

        return _try(job, work)


def predict(
    jobs: Iterable[Job],
    segmenter: Segmenter,
    put: Put,
    *,
    regions: Regions = ALL_REGIONS,
    batch_size: int = 4,
    workers: int | None = None,
) -> Generator[Outcome, None, None]:
    """Cut out every photo, in order. A few batches are in memory at any time, however many photos there are.

    Batches are always full, so that a photo's result does not depend on the photos beside it.

    Args:
        jobs: The photos.
        segmenter: What to cut them out with; its networks run in the thread that takes the outcomes.
        put: Keeps the result of one photo, or makes its row; is called from several threads.
        regions: Which parts of a mask are kept.
        batch_size: Photos that pass through the network together.
        workers: Threads that decode, and as many that encode; one for each processor if not given.

    Raises:
        NoSpace: nothing more can be written; after any other failure of one photo the next is tried.
        EngineError: the network cannot be run.

    """
    stages = _Stages(segmenter, put, regions, batch_size)
    workers = workers or default_workers()
    with (
        one_opencv_thread(),
        ThreadPoolExecutor(workers, "decode") as decoders,
        ThreadPoolExecutor(workers, "encode") as encoders,
    ):
        loaded = map_ahead(decoders, stages.load, jobs, ahead=workers + 2 * batch_size)
        inferred = (item for batch in in_batches(loaded, batch_size) for item in stages.infer(batch))
        yield from map_ahead(encoders, stages.finish, inferred, ahead=workers + batch_size)


def convert(
    masks: Iterable[tuple[Job, Callable[[], Result]]], put: Put, *, workers: int | None = None
) -> Generator[Outcome, None, None]:
    """Take masks that are there already into a store, in order. Of each there is what reads it. See `predict`."""

    def work_on(mask: tuple[Job, Callable[[], Result]]) -> Outcome:
        job, read = mask
        started_s = time.perf_counter()
        return _try(job, lambda: _keep(job, read(), put, 0.0, started_s))

    workers = workers or default_workers()
    with ThreadPoolExecutor(workers, "convert") as pool:
        yield from map_ahead(pool, work_on, masks, ahead=4 * workers)


def _keep(job: Job, found: Result, put: Put, before_s: float, started_s: float) -> Outcome:
    """Put a result into its place and account for it."""
    extent = Extent.of(found)
    row = put(job, found, extent)
    return Outcome(job, None, row, extent, before_s + time.perf_counter() - started_s)


def _try(job: Job, work: Callable[[], Done]) -> Done | Outcome:
    """Do one photo's work; a failure is this photo's alone, unless nothing more can be written at all."""
    try:
        return work()
    except NoSpace:
        raise
    except UnreadableImage as error:
        # What came in on standard input has a name for us alone.
        name = error.name if isinstance(job.picture, Path) else str(job.photo)
        return Outcome(job, cause=str(UnreadableImage(name, error.cause, error.advice)))
    except CarmaskError as error:
        return Outcome(job, cause=str(error))
    except (MemoryError, cv2.error) as error:
        return Outcome(
            job, cause=f"{job.origin}: is too large to be cut out here ({first_line(error)}); reduce it first"
        )
