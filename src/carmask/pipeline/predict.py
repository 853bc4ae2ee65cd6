"""Photos in, masks out: `carmask predict`."""

import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2

from carmask.errors import CarmaskError, first_line
from carmask.files import NoSpace
from carmask.imaging.decode import Photo, UnreadableImage
from carmask.imaging.masks import ALL_REGIONS, Regions
from carmask.pipeline.jobs import Extent, Job, PhotoOutcome
from carmask.pipeline.sinks import Put
from carmask.result import Result
from carmask.runner import Prediction, default_workers, map_ahead, run_segmenter
from carmask.runtime.engine import EngineError
from carmask.segmenter import Segmenter


def predict(
    jobs: Iterable[Job],
    segmenter: Segmenter,
    put: Put,
    *,
    regions: Regions = ALL_REGIONS,
    batch_size: int = 4,
    workers: int | None = None,
) -> Generator[PhotoOutcome, None, None]:
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

    def load(job: Job) -> tuple[Photo, Job]:
        picture = job.read()
        # Drawing may need the photo once more, which is fetched from an address but once.
        return segmenter.decode(picture), replace(job, picture=picture)

    def keep(found: Prediction[Job, Job]) -> PhotoOutcome:
        started_s = time.perf_counter()
        probability_HW = regions.keep(found.probability_HW, segmenter.threshold)
        return _keep(found.extra, Result(probability_HW, segmenter.threshold), put, found.seconds, started_s)

    return run_segmenter(
        jobs, segmenter, load=load, consume=keep, on_error=_failure, batch_size=batch_size, workers=workers
    )


def convert(
    masks: Iterable[tuple[Job, Callable[[], Result]]], put: Put, *, workers: int | None = None
) -> Generator[PhotoOutcome, None, None]:
    """Take masks that are there already into a store, in order. Of each there is what reads it. See `predict`."""

    def work_on(mask: tuple[Job, Callable[[], Result]]) -> PhotoOutcome:
        job, read = mask
        started_s = time.perf_counter()
        try:
            return _keep(job, read(), put, 0.0, started_s)
        except Exception as error:  # noqa: BLE001 - what is not this mask's is raised again
            return _failure(job, error)

    workers = workers or default_workers()
    with ThreadPoolExecutor(workers, "convert") as pool:
        yield from map_ahead(pool, work_on, masks, ahead=4 * workers)


def _keep(job: Job, found: Result, put: Put, before_s: float, started_s: float) -> PhotoOutcome:
    """Put a result into its place and account for it."""
    extent = Extent.of(found)
    row = put(job, found, extent)
    return PhotoOutcome(job, None, row, extent, before_s + time.perf_counter() - started_s)


def _failure(job: Job, error: Exception) -> PhotoOutcome:
    """The outcome of a photo that failed; what is not this photo's alone is raised again."""
    if isinstance(error, NoSpace | EngineError):
        raise error
    if isinstance(error, UnreadableImage):
        # What came in on standard input has a name for us alone.
        name = error.name if isinstance(job.picture, Path) else str(job.photo)
        return PhotoOutcome(job, cause=str(UnreadableImage(name, error.cause, error.advice)))
    if isinstance(error, CarmaskError):
        return PhotoOutcome(job, cause=str(error))
    if isinstance(error, MemoryError | cv2.error):
        return PhotoOutcome(
            job, cause=f"{job.origin}: is too large to be cut out here ({first_line(error)}); reduce it first"
        )
    raise error
