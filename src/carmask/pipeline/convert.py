"""Masks in, results of another kind out: what `carmask convert` does."""

import time
from collections.abc import Generator, Iterable
from dataclasses import replace

from carmask.pipeline.groups import measure_box, with_one_scale
from carmask.pipeline.jobs import Job, PhotoOutcome
from carmask.pipeline.masks import MaskList, Read
from carmask.pipeline.origins import describe_files
from carmask.pipeline.outputs import Plan
from carmask.pipeline.predict import failed, put_result, settle
from carmask.pipeline.sinks import Put
from carmask.pipeline.summary import Follow, RunSummary, collect_outcomes
from carmask.runner import default_workers, in_threads


def convert_masks(masks: MaskList, plan: Plan, *, overwrite: bool = False, follow: Follow | None = None) -> RunSummary:
    """Write masks as the kind that the plan says. See `predict_photos`.

    Raises:
        CarmaskError: the destination holds other results or cannot be written, or the disk is full.
    """
    plan = with_one_scale(
        plan, masks.provenance(), lambda jobs: _convert(masks, jobs, measure_box), overwrite=overwrite
    )
    with plan.open_sink(masks.provenance(), overwrite=overwrite) as sink:
        return collect_outcomes(settle(_convert(masks, sink.jobs, sink.put)), plan, sink, follow)


def _convert(masks: MaskList, jobs: Iterable[Job], put: Put) -> Generator[PhotoOutcome, None, None]:
    readers = masks.readers()
    work = ((job, next(read for name, read in readers if name == job.name)) for job in jobs)

    def convert(mask: tuple[Job, Read]) -> PhotoOutcome:
        job, read = mask
        started_s = time.perf_counter()
        try:
            made_from = describe_files(job)
            found, remark = read()
            outcome = put_result(replace(job, made_from=made_from, remark=remark), found, put)
        except Exception as error:  # noqa: BLE001 - `failed` raises others again
            return failed(job, error)
        return replace(outcome, seconds=time.perf_counter() - started_s)

    return in_threads(convert, work, default_workers())
