"""From a folder of photos to results, by all that `carmask predict` does."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from carmask.benchmark.networks import BATCH
from carmask.benchmark.stages import StageTime, time_stages
from carmask.errors import CarmaskError
from carmask.pipeline.kinds import TABLE_SUFFIXES, Kind, is_table
from carmask.pipeline.outputs import Plan, make_plan
from carmask.pipeline.predict import predict_jobs
from carmask.pipeline.sinks import Sink
from carmask.runner import default_workers, one_opencv_thread
from carmask.segmenter import Segmenter

# All photos of the stages' figures are in memory at once, as they come out of each stage.
_PHOTOS_IN_STAGES = 24


@dataclass(frozen=True)
class WholeTime:
    """Results of one kind, by one network. photos_per_s: the whole, from file to file. stages: each of them alone."""

    network: str
    stored: str
    engine: str
    kind: Kind
    photos: int
    photos_per_s: float
    stages: tuple[StageTime, ...]

    @property
    def slowest(self) -> StageTime:
        """The stage that alone allows the fewest photos a second."""
        return min(self.stages, key=lambda stage: stage.photos_per_s)

    @property
    def bound_photos_per_s(self) -> float:
        """What the stages allow together where none has processors of its own: the sum of their times."""
        return 1 / sum(1 / stage.photos_per_s for stage in self.stages)

    @property
    def of_slowest_stage(self) -> float:
        """The whole's rate as a share of that of its slowest stage."""
        return self.photos_per_s / self.slowest.photos_per_s

    @property
    def of_all_stages_in_turn(self) -> float:
        """The whole's rate as a share of `bound_photos_per_s`."""
        return self.photos_per_s / self.bound_photos_per_s


def time_whole(segmenter: Segmenter, photos: Sequence[Path], kind: Kind, *, count: int) -> WholeTime:
    """Measure the stages alone, and then the whole with `count` photos, some of them more than once if need be.

    Raises:
        CarmaskError: a photo cannot be cut out.

    """
    with _sink_for(photos[: min(count, _PHOTOS_IN_STAGES)], kind) as (plan, sink), one_opencv_thread():
        stages = tuple(time_stages(segmenter, list(plan.jobs), sink.put, default_workers()))
    with _sink_for(list(islice(cycle(photos), count)), kind) as (plan, sink):
        began_s = time.perf_counter()
        for outcome in predict_jobs(sink.jobs, segmenter, sink.put, batch_size=BATCH):
            if outcome.cause is not None:
                raise CarmaskError(f"{outcome.cause} (speed is measured with sound photos only)")
            sink.record(outcome)
        sink.finish()
        took_s = time.perf_counter() - began_s
    card = segmenter.members[0].card
    return WholeTime(
        network=card.name,
        stored=card.precision,
        engine=segmenter.describe_engine(),
        kind=kind,
        photos=count,
        photos_per_s=count / took_s,
        stages=stages,
    )


@contextmanager
def _sink_for(photos: Sequence[Path], kind: Kind) -> Iterator[tuple[Plan, Sink]]:
    """Lay links to the photos into a folder, and open a sink beside it; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="carmask-benchmark-") as folder:
        source = Path(folder, "photos")
        source.mkdir()
        for number, photo in enumerate(photos):
            (source / f"{number:05}{photo.suffix}").symlink_to(photo.absolute())
        destination = Path(folder, f"results{TABLE_SUFFIXES[kind][0] if is_table(kind) else ''}")
        plan = make_plan([source], destination, kind=kind)
        with plan.open_sink({}, overwrite=False) as sink:
            yield plan, sink
