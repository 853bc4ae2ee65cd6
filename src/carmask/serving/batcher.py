"""Micro-batching: photos that wait a few milliseconds run through the networks together, in one thread."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, Queue

from carmask.segmenter import Fitted, Raw


class Batcher:
    """Collects photos for a few milliseconds and runs them as one batch, in the order in which they came.

    Photos cancelled while they wait are dropped. Photos that arrive while the network runs form the next batch, so the
    wait adds latency only when the service is nearly idle.
    """

    def __init__(self, infer: Callable[[Sequence[Fitted]], list[Raw]], *, batch_size: int, wait_s: float) -> None:
        """Prepare the thread; `infer` runs in no other. wait_s: how long a photo waits for others."""
        self._infer = infer
        self._batch_size = batch_size
        self._wait_s = wait_s
        # A photo, until when it waits for others, and what was found in it.
        self._queue: Queue[tuple[Fitted, float, Future[Raw]]] = Queue()
        self._thread = ThreadPoolExecutor(1, "network")

    @property
    def waiting(self) -> int:
        """How many photos wait."""
        return self._queue.qsize()

    async def infer(self, fitted: Fitted) -> Raw:
        """Run the networks on one photo, in a batch with others."""
        done: Future[Raw] = Future()
        self._queue.put((fitted, time.monotonic() + self._wait_s, done))
        self._thread.submit(self._run_batch)
        return await asyncio.wrap_future(done)

    def close(self) -> None:
        """Wait for the batch that runs, and end the thread."""
        self._thread.shutdown()

    def _run_batch(self) -> None:
        """Run the oldest photos. Called once for each photo, so it often finds that an earlier batch had them all."""
        batch: list[tuple[Fitted, Future[Raw]]] = []
        until_s = 0.0
        with suppress(Empty):
            while len(batch) < self._batch_size:
                fitted, deadline_s, done = self._queue.get(timeout=max(0.0, until_s - time.monotonic()))
                if done.set_running_or_notify_cancel():
                    batch.append((fitted, done))
                    until_s = until_s or deadline_s
        if not batch:
            return
        try:
            raws = self._infer([fitted for fitted, _ in batch])
        except Exception as error:  # noqa: BLE001 - raised where the photos are awaited
            for _, done in batch:
                done.set_exception(error)
        else:
            for (_, done), raw in zip(batch, raws, strict=True):
                done.set_result(raw)
