"""What a camera sees with the vehicle cut out, as it sees it."""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carmask.pipeline.regions import ALL_REGIONS, Regions
from carmask.pipeline.video.camera import Camera, Capture
from carmask.pipeline.video.frames import Finished, finish_frames
from carmask.pipeline.video.look import Compositor
from carmask.runner import map_ahead
from carmask.segmenter import Segmenter

if TYPE_CHECKING:
    from carmask.pipeline.video.writer import VideoWriter

_NOW_S = 1.0
# Of more than the last ten minutes nothing is kept.
_ALL_S = 600.0


@dataclass(frozen=True)
class Pace:
    """How fast frames come out, and how old they are then."""

    frames: int
    rate: float
    latency_ms: float

    def __str__(self) -> str:
        return f"{self.rate:.1f} frames/s, {self.latency_ms:.0f} ms behind"


class Meter:
    """Measures the pace of the last seconds."""

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._done: deque[tuple[float, float]] = deque()
        self._frames = 0

    def tick(self, taken_s: float) -> None:
        """Count a frame that was taken at this time and is finished now."""
        now_s = time.perf_counter()
        self._frames += 1
        self._done.append((now_s, now_s - taken_s))
        while now_s - self._done[0][0] > self._span_s and len(self._done) > 2:
            self._done.popleft()

    def pace(self) -> Pace:
        """The pace so far."""
        if not self._done:
            return Pace(0, 0.0, 0.0)
        span_s = self._done[-1][0] - self._done[0][0]
        rate = (len(self._done) - 1) / span_s if span_s > 0 else 0.0
        return Pace(self._frames, rate, 1000 * median(latency_s for _, latency_s in self._done))


# Is given each result and the pace of the last second.
Show = Callable[[NDArray[np.uint8], Pace], None]


def watch(
    camera: Camera,
    segmenter: Segmenter,
    composite: Compositor,
    show: Show,
    *,
    regions: Regions = ALL_REGIONS,
    smooth: bool = False,
    frames: int | None = None,
    record: "VideoWriter | None" = None,
) -> Pace:
    """Cut the vehicle out of what the camera sees until it ends, is stopped, or `frames` are done.

    Gives the pace of it all. The calling thread owns the engine.

    Args:
        camera: The source, open and running.
        segmenter: What finds the vehicle.
        composite: What makes a frame of the result.
        show: Called with each result (uint8, 1 or 3 channels), in order, and how fast they come; in some thread.
        regions: Which parts of a mask are kept.
        smooth: Whether to smooth over time.
        frames: After how many to stop.
        record: Gets the frames too, at the times at which they came, in milliseconds.

    """
    delivery = _Delivery(show, record)
    made = finish_frames(
        islice(camera, frames),
        segmenter,
        Capture.to_rgb,
        lambda image_HWC, found_HW: composite(image_HWC, found_HW, segmenter.threshold),
        regions=regions,
        smooth=smooth,
        ahead=1,
    )
    with closing(made), ThreadPoolExecutor(1) as delivering:
        for _ in map_ahead(delivering, delivery, made, 1):
            pass
    camera.stop()
    return delivery.overall.pace()


class _Delivery:
    """Shows frames, records them and measures their pace. overall: the pace of all of them."""

    def __init__(self, show: Show, record: "VideoWriter | None") -> None:
        self.overall = Meter(_ALL_S)
        self._now = Meter(_NOW_S)
        self._show = show
        self._record = record
        self._began_s: float | None = None
        self._last_ms = -1

    def __call__(self, finished: Finished[Capture, NDArray[np.uint8]]) -> None:
        taken_s = finished.source.taken_s
        for meter in (self._now, self.overall):
            meter.tick(taken_s)
        self._show(finished.made, self._now.pace())
        if self._record is not None:
            self._began_s = taken_s if self._began_s is None else self._began_s
            self._last_ms = max(self._last_ms + 1, round(1000 * (taken_s - self._began_s)))
            self._record.write(self._record.prepare(finished.made), self._last_ms)
