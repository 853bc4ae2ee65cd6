"""Time all that `carmask predict` does, from a folder of photos to results; and the whole benchmark of a machine."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path

from carmask.benchmark.timing import BATCH, NetworkTime, StageTime, time_network, time_stages
from carmask.environment import cpu_name, environment
from carmask.errors import CarmaskError
from carmask.files import write_bytes_atomically
from carmask.models.config import PresetName
from carmask.pipeline.kinds import TABLE_SUFFIXES, Kind, is_table
from carmask.pipeline.outputs import plan_outputs
from carmask.pipeline.predict import predict_jobs
from carmask.pipeline.sinks import Sink
from carmask.pipeline.sources import find_photos
from carmask.runner import default_workers, one_opencv_thread
from carmask.runtime.locate import locate, packaged_models
from carmask.segmenter import Segmenter
from carstudio import StudioError, render_dataset

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


@dataclass(frozen=True)
class PipelineTime:
    """Results of one kind, by one network. photos_per_s: from file to file. stages: each of them alone."""

    network: str
    stored: str
    engine: str
    kind: Kind
    photos: int
    photos_per_s: float
    stages: tuple[StageTime, ...]

    @property
    def slowest(self) -> StageTime:
        """The stage that alone allows the fewest photos per second."""
        return min(self.stages, key=lambda stage: stage.photos_per_s)

    @property
    def of_slowest_stage(self) -> float:
        """The pipeline's rate as a share of that of its slowest stage."""
        return self.photos_per_s / self.slowest.photos_per_s

    @property
    def of_all_stages_in_turn(self) -> float:
        """The pipeline's rate as a share of what the stages reach one after the other."""
        return self.photos_per_s * sum(1 / stage.photos_per_s for stage in self.stages)


@dataclass
class BenchmarkResult:
    """The times of one machine, all measured in one run, so that they can be compared.

    naive_network_ms: PyTorch eager in float32, one photo, by network. naive_s: seconds per photo of the naive way from
    file to file, by network.
    """

    networks: list[NetworkTime] = field(default_factory=list)
    pipelines: list[PipelineTime] = field(default_factory=list)
    naive_network_ms: dict[str, float] = field(default_factory=dict)
    naive_s: dict[str, float] = field(default_factory=dict)

    def times_naive(self, pipeline: PipelineTime) -> dict[str, float]:
        """How many times as fast as the naive way a pipeline is, by the naive way's network."""
        return {name: pipeline.photos_per_s * seconds for name, seconds in self.naive_s.items()}

    def save(self, path: Path) -> None:
        """Write all times, with the machine and the versions, as JSON.

        Raises:
            UnwritableFile: it cannot be written.

        """
        figures = {
            "networks": [asdict(network) for network in self.networks],
            "wholes": [
                {
                    **asdict(pipeline),
                    "of_slowest_stage": pipeline.of_slowest_stage,
                    "of_all_stages_in_turn": pipeline.of_all_stages_in_turn,
                    "times_naive": self.times_naive(pipeline),
                }
                for pipeline in self.pipelines
            ],
            "naive_network_ms": self.naive_network_ms,
            "naive": self.naive_s,
        }
        contents = {"benchmark": "carmask benchmark", **environment(), "figures": figures}
        write_bytes_atomically(path, json.dumps(contents, indent=1).encode() + b"\n")


def run_benchmark(
    photos: Path | None,
    *,
    models: Sequence[str],
    presets: Sequence[PresetName],
    kinds: Sequence[Kind],
    count: int,
    seconds: float,
    log: Callable[[str], None],
) -> BenchmarkResult:
    """Measure everything; see `carmask.cli.benchmark.benchmark`. `log` gets a line before each part.

    Raises:
        CarmaskError: there are no photos, or no such model, or PyTorch is needed and is not there.

    """
    result = BenchmarkResult()
    log(cpu_name())
    with tempfile.TemporaryDirectory(prefix="carmask-benchmark-") as temporary:
        if photos is None:
            log("rendering example photos ...")
            try:
                render_dataset(Path(temporary, "rendered"), cars=_RENDERED_CARS, views=_RENDERED_VIEWS)
            except StudioError as error:
                raise CarmaskError(str(error)) from error
            photos = Path(temporary, "rendered", "train")
        found = find_photos(photos, results=None)
        paths = [found.path(name) for name in found.names]
        trained = [locate(model) for model in models] or list(packaged_models().values())
        untrained: list[Path] = []
        for preset in presets:
            # It needs PyTorch.
            from carmask.benchmark.baseline import build_untrained, export_untrained, time_naive

            log(f"the naive way, {preset} ...")
            network = build_untrained(preset)
            network_s, result.naive_s[preset] = time_naive(network, paths[:_NAIVE_PHOTOS], seconds=seconds)
            result.naive_network_ms[preset] = 1000 * network_s
            log(f"exporting {preset} ...")
            untrained += export_untrained(network, Path(temporary), paths[:_CALIBRATION_PHOTOS])
        # The exported files of a trained network are timed anyway; PyTorch needs the folder of weights.
        known = {model.stem for model in trained}
        untrained = [model for model in untrained if model.is_dir() or model.stem not in known]
        for model in (*trained, *untrained):
            log(f"measuring {model.stem} ...")
            times = time_network(model, seconds=seconds)
            result.networks += times
            if model.suffix == ".onnx":
                fastest_per_s = max(network.photos_per_s for network in times)
                enough = max(2 * BATCH, min(count, int(_MAX_SECONDS * fastest_per_s)))
                segmenter = Segmenter.load(model)
                for kind in kinds if model in trained else _UNTRAINED_KINDS:
                    result.pipelines.append(time_pipeline(segmenter, paths, kind, count=enough))
    return result


def time_pipeline(segmenter: Segmenter, photos: Sequence[Path], kind: Kind, *, count: int) -> PipelineTime:
    """Time the stages alone, and then the pipeline with `count` photos; they are repeated where there are fewer.

    Raises:
        CarmaskError: a photo cannot be cut out.

    """
    with _open_sink(photos[: min(count, _STAGE_PHOTOS)], kind) as sink, one_opencv_thread():
        stages = time_stages(segmenter, list(sink.jobs), sink.put, default_workers())
    with _open_sink(list(islice(cycle(photos), count)), kind) as sink:
        started_s = time.perf_counter()
        for outcome in predict_jobs(sink.jobs, segmenter, sink.put, batch_size=BATCH):
            if outcome.cause is not None:
                raise CarmaskError(f"{outcome.cause} (speed is measured with sound photos only)")
            sink.record(outcome)
        sink.finish()
        took_s = time.perf_counter() - started_s
    card = segmenter.members[0].card
    return PipelineTime(
        network=card.name,
        stored=card.precision,
        engine=segmenter.describe_engine(),
        kind=kind,
        photos=count,
        photos_per_s=count / took_s,
        stages=stages,
    )


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
