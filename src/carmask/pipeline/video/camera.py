"""What a camera sees now: frames that nobody took in time are dropped, so that what is shown is never old."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError


class NoCamera(CarmaskError):
    """There is no such camera, or it gives no pictures."""


@dataclass(frozen=True)
class Capture:
    """A frame as OpenCV gives it, upright, uint8 BGR, and when it came, in seconds of `time.perf_counter`."""

    image_HW3: NDArray[np.uint8]
    taken_s: float

    def to_rgb(self) -> NDArray[np.uint8]:
        """Uint8 RGB, (height, width, 3)."""
        rgb_HW3: NDArray[np.uint8] = cv2.cvtColor(self.image_HW3, cv2.COLOR_BGR2RGB)
        return rgb_HW3


class Camera:
    """A camera, a stream or a video file, read by a thread of its own while inside; iterating gives newest frames.

    A file is read at its own pace, like a camera. `taken` counts what came, `dropped` what nobody wanted in time.
    """

    def __init__(self, source: str, *, size_HW: tuple[int, int] | None = None) -> None:
        """Open the source.

        Args:
            source: The number of a camera, a device (/dev/video0), the URL of a stream (rtsp://, http://), or a file.
            size_HW: The height and width to ask of a camera, which may give another.

        Raises:
            NoCamera: it cannot be opened, or gives no frame.

        """
        # OpenCV's own complaints name lines of its source; what they mean is said below.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture: Any = cv2.VideoCapture(int(source) if source.isdecimal() else source)
        is_file = Path(source).is_file()
        if size_HW is not None and not is_file:
            # Uncompressed, most cameras give few frames of this size in a second.
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size_HW[0])
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, size_HW[1])
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        there, first_HW3 = self._capture.read()
        if not there:
            self._capture.release()
            raise NoCamera(_explain(source))
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self._pace_s = 1 / rate if is_file and rate > 0 else 0.0
        self.size_HW: tuple[int, int] = first_HW3.shape[:2]
        self.taken = self.dropped = 0
        self._news = threading.Condition()
        self._newest: Capture | None = None
        self._is_over = False
        self._thread = threading.Thread(target=self._read, args=(first_HW3,), name="camera", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.join()
        self._capture.release()

    def stop(self) -> None:
        """End the iteration; from any thread."""
        with self._news:
            self._is_over = True
            self._news.notify_all()

    def __iter__(self) -> Iterator[Capture]:
        """The newest frame, each once, until the source ends or is stopped."""
        while True:
            with self._news:
                self._news.wait_for(lambda: self._newest is not None or self._is_over)
                capture, self._newest = self._newest, None
            if capture is None:
                return
            yield capture

    def _read(self, image_HW3: NDArray[np.uint8]) -> None:
        due_s = time.perf_counter()
        there = True
        while there and not self._is_over:
            with self._news:
                self.dropped += self._newest is not None
                self.taken += 1
                self._newest = Capture(image_HW3, time.perf_counter())
                self._news.notify_all()
            due_s += self._pace_s
            time.sleep(max(0.0, due_s - time.perf_counter()))
            there, image_HW3 = self._capture.read()
        self.stop()


def _explain(source: str) -> str:
    if Path(source).is_file():
        return f"{source}: no frame of it can be decoded; name a video file, a camera (0, 1 ...) or a stream"
    if source.isdecimal() or source.startswith("/dev/"):
        return (
            f"camera {source}: cannot be opened; see that it is connected, used by no other program, and that you may "
            "read it (on Linux: the group `video`)"
        )
    return f"{source}: gives no pictures; name a camera (0, 1 ...), a stream (rtsp://...) or a video file"
