"""From an uploaded photo to the encoded result: decode, run the networks, restore, draw, in bounded memory.

Decoding and drawing run in thread pools, the networks in one thread of their own (`Batcher`).
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.imaging.background import picture_background
from carmask.imaging.decode import (
    Photo,
    UnreadableImage,
    count_pixels,
    decode_photo,
    decoding_bytes,
    photo_of_pixels,
)
from carmask.imaging.geometry import size_text
from carmask.imaging.masks import ALL_REGIONS
from carmask.pipeline.jobs import Job
from carmask.pipeline.kinds import OF_PHOTO
from carmask.pipeline.render import make_render
from carmask.result import Result
from carmask.runner import default_workers, one_opencv_thread
from carmask.runtime.engine import EngineError
from carmask.segmenter import Fitted, Raw, Segmenter
from carmask.serving.batcher import Batcher
from carmask.serving.errors import busy, not_ready, unprocessable
from carmask.serving.form import SegmentForm
from carmask.serving.memory import FOUND_BYTES_PER_PX, MemoryBudget, drawing_bytes, masking_bytes
from carmask.serving.metrics import ServiceMetrics
from carmask.serving.responses import ResultResponse, json_body
from carmask.serving.schemas import JSON
from carmask.serving.settings import MB, ServiceLimits
from carmask.serving.uploads import UploadedFile


@dataclass(eq=False)
class PhotoTask:
    """One photo and what to make of it.

    background: a picture as the background of a cut-out. mask: a picture of the mask, with which no network runs.
    """

    form: SegmentForm
    photo: UploadedFile
    background: UploadedFile | None
    mask: UploadedFile | None
    media_type: str
    request_id: str
    arrived_s: float = field(default_factory=time.perf_counter)
    is_abandoned: bool = False


class SegmentationWorker:
    """Segments photos, a bounded number at the same time. All but `close` is called in the event loop's thread."""

    def __init__(self, segmenter: Segmenter, limits: ServiceLimits, metrics: ServiceMetrics) -> None:
        """Prepare the threads."""
        self.segmenter = segmenter
        self.limits = limits
        self.problem: str | None = "the self-test has not finished yet"
        """Why /readyz fails, or None. It refuses photos only until the self-test has passed."""
        self._accepts_photos = False
        self._metrics = metrics
        self._photos = 0
        self._memory = MemoryBudget(limits.work_mb * MB)
        threads = limits.workers or default_workers()
        self.batcher = Batcher(self._infer, batch_size=limits.batch_size, wait_s=limits.batch_wait_ms / 1000)
        self._closing = ExitStack()
        self._closing.enter_context(one_opencv_thread())
        self._closing.callback(self.batcher.close)
        self._drawers = self._closing.enter_context(ThreadPoolExecutor(threads, "draw"))
        self._decoders = self._closing.enter_context(ThreadPoolExecutor(threads, "decode"))
        metrics.photos_now.set_function(lambda: self._photos)
        metrics.queue_photos.set_function(lambda: self.batcher.waiting)
        metrics.work_bytes.set_function(lambda: self._memory.used_bytes)

    def close(self) -> None:
        """Finish the work in progress, and end all threads."""
        self._closing.close()

    def accept_photos(self) -> None:
        """Accept photos from now on."""
        self._accepts_photos = True
        self.problem = None

    async def recover(self) -> None:
        """If a network has failed, try it on an empty photo: where nobody sends photos to a service that is not ready.

        `problem` says afterwards whether it runs.
        """
        if not self._accepts_photos or self.problem is None:
            return
        try:
            await self.batcher.infer(self.segmenter.fit(photo_of_pixels(np.zeros((1, 1, 3), np.uint8))))
        except EngineError as error:
            self.problem = str(error)
        else:
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

    async def segment(self, task: PhotoTask) -> ResultResponse:
        """Segment one photo. Cancelling drops the rest of the work.

        Raises:
            ServiceError: 503, the queue is full; 422, the photo cannot be read, or the result cannot be encoded.
            EngineError: a network failed.
        """
        with self.admitted(1):
            return await self._segment(task)

    async def segment_each(
        self,
        tasks: Sequence[PhotoTask],
        at_once: int,
        send: Callable[[PhotoTask, ResultResponse | Exception], Awaitable[None]],
    ) -> None:
        """Segment photos that are `admitted`, so many at a time; `send` gets each result as soon as it is ready.

        One result is sent at a time. An exception stands for the result of a photo that has none.
        """
        waiting = iter(tasks)
        sending = asyncio.Lock()

        async def segment_next() -> None:
            for task in waiting:
                try:
                    result: ResultResponse | Exception = await self._segment(task)
                except Exception as error:  # noqa: BLE001 - it is the result of this photo; the others have theirs
                    result = error
                try:
                    async with sending:
                        await send(task, result)
                finally:
                    if isinstance(result, ResultResponse):
                        result.release()

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(segment_next())

    @contextmanager
    def admitted(self, photos: int) -> Iterator[int]:
        """Count photos of a request as in progress; yields how many at a time, as many as the network takes.

        Raises:
            ServiceError: 503, the queue is full, or the self-test has not passed.
        """
        self.check_ready()
        at_once = min(photos, self.limits.batch_size, self.limits.queue)
        self._photos += at_once
        try:
            yield at_once
        finally:
            self._photos -= at_once

    async def _segment(self, task: PhotoTask) -> ResultResponse:
        try:
            task.form.check_canvas(self.limits.max_pixels)
            fitted = await asyncio.wrap_future(self._decoders.submit(self._decode, task))
            raw: Raw = ()
            if task.mask is None:
                raw = await self.batcher.infer(fitted)
                self.problem = None
            drawing = self._drawers.submit(self._finish, task, fitted, raw)
            try:
                response = await asyncio.wrap_future(drawing)
            except asyncio.CancelledError:
                drawing.add_done_callback(_release)
                raise
        except EngineError as error:
            self.problem = str(error)
            raise
        except CarmaskError as error:
            raise unprocessable(error) from error
        finally:
            task.is_abandoned = True
        self._metrics.photos.labels(task.form.kind).inc()
        self._metrics.empty_photos.inc(response.found.box_px is None)
        return response

    def _decode(self, task: PhotoTask) -> Fitted:
        reserved_bytes = self._memory.reserve(self._decoding_bytes(task.photo))
        try:
            if task.is_abandoned:
                raise CancelledError
            with self._metrics.stage_seconds.labels("decode").time():
                return self.segmenter.fit(self.segmenter.decode(task.photo.data))
        except UnreadableImage as error:
            raise type(error)(task.photo.name, error.cause, error.advice) from error
        finally:
            self._memory.release(reserved_bytes)

    def _infer(self, fitted: Sequence[Fitted]) -> list[Raw]:
        self._metrics.batch_photos.observe(len(fitted))
        with self._metrics.stage_seconds.labels("network").time():
            # Padded, so that the result of a photo does not depend on the photos beside it.
            return self.segmenter.infer(fitted, pad_to=self.limits.batch_size)

    def _finish(self, task: PhotoTask, fitted: Fitted, raw: Raw) -> ResultResponse:
        reserved_bytes = self._memory.reserve(self._finishing_bytes(task, math.prod(fitted.size_HW)))
        try:
            if task.is_abandoned:
                raise CancelledError
            with self._metrics.stage_seconds.labels("draw").time():
                body, found = self._draw(task, fitted, raw)
        except BaseException:
            self._memory.release(reserved_bytes)
            raise
        # The body stays in memory until the client has taken it, which may be slow.
        body_bytes = min(len(body), reserved_bytes)
        self._memory.release(reserved_bytes - body_bytes)
        release = partial(self._memory.release, body_bytes)
        return ResultResponse(body, task.media_type, found, time.perf_counter() - task.arrived_s, release)

    def _finishing_bytes(self, task: PhotoTask, photo_px: int) -> int:
        """Return the most memory that a result takes, and refuse what takes more than all."""
        form = task.form
        steps = [masking_bytes(photo_px, chooses_regions=form.regions() != ALL_REGIONS)]
        if task.mask is not None:
            steps.append(self._decoding_bytes(task.mask))
        if form.kind in OF_PHOTO and task.media_type != JSON:
            background_px, found_bytes = 0, photo_px * FOUND_BYTES_PER_PX
            if task.background is not None:
                background = task.background
                steps.append(found_bytes + self._decoding_bytes(background))
                background_px = count_pixels(background.data, max_pixels=self.limits.max_pixels, name=background.name)
            steps.append(found_bytes + 3 * background_px + self._decoding_bytes(task.photo))
            look = form.style(task.media_type).look
            on_canvas = {"canvas_px": form.canvas_px, "background_px": background_px}
            steps.append(drawing_bytes(form.kind, look.format, photo_px, **on_canvas))
        # One step follows the other.
        if max(steps) > self.limits.work_mb * MB:
            raise CarmaskError(
                f"{task.photo.name}: to draw its result takes up to {max(steps) / MB:.0f} MB, and this service has "
                f"{self.limits.work_mb} MB; choose png as its format, or reduce the photo, the canvas or the background"
            )
        return max(steps)

    def _draw(self, task: PhotoTask, fitted: Fitted, raw: Raw) -> tuple[bytes, Result]:
        """The bytes that `carmask predict` writes for the same photo with the same options, or a description."""
        form, photo = task.form, task.photo
        threshold = form.threshold or self.segmenter.threshold
        if task.mask is None:
            probability_HW = form.regions().keep(self.segmenter.restore(fitted, raw), threshold)
            found = self.segmenter.result(probability_HW, threshold=threshold, remark=fitted.remark)
        else:
            # No network is asked, so there is no expected Dice.
            probability_HW = form.regions().keep(self._read_mask(task.mask, fitted), threshold)
            found = Result(probability_HW, threshold, remark=fitted.remark)
        if task.media_type == JSON:
            seconds = time.perf_counter() - task.arrived_s
            return json_body(found, self.segmenter.name, seconds=seconds, request_id=task.request_id), found
        background = form.parsed_background()
        if task.background is not None:
            background = picture_background(self._decode_upload(task.background))
        render = make_render(form.style(task.media_type), Path(), of_one=True, background=background)
        return render(Job(0, photo.name, Path(photo.name), photo.data, Path(photo.name), ""), found), found

    def _read_mask(self, mask: UploadedFile, fitted: Fitted) -> NDArray[np.float32]:
        level_HW = self._decode_upload(mask, channels=1).image_HWC[..., 0]
        if level_HW.shape != fitted.size_HW:
            sizes = f"the mask is {size_text(level_HW.shape)}, the photo {size_text(fitted.size_HW)}"
            raise CarmaskError(f"{mask.name}: {sizes}; send a mask of the photo's size")
        return np.divide(level_HW, 255, dtype=np.float32)

    def _decode_upload(self, file: UploadedFile, channels: int = 3) -> Photo:
        return decode_photo(file.data, channels=channels, max_pixels=self.limits.max_pixels, name=file.name)

    def _decoding_bytes(self, file: UploadedFile) -> int:
        """Return the most memory that decoding a picture takes, from its header, and refuse what takes more than all.

        Only a TIFF of large numbers can.
        """
        size_bytes = decoding_bytes(file.data, max_pixels=self.limits.max_pixels, name=file.name)
        if size_bytes - len(file.data) > self.limits.work_mb * MB:
            cause = f"decoding it takes {size_bytes / MB:.0f} MB, and this service has {self.limits.work_mb} MB"
            raise UnreadableImage(file.name, cause, "convert it to 8 or 16 bits a channel, or reduce it")
        return size_bytes


def _release(drawing: "Future[ResultResponse]") -> None:
    """Free the memory of a result that nobody waits for."""
    if not drawing.cancelled() and drawing.exception() is None:
        drawing.result().release()
