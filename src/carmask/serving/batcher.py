"""Micro-batching: photos that wait a few milliseconds run through the networks together, in one thread."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from carmask.segmenter import Fitted, Raw


@dataclass(frozen=True, eq=False)
class _QueuedPhoto:
    fitted: Fitted
    deadline_s: float
    done: "asyncio.Future[Raw]"

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return tuple(view.image_HWC.shape for view in self.fitted.views)


class Batcher:
    """Collects photos for a few milliseconds and runs them as one batch.

    A batch holds the oldest photo and others with canvases of the same shape; the rest stay in the queue in order.
    Photos cancelled while they wait are dropped. Photos that arrive while the network runs form the next batch, so the
    wait adds latency only when the service is nearly idle.
    """

    def __init__(self, infer: Callable[[Sequence[Fitted]], list[Raw]], *, batch_size: int, wait_s: float) -> None:
        """Prepare the thread; `infer` runs in no other. wait_s: how long a photo waits for others."""
        self._infer = infer
        self._batch_size = batch_size
        self._wait_s = wait_s
        self._queue: list[_QueuedPhoto] = []
        self._arrived = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "network")

    @property
    def waiting(self) -> int:
        """How many photos wait."""
        return len(self._queue)

    async def infer(self, fitted: Fitted) -> Raw:
        """Run the networks on one photo, in a batch with others."""
        loop = asyncio.get_running_loop()
        photo = _QueuedPhoto(fitted, loop.time() + self._wait_s, loop.create_future())
        self._queue.append(photo)
        self._arrived.set()
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run_queue())
        return await photo.done

    def close(self) -> None:
        """Wait for the batch that runs, and end the thread."""
        self._thread.shutdown()

    async def _run_queue(self) -> None:
        """Run batches until no photo waits."""
        while batch := await self._next_batch():
            fitted = [photo.fitted for photo in batch]
            try:
                raws = await asyncio.get_running_loop().run_in_executor(self._thread, self._infer, fitted)
            except Exception as error:  # noqa: BLE001 - raised where the photos are awaited
                for photo in batch:
                    if not photo.done.done():
                        photo.done.set_exception(error)
                continue
            for photo, raw in zip(batch, raws, strict=True):
                if not photo.done.done():
                    photo.done.set_result(raw)

    async def _next_batch(self) -> list[_QueuedPhoto]:
        if self._queue:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._queue[0].deadline_s):
                    while len(self._same_shape()) < self._batch_size:
                        self._arrived.clear()
                        await self._arrived.wait()
        batch = self._same_shape()
        self._queue = [photo for photo in self._queue if photo not in batch]
        return batch

    def _same_shape(self) -> list[_QueuedPhoto]:
        """The oldest photo and others like it, at most a batch."""
        self._queue = [photo for photo in self._queue if not photo.done.done()]
        return [photo for photo in self._queue if photo.shapes == self._queue[0].shapes][: self._batch_size]
