"""Photos in, masks out: what `carmask predict` does."""

import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2

from carmask.errors import CarmaskError, first_line
from carmask.files import NoSpace
from carmask.imaging.decode import Photo, UnreadableImage
from carmask.imaging.masks import ALL_REGIONS, Regions
from carmask.pipeline.groups import measure_box, with_one_scale
from carmask.pipeline.jobs import Job, PhotoOutcome
from carmask.pipeline.origins import describe_files
from carmask.pipeline.outputs import Plan
from carmask.pipeline.provenance import provenance_of
from carmask.pipeline.sinks import Put
from carmask.pipeline.summary import Follow, RunSummary, collect_outcomes
from carmask.result import Result
from carmask.runner import Prediction, run_segmenter
from carmask.runtime.engine import EngineError
from carmask.segmenter import Segmenter

# Results that may wait for their upload: a store takes a few hundred a second, each in a fifth of a second.
_MAX_UPLOADING = 64


def predict_photos(
    plan: Plan,
    segmenter: Segmenter,
    *,
    regions: Regions = ALL_REGIONS,
    batch_size: int = 4,
    overwrite: bool = False,
    follow: Follow | None = None,
) -> RunSummary:
    """Predict every photo of a plan and write its result; a photo that fails is listed, and the others are done.

    `regions` says which parts of a mask are kept. With `overwrite` all results are made again, and other files of the
    same names are replaced.

    Raises:
        CarmaskError: the destination holds other results or cannot be written, the disk is full, or the networks
            cannot run.
    """
    provenance = provenance_of(segmenter, regions)
    plan = with_one_scale(
        plan,
        provenance,
        lambda jobs: predict_jobs(jobs, segmenter, measure_box, regions=regions, batch_size=batch_size),
        overwrite=overwrite,
    )
    with plan.open_sink(provenance, overwrite=overwrite) as sink:
        outcomes = predict_jobs(
            sink.jobs, segmenter, sink.put, regions=regions, batch_size=1 if plan.of_one else batch_size
        )
        return collect_outcomes(outcomes, plan, sink, follow)


def predict_jobs(
    jobs: Iterable[Job],
    segmenter: Segmenter,
    put: Put,
    *,
    regions: Regions = ALL_REGIONS,
    batch_size: int = 4,
    workers: int | None = None,
) -> Generator[PhotoOutcome, None, None]:
    """Predict jobs one after the other, and put their results; yields the outcome of each, in order.

    `put` is called from several threads; the networks run in the thread that iterates. See `run_segmenter` for
    `batch_size` and `workers`.

    Raises:
        NoSpace: the disk is full. After any other error of one photo the next one is tried.
        EngineError: the networks cannot run.
    """

    def load(job: Job) -> tuple[Photo, Job]:
        made_from = describe_files(job)
        picture = job.read()
        photo = segmenter.decode(picture)
        # With the bytes that were read: drawing decodes the photo again, and a URL is downloaded only once.
        return photo, replace(job, picture=picture, made_from=made_from, remark=photo.remark)

    def consume(found: Prediction[Job, Job]) -> PhotoOutcome:
        started_s = time.perf_counter()
        probability_HW = regions.keep(found.probability_HW, segmenter.threshold)
        result = segmenter.result(probability_HW)
        outcome = put_result(found.extra, result, put)
        return replace(outcome, score=result.score, seconds=found.seconds + time.perf_counter() - started_s)

    return settle(
        run_segmenter(
            jobs, segmenter, load=load, consume=consume, on_error=failed, batch_size=batch_size, workers=workers
        )
    )


def settle(outcomes: Generator[PhotoOutcome, None, None]) -> Generator[PhotoOutcome, None, None]:
    """Wait for results that are being uploaded, while more are made; yields the outcomes in order."""
    waiting: deque[PhotoOutcome] = deque()
    with closing(outcomes):
        for outcome in outcomes:
            waiting.append(outcome)
            while waiting and (len(waiting) > _MAX_UPLOADING or _is_settled(waiting[0])):
                yield _settled(waiting.popleft())
    yield from map(_settled, waiting)


def _is_settled(outcome: PhotoOutcome) -> bool:
    return not isinstance(outcome.row, Future) or outcome.row.done()


def _settled(outcome: PhotoOutcome) -> PhotoOutcome:
    if not isinstance(outcome.row, Future):
        return outcome
    try:
        return replace(outcome, row=outcome.row.result())
    except CarmaskError as error:
        return failed(outcome.job, error)


def put_result(job: Job, found: Result, put: Put) -> PhotoOutcome:
    """Put the result of one photo, and return its outcome, without the seconds."""
    row = put(job, found)
    coverage = round(found.coverage, 6)
    return PhotoOutcome(job, row=row, box_px=found.box_px, coverage=coverage, expected_dice=found.expected_dice)


def failed(job: Job, error: Exception) -> PhotoOutcome:
    """Return the outcome of a photo that failed; an error that every photo would have is raised again."""
    if isinstance(error, NoSpace | EngineError):
        raise error
    if isinstance(error, UnreadableImage):
        # A photo from standard input has no name for the decoder.
        name = error.name if isinstance(job.picture, Path) else str(job.photo)
        return PhotoOutcome(job, str(UnreadableImage(name, error.cause, error.advice)))
    if isinstance(error, CarmaskError):
        return PhotoOutcome(job, str(error))
    if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
        return PhotoOutcome(job, f"{job.origin}: OpenCV cannot process it ({first_line(error)})")
    if isinstance(error, MemoryError | cv2.error):
        return PhotoOutcome(
            job, f"{job.origin}: needs more memory than there is ({first_line(error)}); make it smaller"
        )
    raise error
