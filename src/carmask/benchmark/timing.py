"""Time networks in each engine, and each stage from a photo's file to its result alone."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from carmask.pipeline.jobs import Job
from carmask.pipeline.sinks import Put
from carmask.runner import in_batches
from carmask.runtime.engine import EngineMissing
from carmask.runtime.load import load_member
from carmask.runtime.options import EngineName, Precision, RunOptions
from carmask.segmenter import Result, Segmenter

Item = TypeVar("Item")

# Photos that go through a network together, as in `carmask predict`.
BATCH = 4
_ENGINES: tuple[tuple[EngineName, Precision], ...] = (
    ("torch", "float32"),
    ("torch", "auto"),
    ("onnxruntime", "auto"),
    ("openvino", "float32"),
    ("openvino", "auto"),
    ("tensorrt", "auto"),
)


@dataclass(frozen=True)
class NetworkTime:
    """One network in one engine. one_ms: a photo alone. photos_per_s: in batches of `BATCH`. threads: of the CPU."""

    network: str
    stored: str
    input: str
    engine: str
    precision: str
    threads: int | None
    one_ms: float
    photos_per_s: float


@dataclass(frozen=True)
class StageTime:
    """One stage. one_ms: a photo, by one thread (the network: by all of its own). photos_per_s: by all threads."""

    stage: str
    one_ms: float
    photos_per_s: float


def median_s(run: Callable[[], object], *, seconds: float, min_runs: int = 3) -> float:
    """Median duration of a call after one warm-up: of as many as fit into `seconds`, at least `min_runs`."""
    run()
    durations_s: list[float] = []
    while sum(durations_s) < seconds or len(durations_s) < min_runs:
        durations_s.append(_duration_s(run))
    return statistics.median(durations_s)


def median_of_each_s(run: Callable[[Item], object], items: Iterable[Item]) -> float:
    """Median duration of a call for different items, each once."""
    return statistics.median(_duration_s(partial(run, item)) for item in items)


def time_network(model: Path, *, seconds: float) -> list[NetworkTime]:
    """Time a network in each engine and precision that this machine has, each combination once.

    Args:
        model: An `.onnx` file, or a folder of weights, which only PyTorch runs.
        seconds: How long each number is measured.

    """
    times = {}
    for name, precision in _ENGINES:
        try:
            member = load_member(model, RunOptions(name, precision=precision))
        except EngineMissing:
            continue
        card, engine = member.card, member.engine
        if (name, engine.precision) in times:
            continue
        height, width = card.geometry.canvas_HW(card.stride_px)
        batch_NHWC = np.random.default_rng(0).integers(0, 256, (BATCH, height, width, card.channels), np.uint8)
        one_s = median_s(partial(engine.run, batch_NHWC[:1]), seconds=seconds)
        # One batch of a slow network may take longer than `seconds`.
        batch_s = median_s(partial(engine.run, batch_NHWC), seconds=seconds, min_runs=1)
        times[name, engine.precision] = NetworkTime(
            network=card.name,
            stored=card.precision,
            input=f"{card.channels} x {height} x {width}",
            engine=engine.name,
            precision=engine.precision,
            threads=engine.threads,
            one_ms=1000 * one_s,
            photos_per_s=BATCH / batch_s,
        )
    return list(times.values())


def time_stages(segmenter: Segmenter, jobs: Sequence[Job], put: Put, workers: int) -> tuple[StageTime, ...]:
    """Time decode, fit, network, restore and encode one after the other, with nothing else running.

    Args:
        segmenter: The networks.
        jobs: Photos; all of them go through each stage, and are in memory at once.
        put: Encodes and writes a result, as in `carmask.pipeline.predict.predict_jobs`.
        workers: Threads that the pipeline decodes, and encodes, with.

    """

    def time_stage(name: str, run: Callable[[Any], object], items: Sequence[Any]) -> StageTime:
        return StageTime(name, 1000 * median_of_each_s(run, items), _photos_per_s(run, items, workers))

    decode = time_stage("decode", lambda job: segmenter.decode(job.read()), jobs)
    decoded = [segmenter.decode(job.read()) for job in jobs]
    fit = time_stage("fit", segmenter.fit, decoded)
    fitted = [segmenter.fit(photo) for photo in decoded]
    del decoded

    segmenter.infer(fitted[:BATCH], pad_to=BATCH)
    batches = list(in_batches(fitted, BATCH))
    batch_s = median_of_each_s(partial(segmenter.infer, pad_to=BATCH), batches)
    segmenter.infer(fitted[:1])
    one_s = median_of_each_s(lambda one: segmenter.infer([one]), fitted)
    network = StageTime("network", 1000 * one_s, BATCH / batch_s)

    inferred = [(one, raw) for batch in batches for one, raw in zip(batch, segmenter.infer(batch), strict=True)]
    restore = time_stage("restore", lambda one: segmenter.restore(*one), inferred)
    results = [Result(segmenter.restore(*one), segmenter.threshold) for one in inferred]
    encode = time_stage("encode", lambda one: put(*one), list(zip(jobs, results, strict=True)))
    return decode, fit, network, restore, encode


def _photos_per_s(run: Callable[[Item], object], items: Sequence[Item], workers: int) -> float:
    """Items per second of `workers` threads."""

    def run_and_drop(item: Item) -> None:
        run(item)  # results that are kept need new memory each time, unlike in the pipeline

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run_and_drop, items[:workers]))
        return len(items) / _duration_s(lambda: list(pool.map(run_and_drop, items)))


def _duration_s(run: Callable[[], object]) -> float:
    started_s = perf_counter()
    run()
    return perf_counter() - started_s
