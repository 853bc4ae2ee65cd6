"""What each stage from a photo's file to its result costs, alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from carmask.benchmark.clock import median_of_each_s, rate_of_pool
from carmask.benchmark.networks import BATCH
from carmask.pipeline.jobs import Job
from carmask.pipeline.sinks import Put
from carmask.result import Result
from carmask.runner import in_batches
from carmask.segmenter import Segmenter


@dataclass(frozen=True)
class StageTime:
    """One stage. one_ms: a photo, by one thread (the network: by all of its own). photos_per_s: by all threads."""

    stage: str
    one_ms: float
    photos_per_s: float


def time_stages(segmenter: Segmenter, jobs: Sequence[Job], put: Put, workers: int) -> Iterator[StageTime]:
    """Measure decode, fit, network, restore and encode one after the other, nothing else being done.

    Args:
        segmenter: The networks.
        jobs: Photos; all of them pass through each stage, and are in memory at once.
        put: Encodes and writes a result, as in `carmask.pipeline.predict.predict_jobs`.
        workers: Threads that the pipeline decodes, and encodes, with.

    """

    def stage(name: str, run: Callable[[Any], object], items: Sequence[Any]) -> StageTime:
        return StageTime(name, 1000 * median_of_each_s(run, items), rate_of_pool(run, items, workers))

    yield stage("decode", lambda job: segmenter.decode(job.read()), jobs)
    decoded = [segmenter.decode(job.read()) for job in jobs]
    yield stage("fit", segmenter.fit, decoded)
    fitted = [segmenter.fit(photo) for photo in decoded]
    del decoded

    segmenter.infer(fitted[:BATCH], pad_to=BATCH)
    batches = list(in_batches(fitted, BATCH))
    batch_s = median_of_each_s(lambda batch: segmenter.infer(batch, pad_to=BATCH), batches)
    segmenter.infer(fitted[:1])
    one_s = median_of_each_s(lambda one: segmenter.infer([one]), fitted)
    yield StageTime("network", 1000 * one_s, BATCH / batch_s)

    inferred = [(one, raw) for batch in batches for one, raw in zip(batch, segmenter.infer(batch), strict=True)]
    yield stage("restore", lambda one: segmenter.restore(*one), inferred)
    found = [Result(segmenter.restore(*one), segmenter.threshold) for one in inferred]

    def encode(item: tuple[Job, Result]) -> None:
        job, result = item
        put(job, result)

    yield stage("encode", encode, list(zip(jobs, found, strict=True)))
