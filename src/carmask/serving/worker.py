"""From an uploaded photo to the encoded result: decode, run the networks, restore, draw, in bounded memory.

Decoding and drawing run in thread pools, the networks in one thread of their own (`Batcher`).
"""

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from carmask.errors import CarmaskError
from carmask.imaging import PictureFormat
from carmask.imaging.background import Background, picture_background
from carmask.imaging.decode import UnreadableImage, decode_photo
from carmask.imaging.image_file import open_image
from carmask.imaging.masks import ALL_REGIONS, Regions
from carmask.pipeline.jobs import Job
from carmask.pipeline.kinds import OF_PHOTO, OutputStyle
from carmask.pipeline.render import make_render
from carmask.result import Result
from carmask.runner import default_workers, one_opencv_thread
from carmask.runtime.engine import EngineError
from carmask.segmenter import Fitted, Raw, Segmenter
from carmask.serving.batcher import Batcher
from carmask.serving.errors import busy, not_ready, unprocessable
from carmask.serving.memory import MemoryBudget
from carmask.serving.metrics import ServiceMetrics
from carmask.serving.responses import EncodedResult, json_body, result_headers
from carmask.serving.schemas import JSON, PICTURE_TYPES, SegmentKind
from carmask.serving.settings import (
    DECODING_BYTES_PER_PX,
    DRAWING_BYTES_PER_PX,
    MASKING_BYTES_PER_PX,
    MB,
    Batching,
    ServiceLimits,
)
from carmask.serving.uploads import Upload


class AbandonedError(Exception):
    """The client is gone; nobody waits for this photo."""


@dataclass
class PhotoTask:
    """One photo and what to make of it. threshold: None for the network's own. background: a picture or a color."""

    photo: Upload
    request_id: str
    kind: SegmentKind = "mask"
    media_type: str = PICTURE_TYPES["png"]
    threshold: float | None = None
    background: Background | Upload | None = None
    crop: bool = False
    regions: Regions = ALL_REGIONS
    arrived_s: float = field(default_factory=time.perf_counter)
    is_abandoned: bool = False

    @property
    def is_drawn(self) -> bool:
        """Whether the photo itself is part of the result."""
        return self.kind in OF_PHOTO and self.media_type != JSON


