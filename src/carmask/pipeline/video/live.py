"""Read the newest frame of a camera again and again, and show and record the results, with little delay."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carmask.errors import CarmaskError
from carmask.runner import map_ahead

if TYPE_CHECKING:
    from carmask.pipeline.video.writer import VideoWriter

# An upright uint8 RGB frame, (height, width, 3), and when it was captured, in seconds of `time.perf_counter`.
CameraFrame = tuple[NDArray[np.uint8], float]

_RECENT_S = 1.0
_SESSION_S = 600.0  # at most, of a whole session
_SCREEN_SHARE = 0.9
_TEXT_AT_PX, _MARGIN_PX = 12, 4


class NoCamera(CarmaskError):
    """The camera does not exist, or yields no frames."""


class Camera:
    """A camera, a stream or a video file, which a thread reads inside the `with` block; iterating yields new frames.

    Older frames are dropped, so that the picture has no lag. A file is read at its own frame rate, like a camera.
    `captured` counts all frames, `dropped` those that were replaced by a newer one before they were taken.
    """

    def __init__(self, source: str, *, size_HW: tuple[int, int] | None = None) -> None:
        """Open the number of a camera, a device (/dev/video0), the URL of a stream (rtsp://, http://), or a file.

        size_HW: the height and width to request from a camera, which may choose others.

        Raises:
            NoCamera: the source cannot be opened, or yields no frame.
        """
        # OpenCV's log messages name lines of its own source.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture: Any = cv2.VideoCapture(int(source) if source.isdecimal() else source)
        is_file = Path(source).is_file()
        if size_HW is not None and not is_file:
            # Without compression most cameras yield only a few large frames per second.
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size_HW[0])
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, size_HW[1])
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        is_read, first_HW3 = self._capture.read()
        if not is_read:
            self._capture.release()
            raise NoCamera(
                f"{source}: no frame can be read; name a camera (0, 1 ...), a stream (rtsp://...) or a video file, and "
                "check that no other program uses the camera and that you may read it (on Linux: the group `video`)"
            )
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self._interval_s = 1 / rate if is_file and rate > 0 else 0.0
        self.size_HW: tuple[int, int] = first_HW3.shape[:2]
        self.captured = self.dropped = 0
        self._changed = threading.Condition()
        self._newest: tuple[NDArray[np.uint8], float] | None = None  # in BGR
        self._is_stopped = False
        self._thread = threading.Thread(target=self._read, args=(first_HW3,), name="camera", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join()
        self._capture.release()

    def stop(self) -> None:
        """End the iteration; may be called in any thread."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[CameraFrame]:
        """Yield the newest frame, each once, until the source ends or `stop` is called."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._is_stopped)
                newest, self._newest = self._newest, None
            if newest is None:
                return
            image_HW3, captured_s = newest
            yield cv2.cvtColor(image_HW3, cv2.COLOR_BGR2RGB), captured_s

    def _read(self, image_HW3: NDArray[np.uint8]) -> None:
        due_s = time.perf_counter()
        is_read = True
        while is_read and not self._is_stopped:
            with self._changed:
                self.dropped += self._newest is not None
                self.captured += 1
                self._newest = image_HW3, time.perf_counter()
                self._changed.notify_all()
            due_s += self._interval_s
            time.sleep(max(0.0, due_s - time.perf_counter()))
            is_read, image_HW3 = self._capture.read()
        self.stop()


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


class NoWindow(CarmaskError):
    """No window can be opened."""


class PreviewWindow:
    """Shows pictures until it is closed, or Escape or q is pressed. Use it only in the main thread.

    It is made with Tk, which most Pythons include: carmask needs OpenCV without its own windows.
    """

    def __init__(self, title: str, size_HW: tuple[int, int]) -> None:
        """Open a window for pictures of this size, reduced to fit the screen.

        Raises:
            NoWindow: Tk is not installed, or there is no screen.
        """
        try:
            import tkinter

            from PIL import ImageTk
        except ImportError as error:
            raise NoWindow(
                f"a window needs Tk ({error}); install it (on Debian and Ubuntu: python3-tk), or use --no-window"
            ) from error
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise NoWindow(f"no window can be opened ({error}); use --no-window") from error
        screen_HW = (self._root.winfo_screenheight(), self._root.winfo_screenwidth())
        shrink = max(1.0, *(side / (_SCREEN_SHARE * screen) for side, screen in zip(size_HW, screen_HW, strict=True)))
        self._size_WH = (round(size_HW[1] / shrink), round(size_HW[0] / shrink))
        self._root.title(title)
        self._root.resizable(width=False, height=False)
        self._photo: Any = ImageTk.PhotoImage("RGB", self._size_WH)
        canvas = tkinter.Canvas(
            self._root, width=self._size_WH[0], height=self._size_WH[1], highlightthickness=0, background="black"
        )
        canvas.pack()
        canvas.create_image(0, 0, image=self._photo, anchor="nw")
        self._textbox = canvas.create_rectangle(0, 0, 0, 0, fill="black", width=0)
        self._text = canvas.create_text(_TEXT_AT_PX, _TEXT_AT_PX, anchor="nw", fill="white", font=("TkFixedFont", 14))
        self._canvas = canvas
        self.is_open = True
        self._root.protocol("WM_DELETE_WINDOW", self.close)
        for key in ("<Escape>", "q"):
            self._root.bind(key, lambda _: self.close())

    def show(self, image_HWC: NDArray[np.uint8], text: str) -> None:
        """Show a picture (uint8, 1 or 3 channels) with a line of text in its corner."""
        if not self.is_open:
            return
        # The resized picture has no axis for a single channel, and Pillow makes RGB of gray.
        self._photo.paste(Image.fromarray(cv2.resize(image_HWC, self._size_WH, interpolation=cv2.INTER_AREA)))
        self._canvas.itemconfigure(self._text, text=text)
        left, top, right, bottom = self._canvas.bbox(self._text)
        self._canvas.coords(self._textbox, left - _MARGIN_PX, top - _MARGIN_PX, right + _MARGIN_PX, bottom + _MARGIN_PX)

    def update(self) -> None:
        """Process the events of the user and of the screen."""
        if self.is_open:
            self._root.update()

    def close(self) -> None:
        """Close it; more than once does no harm."""
        if self.is_open:
            self.is_open = False
            self._root.destroy()


def show_live(
    frames: Generator[tuple[CameraFrame, NDArray[np.uint8], bool], None, None],
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

    def deliver(segmented: tuple[CameraFrame, NDArray[np.uint8], bool]) -> None:
        nonlocal first_s
        (_, captured_s), output_HWC, _ = segmented
        recent.count(captured_s)
        session.count(captured_s)
        show(output_HWC, str(recent))
        if writer is not None:
            first_s = captured_s if first_s is None else first_s
            writer.write(writer.prepare(output_HWC), round(1000 * (captured_s - first_s)))

    with closing(frames), ThreadPoolExecutor(1, "deliver") as delivering:
        for _ in map_ahead(delivering, deliver, frames, 1):
            pass
    return session
