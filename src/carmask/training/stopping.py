"""When a run stops: by Ctrl-C, by SIGTERM, because its time is over, or because it cannot go on."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from carmask.errors import CarmaskError


class TrainingError(CarmaskError):
    """Training cannot go on."""


class StopRequest:
    """Asked after each step. The first signal asks to stop after the step; a second one stops at once."""

    def __init__(self, max_minutes: float | None = None) -> None:
        self.has_deadline = max_minutes is not None
        self._deadline_s = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self.is_signaled = False

    def is_time_over(self) -> bool:
        """Whether `max_minutes` have passed."""
        return self._deadline_s is not None and time.monotonic() >= self._deadline_s

    def minutes_left(self) -> float | None:
        """Return the rest of `max_minutes`, negative if they have passed; None if there is no limit."""
        return None if self._deadline_s is None else (self._deadline_s - time.monotonic()) / 60

    def is_set(self) -> bool:
        """Whether to stop after this step."""
        return self.is_signaled or self.is_time_over()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM set this while inside."""
        previous = {}
        # Only the main thread may set handlers; in a notebook's worker thread the host handles signals.
        if threading.current_thread() is threading.main_thread():
            previous = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.is_signaled:
            raise KeyboardInterrupt
        self.is_signaled = True
