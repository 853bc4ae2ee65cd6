"""The way of a photo through the service: decoded in a thread, run by the networks' own, drawn in a thread again."""

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from carmask.errors import CarmaskError
from carmask.imaging.decode import UnreadableImage
from carmask.imaging.image_file import TooManyPixels
from carmask.runner import default_workers, one_opencv_thread
from carmask.runtime.engine import EngineError
from carmask.segmenter import Fitted, Raw, Segmenter
from carmask.serving.answers import Answer
from carmask.serving.batcher import Batcher
from carmask.serving.form import Upload
from carmask.serving.memory import Memory
from carmask.serving.metrics import Metrics
from carmask.serving.refusals import Refusal, busy, not_ready
from carmask.serving.settings import MB, Batching, Limits
from carmask.serving.wishes import Wish
from carmask.serving.work import Bench, Work


class Service:
    """Cuts out photos, a bounded number at a time. All of it but `close` belongs to the event loop's thread."""

    def __init__(self, segmenter: Segmenter, limits: Limits, batching: Batching, metrics: Metrics) -> None:
        """Start the threads."""
        self.segmenter = segmenter
        self.limits = limits
        self.obstacle: str | None = "the self-test is not over yet"
        """Why photos cannot be cut out, or nothing. After the self-test that is said, and all the same tried."""
        self._is_open = False
        self._metrics = metrics
        self._photos = 0
        memory = Memory(limits.work_mb * MB)
        self._bench = Bench(segmenter, memory, metrics, max_pixels=limits.max_pixels)
        workers = batching.workers or default_workers()
        self._closing = ExitStack()
        self._closing.enter_context(one_opencv_thread())
        self._drawers = self._closing.enter_context(ThreadPoolExecutor(workers, "draw"))
        self._batcher = Batcher(
            # A photo's result must not depend on the photos beside it.
            lambda fitted: segmenter.infer(fitted, pad_to=batching.batch_size),
            batch_size=batching.batch_size,
            wait_s=batching.wait_ms / 1000,
            on_batch=self._count_batch,
        )
        self._closing.callback(self._batcher.close)
        self._decoders = self._closing.enter_context(ThreadPoolExecutor(workers, "decode"))
        metrics.photos_now.set_function(lambda: self._photos)
        metrics.queue_photos.set_function(lambda: self._batcher.waiting)
        metrics.work_bytes.set_function(lambda: memory.used_bytes)

    def close(self) -> None:
        """Finish what is there, and end all threads."""
        self._closing.close()

    def open(self) -> None:
        """Take photos from now on."""
        self._is_open = True
        self.obstacle = None

    def refuse_when_unable(self) -> None:
        """Say at once where a photo cannot be taken.

        Raises:
            Refusal: 503, as many photos are here as may be, or the service is not open yet.

        """
        if not self._is_open:
            raise not_ready(self.obstacle or "")
        if self._photos >= self.limits.queue:
            raise busy("queue_full", f"{self._photos} photos are waiting already")

    def infer(self, fitted: Fitted) -> "Future[Raw]":
        """Let a photo that is decoded wait for the networks."""
        return self._batcher.submit(fitted)

    async def cut_out(self, photo: Upload, wish: Wish, request_id: str) -> Answer:
        """Cut out one photo. To cancel this drops what is left of the work.

        Raises:
            Refusal: 503, the queue is full; 422, the photo is none, or cannot be drawn as it was asked for.
            EngineError: a network failed.

        """
        self.refuse_when_unable()
        work = Work(photo, wish, request_id)
        self._photos += 1
        try:
            fitted = await asyncio.wrap_future(self._decoders.submit(self._bench.decode, work))
            raw = await asyncio.wrap_future(self.infer(fitted))
            self.obstacle = None
            answer = await _answer_or_release(self._drawers.submit(self._bench.finish, work, fitted, raw))
        except EngineError as error:
            self.obstacle = str(error)
            raise
        except CarmaskError as error:
            raise _refused(error) from error
        finally:
            work.is_abandoned = True
            self._photos -= 1
        self._metrics.photos.labels(wish.kind).inc()
        self._metrics.empty_photos.inc(answer.is_empty)
        return answer

    def _count_batch(self, photos: int, seconds: float) -> None:
        self._metrics.batch_photos.observe(photos)
        self._metrics.stage_seconds.labels("network").observe(seconds)


async def _answer_or_release(drawing: "Future[Answer]") -> Answer:
    """The answer; if nobody waits for it any more, its memory is given back when it comes."""
    try:
        return await asyncio.wrap_future(drawing)
    except asyncio.CancelledError:
        drawing.add_done_callback(_release)
        raise


def _release(drawing: "Future[Answer]") -> None:
    if not drawing.cancelled() and drawing.exception() is None:
        drawing.result().release()


def _refused(error: CarmaskError) -> Refusal:
    if isinstance(error, TooManyPixels):
        return Refusal(422, "too_many_pixels", f"{error.name}: {error.cause}; {error.advice}")
    if isinstance(error, UnreadableImage):
        advice = "send an intact JPEG, PNG, GIF, BMP, TIFF or WebP file"
        return Refusal(422, "unreadable", f"{error.name}: {error.cause}; {advice}")
    return Refusal(422, "cannot_draw", str(error))