class PhotoWorker:
    """Segments photos, a bounded number at the same time. All but `close` is called in the event loop's thread."""

    def __init__(
        self, segmenter: Segmenter, limits: ServiceLimits, batching: Batching, metrics: ServiceMetrics
    ) -> None:
        """Start the threads."""
        self.segmenter = segmenter
        self.limits = limits
        self.problem: str | None = "the self-test has not finished yet"
        """Why /readyz fails, or None. After the self-test photos are accepted all the same."""
        self._accepts_photos = False
        self._metrics = metrics
        self._photos = 0
        self._memory = MemoryBudget(limits.work_mb * MB)
        threads = batching.workers or default_workers()
        # On exit: the decoders finish first, then the network, then the drawers.
        self._closing = ExitStack()
        self._closing.enter_context(one_opencv_thread())
        self._drawers = self._closing.enter_context(ThreadPoolExecutor(threads, "draw"))
        self._batcher = Batcher(
            # Padded, so that the result of a photo does not depend on the photos beside it.
            lambda fitted: segmenter.infer(fitted, pad_to=batching.batch_size),
            batch_size=batching.batch_size,
            wait_s=batching.wait_ms / 1000,
            on_batch=self._count_batch,
        )
        self._closing.callback(self._batcher.close)
        self._decoders = self._closing.enter_context(ThreadPoolExecutor(threads, "decode"))
        metrics.photos_now.set_function(lambda: self._photos)
        metrics.queue_photos.set_function(lambda: self._batcher.waiting)
        metrics.work_bytes.set_function(lambda: self._memory.used_bytes)

    def close(self) -> None:
        """Finish the photos that are here, and end all threads."""
        self._closing.close()

    def accept_photos(self) -> None:
        """Accept photos from now on."""
        self._accepts_photos = True
        self.problem = None

    def check_ready(self) -> None:
        """Refuse a photo at once if it could not be accepted.

        Raises:
            ServiceError: 503, the queue is full, or the self-test has not passed.

        """
        if not self._accepts_photos:
            raise not_ready(self.problem or "")
        if self._photos >= self.limits.queue:
            raise busy("queue_full", f"{self._photos} photos are waiting already")

    def infer(self, fitted: Fitted) -> "Future[Raw]":
        """Queue a decoded photo for the networks."""
        return self._batcher.submit(fitted)

    async def segment(self, task: PhotoTask) -> EncodedResult:
        """Segment one photo. Cancelling drops the rest of the work.

        Raises:
            ServiceError: 503, the queue is full; 422, the photo cannot be read, or the result cannot be encoded.
            EngineError: a network failed.

        """
        self.check_ready()
        self._photos += 1
        try:
            fitted = await asyncio.wrap_future(self._decoders.submit(self._decode, task))
            raw = await asyncio.wrap_future(self.infer(fitted))
            self.problem = None
            result = await _result_or_release(self._drawers.submit(self._finish, task, fitted, raw))
        except EngineError as error:
            self.problem = str(error)
            raise
        except CarmaskError as error:
            raise unprocessable(error) from error
        finally:
            task.is_abandoned = True
            self._photos -= 1
        self._metrics.photos.labels(task.kind).inc()
        self._metrics.empty_photos.inc(result.is_empty)
        return result

    def _decode(self, task: PhotoTask) -> Fitted:
        with self._memory.reserve(self._pixels(task.photo) * DECODING_BYTES_PER_PX):
            if task.is_abandoned:
                raise AbandonedError
            with self._metrics.stage_seconds.labels("decode").time():
                try:
                    return self.segmenter.fit(self.segmenter.decode(task.photo.data))
                except UnreadableImage as error:
                    raise type(error)(task.photo.name, error.cause, error.advice) from error

    def _finish(self, task: PhotoTask, fitted: Fitted, raw: Raw) -> EncodedResult:
        height, width = fitted.size_HW
        size_bytes = height * width * (DRAWING_BYTES_PER_PX if task.is_drawn else MASKING_BYTES_PER_PX)
        if task.is_drawn and isinstance(task.background, Upload):
            size_bytes += self._pixels(task.background) * DECODING_BYTES_PER_PX
        reservation = self._memory.reserve(size_bytes)
        try:
            if task.is_abandoned:
                raise AbandonedError
            with self._metrics.stage_seconds.labels("draw").time():
                body, headers, is_empty = self._draw(task, fitted, raw)
        except BaseException:
            reservation.close()
            raise
        # The body stays in memory until the client has taken it, which may be slow.
        reservation.shrink(len(body))
        return EncodedResult(body, task.media_type, headers, is_empty, reservation.close)

    def _draw(self, task: PhotoTask, fitted: Fitted, raw: Raw) -> tuple[bytes, dict[str, str], bool]:
        threshold = self.segmenter.threshold if task.threshold is None else task.threshold
        found = Result(task.regions.keep(self.segmenter.restore(fitted, raw), threshold), threshold)
        body = b"" if task.media_type == JSON else self._render(task, found)
        seconds = time.perf_counter() - task.arrived_s
        if task.media_type == JSON:
            body = json_body(found, self.segmenter.name, seconds=seconds, request_id=task.request_id)
        return body, result_headers(found, seconds), found.box_px is None

    def _render(self, task: PhotoTask, found: Result) -> bytes:
        """The bytes that `carmask predict` writes for the same photo with the same options."""
        background = task.background
        if isinstance(background, Upload):
            photo = decode_photo(background.data, max_pixels=self.limits.max_pixels, name=background.name)
            background = picture_background(photo.image_HWC)
        picture_format: PictureFormat = "webp" if task.media_type == PICTURE_TYPES["webp"] else "png"
        style = OutputStyle(task.kind, picture_format, crop=task.crop)
        render = make_render(style, Path(), of_one=True, background=background)
        name = task.photo.name
        return render(Job(0, name, Path(name), task.photo.data, Path(name), ""), found)

    def _pixels(self, upload: Upload) -> int:
        """Number of pixels of a picture, from its header."""
        with open_image(upload.data, max_pixels=self.limits.max_pixels, name=upload.name) as image:
            return image.width * image.height

    def _count_batch(self, photos: int, seconds: float) -> None:
        self._metrics.batch_photos.observe(photos)
        self._metrics.stage_seconds.labels("network").observe(seconds)


async def _result_or_release(drawing: "Future[EncodedResult]") -> EncodedResult:
    """Wait for the result. If the wait is cancelled, the memory of the result is freed when it comes."""
    try:
        return await asyncio.wrap_future(drawing)
    except asyncio.CancelledError:
        drawing.add_done_callback(_release)
        raise


def _release(drawing: "Future[EncodedResult]") -> None:
    if not drawing.cancelled() and drawing.exception() is None:
        drawing.result().release()
