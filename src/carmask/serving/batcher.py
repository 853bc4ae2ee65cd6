"""Micro-batching: one thread that runs the networks on the photos that wait."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from carmask.segmenter import Fitted, Raw

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class _QueuedPhoto:
    fitted: Fitted
    since_s: float
    done: "Future[Raw]" = field(default_factory=Future)

    @property
    def shapes(self) -> Shapes:
        return tuple(view.image_HWC.shape for view in self.fitted.views)


class Batcher:
    """Collects photos for a few milliseconds and runs them as one batch.

    A batch holds the oldest photo and others with canvases of the same shape; the rest stay in the queue in order.
    Photos cancelled while they wait are dropped. Photos that arrive while the network runs form the next batch, so the
    wait adds latency only when the service is nearly idle.
    """

    def __init__(
        self,
        infer: Callable[[Sequence[Fitted]], list[Raw]],
        *,
        batch_size: int,
        wait_s: float,
        on_batch: Callable[[int, float], None],
    ) -> None:
        """Start the thread.

        Args:
            infer: Runs the networks on some photos; called in one thread only.
            batch_size: Most photos in a batch.
            wait_s: How long a photo waits for others.
            on_batch: Called after each batch with its number of photos and its time in seconds.

        """
        self._infer = infer
        self._batch_size = batch_size
        self._wait_s = wait_s
        self._on_batch = on_batch
        self._waiting: deque[_QueuedPhoto] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many photos wait."""
        return len(self._waiting)

    def submit(self, fitted: Fitted) -> "Future[Raw]":
        """Queue a photo."""
        item = _QueuedPhoto(fitted, time.perf_counter())
        with self._changed:
            if self._is_closing:
                raise RuntimeError("the batcher is closed")
            self._waiting.append(item)
            self._changed.notify()
        return item.done

    def close(self) -> None:
        """Run what is queued, and end the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            running = [item for item in batch if item.done.set_running_or_notify_cancel()]
            if running:
                self._run(running)

    def _run(self, batch: Sequence[_QueuedPhoto]) -> None:
        started_s = time.perf_counter()
        try:
            raws = self._infer([item.fitted for item in batch])
        except Exception as error:  # noqa: BLE001 - raised where the photos are awaited
            for item in batch:
                item.done.set_exception(error)
            return
        self._on_batch(len(batch), time.perf_counter() - started_s)
        for item, raw in zip(batch, raws, strict=True):
            item.done.set_result(raw)

    def _next_batch(self) -> list[_QueuedPhoto]:
        """The next batch; empty when the batcher is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            if not self._waiting:
                return []
            first = self._waiting[0]
            left_s = first.since_s + self._wait_s - time.perf_counter()
            if left_s > 0 and self._batch_size > 1:
                self._changed.wait_for(
                    lambda: len(self._same_shape(first)) == self._batch_size or self._is_closing, left_s
                )
            batch = self._same_shape(first)
            for item in batch:
                self._waiting.remove(item)
            return batch

    def _same_shape(self, first: _QueuedPhoto) -> list[_QueuedPhoto]:
        same = [item for item in self._waiting if item.shapes == first.shapes]
        return same[: self._batch_size]
