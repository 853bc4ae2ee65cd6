"""The review of a run: its most doubtful photos are predicted once more and drawn on a page.

Predicting them again makes the review independent of what kind of results a run wrote, of how often it was stopped, and
of which machines of a cluster did it. It takes as large a share of the run's time as the share of photos in the review.
"""

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from carmask.imaging.masks import ALL_REGIONS, Regions
from carmask.pipeline.jobs import Job
from carmask.pipeline.outputs import Plan
from carmask.pipeline.predict import predict_jobs
from carmask.progress import Progress, counted
from carmask.result import Result
from carmask.review.choice import ReviewChoice
from carmask.review.page import ReviewItem, draw_item, write_page
from carmask.segmenter import Segmenter

Drawn = TypeVar("Drawn")


@dataclass
class Review:
    """A page that was written.

    path: None if there is no photo to review. shown: photos on it. photos: all that have a result. problems: why photos
    could not be read again; they are left out.
    """

    path: Path | None = None
    shown: int = 0
    photos: int = 0
    problems: list[str] = field(default_factory=list)


def write_review(
    plan: Plan,
    segmenter: Segmenter,
    choice: ReviewChoice,
    scores: Sequence[float],
    *,
    regions: Regions = ALL_REGIONS,
    batch_size: int = 4,
    progress: Progress | None = None,
) -> Review:
    """Write the page with the most doubtful photos of a run beside its results.

    Args:
        plan: The run, whose results are written.
        segmenter: Its networks.
        choice: How many photos.
        scores: `RunSummary.scores`.
        regions: Which parts of a mask are kept, as in the run.
        batch_size: Photos that pass through the network together.
        progress: Called after each photo.

    Raises:
        UnwritableFile: the page cannot be written, or another file has its name.
        EngineError: the networks cannot run.
    """
    path = plan.list_file("review")
    assert isinstance(path, Path) and isinstance(plan.destination, Path), "the caller refuses others"  # noqa: PT018
    review = Review()

    def predict_again(positions: Sequence[int], use: Callable[[Job, Result], Drawn]) -> Iterator[Drawn]:
        """Yield what `use`, which runs in any thread, makes of each photo, in this order."""
        jobs = map(plan.jobs.at, positions)
        for outcome in predict_jobs(jobs, segmenter, use, regions=regions, batch_size=batch_size):
            if outcome.cause is None:
                yield outcome.row
            else:
                review.problems.append(outcome.cause)

    scores = array("d", scores)
    # Journals do not hold the score of a network without a calibration.
    unknown = [job.position for job in plan.jobs if math.isnan(scores[job.position]) and plan.result_of(job).exists()]
    for position, score in predict_again(unknown, lambda job, found: (job.position, found.score)):
        scores[position] = score
    positions = choice.choose(scores)
    review.photos = sum(not math.isnan(score) for score in scores)

    def draw(job: Job, found: Result) -> tuple[ReviewItem, bytes]:
        return draw_item(path, plan, job, found, count=len(positions))

    if positions:
        items = counted(predict_again(positions, draw), progress, len(positions))
        review.path, review.shown = path, write_page(path, plan.destination, segmenter, items)
    return review
