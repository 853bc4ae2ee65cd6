"""Measure how fast this machine cuts out photos: networks in each engine, each stage alone, and the whole.

All figures are medians, or rates over many photos. Nothing else should be running.
"""

import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from carmask.environment import cpu_name
from carmask.errors import CarmaskError
from carmask.imaging.decode import read_size
from carmask.models.config import PresetName
from carmask.pipeline.jobs import Job
from carmask.pipeline.kinds import TABLE_SUFFIXES, Kind, is_table
from carmask.pipeline.outputs import plan_outputs
from carmask.pipeline.predict import predict_jobs
from carmask.pipeline.sinks import Put, Sink
from carmask.pipeline.sources import find_photos
from carmask.runner import default_workers, in_batches, one_opencv_thread
from carmask.runtime.engine import EngineMissing
from carmask.runtime.load import load_engine
from carmask.runtime.locate import locate, packaged_models
from carmask.runtime.options import EngineName, Precision, RunOptions
from carmask.segmenter import Segmenter
from carstudio import render_dataset

Item = TypeVar("Item")

# What was measured, ready for JSON.
Figures = dict[str, Any]

# Photos that go through a network together, as in `carmask predict`.
_BATCH = 4
_ENGINES: tuple[tuple[EngineName, Precision], ...] = (
    ("torch", "float32"),
    ("torch", "auto"),
    ("onnxruntime", "auto"),
    ("openvino", "float32"),
    ("openvino", "auto"),
    ("tensorrt", "auto"),
)
# The stages are timed with all photos in memory.
_STAGE_PHOTOS = 24
# The naive way takes seconds for each photo.
_NAIVE_PHOTOS = 3
# Enough to set the scale of an untrained network's values; nobody looks at its masks.
_CALIBRATION_PHOTOS = 4
_RENDERED_CARS, _RENDERED_VIEWS = 2, 8
# A slow network is timed with fewer photos, and an untrained one, whose masks are noise, with masks only.
_MAX_SECONDS = 30.0
_UNTRAINED_KINDS: tuple[Kind, ...] = ("mask",)
# To say how long it will take: one photo and a batch in five engines and precisions; stages and whole of a kind.
_ENGINE_FIGURES = 10
_KIND_SECONDS = 1.5 * _MAX_SECONDS


def run_benchmark(
    photos: Path | None,
    *,
    models: Sequence[str],
    presets: Sequence[PresetName],
    kinds: Sequence[Kind],
    count: int,
    seconds: float,
    log: Callable[[str], None],
) -> Figures:
    """Measure everything; see `carmask.cli.benchmark.benchmark`. `log` gets a line before each part.

    Returns:
        `networks` in each engine, and `wholes` with their `stages`. `naive_network_ms` and `naive`: PyTorch eager in
        float32, one photo, and seconds per photo of the naive way from file to file, by preset.

    Raises:
        CarmaskError: there are no photos, or no such model, or PyTorch is needed and is not there.
    """
    figures: Figures = {"networks": [], "wholes": [], "naive_network_ms": {}, "naive": {}}
    log(cpu_name())
    trained = [locate(model) for model in models] or list(packaged_models().values())
    minutes = len(trained) * (_ENGINE_FIGURES * seconds + len(kinds) * _KIND_SECONDS) / 60
    log(
        f"networks: {len(trained)}, each in every engine, and from file to result ({', '.join(kinds)}); takes up to "
        f"{minutes:.0f} min" + (", and some more for each preset" if presets else "")
    )
    with tempfile.TemporaryDirectory(prefix="carmask-benchmark-") as temporary:
        if photos is None:
            log("rendering example photos ...")
            render_dataset(Path(temporary, "rendered"), cars=_RENDERED_CARS, views=_RENDERED_VIEWS)
            photos = Path(temporary, "rendered", "train")
        found = find_photos(photos, results=None)
        paths = [found.path(name) for name in found.names]
        for path in paths[:count]:
            read_size(path)  # raises with the photo's own name, which the links below do not have
        untrained: list[Path] = []
        for preset in presets:
            # It needs PyTorch.
            from carmask.benchmark import baseline

            log(f"the naive way, {preset} ...")
            network = baseline.build_untrained(preset)
            figures["naive_network_ms"][preset] = 1000 * median_s(baseline.naive_network(network), seconds=seconds)
            figures["naive"][preset] = median_of_each_s(partial(baseline.naive_png, network), paths[:_NAIVE_PHOTOS])
            log(f"exporting {preset} ...")
            untrained += baseline.export_untrained(network, Path(temporary), paths[:_CALIBRATION_PHOTOS])
        # The exported files of a trained network are timed anyway; PyTorch needs the folder of weights.
        known = {model.stem for model in trained}
        untrained = [model for model in untrained if model.is_dir() or model.stem not in known]
        for model in (*trained, *untrained):
            log(f"measuring {model.stem} in each engine ...")
            times = time_network(model, seconds=seconds)
            figures["networks"] += times
            if model.suffix == ".onnx":
                enough = int(_MAX_SECONDS * max(row["photos_per_s"] for row in times))
                segmenter = Segmenter.load(model)
                for kind in kinds if model in trained else _UNTRAINED_KINDS:
                    log(f"measuring {model.stem}, {kind} ...")
                    whole = time_whole(segmenter, paths, kind, count=max(2 * _BATCH, min(count, enough)))
                    figures["wholes"].append(whole)
    return figures


