"""Segment what a camera sees, with little delay."""

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

from carmask.imaging.masks import ALL_REGIONS, Regions
from carmask.pipeline.video.camera import Camera, CameraFrame
from carmask.pipeline.video.frames import Compositor, SegmentedFrame, segment_frames
from carmask.runner import map_ahead
from carmask.segmenter import Segmenter

if TYPE_CHECKING:
    from carmask.pipeline.video.writer import VideoWriter

_RECENT_S = 1.0
_SESSION_S = 600.0  # at most, of a whole session


@dataclass(frozen=True)
class LiveStats:
    """How many frames were shown, at which rate, and how old they were then."""

    frames: int
    frames_per_s: float
    latency_ms: float

    def __str__(self) -> str:
        return f"{self.frames_per_s:.1f} frames/s, {self.latency_ms:.0f} ms behind"


class LiveMeter:
    """Measures the frame rate and the latency over the last seconds."""

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._shown: deque[tuple[float, float]] = deque()  # when, and the latency then
        self._frames = 0

    def count(self, captured_s: float) -> None:
        """Count a frame that was captured at this time and is shown now."""
        now_s = time.perf_counter()
        self._frames += 1
        self._shown.append((now_s, now_s - captured_s))
        while now_s - self._shown[0][0] > self._span_s and len(self._shown) > 2:
            self._shown.popleft()

    def stats(self) -> LiveStats:
        """Return the statistics so far."""
        if not self._shown:
            return LiveStats(0, 0.0, 0.0)
        span_s = self._shown[-1][0] - self._shown[0][0]
        frames_per_s = (len(self._shown) - 1) / span_s if span_s > 0 else 0.0
        return LiveStats(self._frames, frames_per_s, 1000 * median(latency_s for _, latency_s in self._shown))


def segment_live(
    camera: Camera,
    segmenter: Segmenter,
    composite: Compositor,
    show: Callable[[NDArray[np.uint8], LiveStats], None],
    *,
    regions: Regions = ALL_REGIONS,
    smooth: bool = False,
    frames: int | None = None,
    writer: "VideoWriter | None" = None,
) -> LiveStats:
    """Segment the frames of a camera until it ends, is stopped, or `frames` are done; returns the statistics.

    The calling thread runs the networks.

    Args:
        camera: The source, open and running.
        segmenter: The networks.
        composite: Makes the pixels of a result.
        show: Called with each result (uint8, 1 or 3 channels), in order, and the statistics of the last second; in
            some thread.
        regions: Which regions of a mask are kept.
        smooth: Whether to smooth over time.
        frames: The number of frames to stop after.
        writer: Records the results too, with their capture times in milliseconds.

    """
    recent, session = LiveMeter(_RECENT_S), LiveMeter(_SESSION_S)
    first_s: float | None = None
    last_ms = -1

    def deliver(segmented: SegmentedFrame[CameraFrame, NDArray[np.uint8]]) -> None:
        nonlocal first_s, last_ms
        captured_s = segmented.frame.captured_s
        recent.count(captured_s)
        session.count(captured_s)
        show(segmented.output, recent.stats())
        if writer is not None:
            first_s = captured_s if first_s is None else first_s
            last_ms = max(last_ms + 1, round(1000 * (captured_s - first_s)))
            writer.write(writer.prepare(segmented.output), last_ms)

    segmented_frames = segment_frames(
        islice(camera, frames), segmenter, CameraFrame.to_rgb, composite, regions=regions, smooth=smooth, ahead=1
    )
    with closing(segmented_frames), ThreadPoolExecutor(1, "deliver") as delivering:
        for _ in map_ahead(delivering, deliver, segmented_frames, 1):
            pass
    camera.stop()
    return session.stats()
