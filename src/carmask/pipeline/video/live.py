"""Show and record what a camera sees, with little delay."""

import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from carmask.pipeline.video.camera import CameraFrame
from carmask.pipeline.video.frames import SegmentedFrame
from carmask.runner import map_ahead

if TYPE_CHECKING:
    from carmask.pipeline.video.writer import VideoWriter

_RECENT_S = 1.0
_SESSION_S = 600.0  # at most, of a whole session


class LiveMeter:
    """Counts shown frames, and measures their rate and how old they were over the last `span_s` seconds."""

    def __init__(self, span_s: float) -> None:
        self.frames = 0
        self._span_s = span_s
        self._shown: deque[tuple[float, float]] = deque()  # when, and the latency then

    def count(self, captured_s: float) -> None:
        """Count a frame that was captured at this time and is shown now."""
        now_s = time.perf_counter()
        self.frames += 1
        self._shown.append((now_s, now_s - captured_s))
        while now_s - self._shown[0][0] > self._span_s and len(self._shown) > 2:
            self._shown.popleft()

    @property
    def frames_per_s(self) -> float:
        """The frame rate; 0 before the second frame."""
        span_s = self._shown[-1][0] - self._shown[0][0] if self._shown else 0.0
        return (len(self._shown) - 1) / span_s if span_s > 0 else 0.0

    @property
    def latency_ms(self) -> float:
        """The median age of a frame when it was shown."""
        return 1000 * median(latency_s for _, latency_s in self._shown) if self._shown else 0.0

    def __str__(self) -> str:
        return f"{self.frames_per_s:.1f} frames/s, {self.latency_ms:.0f} ms behind"


def show_live(
    frames: Generator[SegmentedFrame[CameraFrame, NDArray[np.uint8]], None, None],
    show: Callable[[NDArray[np.uint8], str], None],
    writer: "VideoWriter | None" = None,
) -> LiveMeter:
    """Show segmented frames until they end; returns the measurements of the whole session.

    The calling thread runs the networks. `show` is called in another thread with each result (uint8, 1 or 3 channels),
    in order, and the rate and latency of the last second in words. `writer` records the results too, with their capture
    times in milliseconds.
    """
    recent, session = LiveMeter(_RECENT_S), LiveMeter(_SESSION_S)
    first_s: float | None = None

    def deliver(segmented: SegmentedFrame[CameraFrame, NDArray[np.uint8]]) -> None:
        nonlocal first_s
        captured_s = segmented.frame.captured_s
        recent.count(captured_s)
        session.count(captured_s)
        show(segmented.output, str(recent))
        if writer is not None:
            first_s = captured_s if first_s is None else first_s
            writer.write(writer.prepare(segmented.output), round(1000 * (captured_s - first_s)))

    with closing(frames), ThreadPoolExecutor(1, "deliver") as delivering:
        for _ in map_ahead(delivering, deliver, frames, 1):
            pass
    return session