def time_network(model: Path, *, seconds: float) -> list[Figures]:
    """Time a network in each engine and precision that this machine has, each combination once.

    Args:
        model: An `.onnx` file, or a folder of weights, which only PyTorch runs.
        seconds: How long each number is measured.
    """
    times: dict[tuple[str, str], Figures] = {}
    for name, precision in _ENGINES:
        try:
            engine = load_engine(model, RunOptions(name, precision=precision))
        except EngineMissing:
            continue
        card = engine.card
        if (name, engine.precision) in times:
            continue
        height, width = card.geometry.canvas_HW(card.stride_px)
        batch_NHWC = np.random.default_rng(0).integers(0, 256, (_BATCH, height, width, card.channels), np.uint8)
        one_s = median_s(partial(engine.run, batch_NHWC[:1]), seconds=seconds)
        # One batch of a slow network may take longer than `seconds`.
        batch_s = median_s(partial(engine.run, batch_NHWC), seconds=seconds, min_runs=1)
        times[name, engine.precision] = {
            "network": card.name,
            "stored": card.precision,
            "input": f"{card.channels} x {height} x {width}",
            "engine": engine.name,
            "precision": engine.precision,
            "threads": engine.threads,
            "one_ms": 1000 * one_s,
            "photos_per_s": _BATCH / batch_s,
        }
    return list(times.values())


def time_stages(segmenter: Segmenter, jobs: Sequence[Job], put: Put, workers: int) -> list[Figures]:
    """Time decode, fit, network, restore and encode one after the other, with nothing else running.

    one_ms: a photo, by one thread (the network: by all of its own). photos_per_s: by all threads.

    Args:
        segmenter: The networks.
        jobs: Photos; all of them go through each stage, and are in memory at once.
        put: Encodes and writes a result, as in `carmask.pipeline.predict.predict_jobs`.
        workers: Threads that the pipeline decodes, and encodes, with.
    """

    def time_stage(name: str, run: Callable[[Any], object], items: Sequence[Any]) -> Figures:
        rate = _photos_per_s(run, items, workers)
        return {"stage": name, "one_ms": 1000 * median_of_each_s(run, items), "photos_per_s": rate}

    decode = time_stage("decode", lambda job: segmenter.decode(job.read()), jobs)
    decoded = [segmenter.decode(job.read()) for job in jobs]
    fit = time_stage("fit", segmenter.fit, decoded)
    fitted = [segmenter.fit(photo) for photo in decoded]
    del decoded

    segmenter.infer(fitted[:_BATCH], pad_to=_BATCH)
    batches = list(in_batches(fitted, _BATCH))
    batch_s = median_of_each_s(partial(segmenter.infer, pad_to=_BATCH), batches)
    segmenter.infer(fitted[:1])
    one_s = median_of_each_s(lambda one: segmenter.infer([one]), fitted)
    network = {"stage": "network", "one_ms": 1000 * one_s, "photos_per_s": _BATCH / batch_s}

    inferred = [(one, raw) for batch in batches for one, raw in zip(batch, segmenter.infer(batch), strict=True)]
    restore = time_stage("restore", lambda one: segmenter.restore(*one), inferred)
    results = [segmenter.result(segmenter.restore(*one)) for one in inferred]
    encode = time_stage("encode", lambda one: put(*one), list(zip(jobs, results, strict=True)))
    return [decode, fit, network, restore, encode]


def time_whole(segmenter: Segmenter, photos: Sequence[Path], kind: Kind, *, count: int) -> Figures:
    """Time the stages alone, and then the whole with `count` photos; they are repeated where there are fewer.

    Raises:
        CarmaskError: a photo cannot be cut out.
    """
    with _open_sink(photos[: min(count, _STAGE_PHOTOS)], kind) as sink, one_opencv_thread():
        stages = time_stages(segmenter, list(sink.jobs), sink.put, default_workers())
    with _open_sink(list(islice(cycle(photos), count)), kind) as sink:
        started_s = perf_counter()
        for outcome in predict_jobs(sink.jobs, segmenter, sink.put, batch_size=_BATCH):
            if outcome.cause is not None:
                raise CarmaskError(f"{outcome.cause} (the benchmark needs photos that can be read)")
            sink.record(outcome)
        sink.finish()
        photos_per_s = count / (perf_counter() - started_s)
    card = (segmenter.refiner or segmenter.members[0]).card
    return {
        "network": card.name,
        "stored": card.precision,
        "engine": segmenter.describe_engine(),
        "kind": kind,
        "photos": count,
        "photos_per_s": photos_per_s,
        "stages": stages,
        "of_slowest_stage": photos_per_s / slowest_stage(stages)["photos_per_s"],
        # What the stages reach one after the other.
        "of_all_stages_in_turn": photos_per_s * sum(1 / stage["photos_per_s"] for stage in stages),
    }


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


@contextmanager
def _open_sink(photos: Sequence[Path], kind: Kind) -> Iterator[Sink]:
    """Link the photos into a temporary folder, and open a sink beside it."""
    with tempfile.TemporaryDirectory(prefix="carmask-benchmark-") as folder:
        source = Path(folder, "photos")
        source.mkdir()
        for number, photo in enumerate(photos):
            (source / f"{number:05}{photo.suffix}").symlink_to(photo.absolute())
        destination = Path(folder, f"results{TABLE_SUFFIXES[kind][0] if is_table(kind) else ''}")
        with plan_outputs(find_photos(source, results=None), destination, kind).open_sink({}, overwrite=False) as sink:
            yield sink


def slowest_stage(stages: Sequence[Figures]) -> Figures:
    """The stage that alone allows the fewest photos per second."""
    return min(stages, key=lambda stage: float(stage["photos_per_s"]))


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
