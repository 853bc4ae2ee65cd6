"""The one thread that runs the networks, and the photos that wait for it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from carmask.segmenter import Fitted, Raw

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class _Waiting:
    fitted: Fitted
    since_s: float
    done: "Future[Raw]" = field(default_factory=Future)

    @property
    def shapes(self) -> Shapes:
        return tuple(view.image_HWC.shape for view in self.fitted.views)


class Batcher:
    """Collects photos for a few milliseconds and runs them together.

    Only photos whose canvases are alike share a batch, the one that came first deciding; the others keep their places.
    What is cancelled while it waits is dropped. Photos that come while the network is at work are collected meanwhile,
    so that the wait costs time only when little is asked of the service.
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
            infer: Runs the networks on some photos; it is called by one thread only.
            batch_size: Photos that run together at most.
            wait_s: How long a photo waits for others.
            on_batch: Is told of each batch: how many photos, and how long they took in seconds.

        """
        self._infer = infer
        self._batch_size = batch_size
        self._wait_s = wait_s
        self._on_batch = on_batch
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many photos wait."""
        return len(self._waiting)

    def submit(self, fitted: Fitted) -> "Future[Raw]":
        """Let a photo wait for its turn."""
        item = _Waiting(fitted, time.perf_counter())
        with self._changed:
            if self._is_closing:
                raise RuntimeError("photos are no longer taken")
            self._waiting.append(item)
            self._changed.notify()
        return item.done

    def close(self) -> None:
        """Finish what waits, and end the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            running = [item for item in batch if item.done.set_running_or_notify_cancel()]
            if running:
                self._run(running)

    def _run(self, batch: Sequence[_Waiting]) -> None:
        started_s = time.perf_counter()
        try:
            raws = self._infer([item.fitted for item in batch])
        except Exception as error:  # noqa: BLE001 - whoever waits for the photos gets it
            for item in batch:
                item.done.set_exception(error)
            return
        self._on_batch(len(batch), time.perf_counter() - started_s)
        for item, raw in zip(batch, raws, strict=True):
            item.done.set_result(raw)

    def _next_batch(self) -> list[_Waiting]:
        """Photos to run together; none when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            if not self._waiting:
                return []
            first = self._waiting[0]
            left_s = first.since_s + self._wait_s - time.perf_counter()
            if left_s > 0 and self._batch_size > 1:
                self._changed.wait_for(lambda: len(self._alike(first)) == self._batch_size or self._is_closing, left_s)
            batch = self._alike(first)
            for item in batch:
                self._waiting.remove(item)
            return batch

    def _alike(self, first: _Waiting) -> list[_Waiting]:
        alike = [item for item in self._waiting if item.shapes == first.shapes]
        return alike[: self._batch_size]
