"""Memory that photos in progress share: how many bytes may be in use at the same time."""

import threading
from collections import deque


class MemoryBudget:
    """A number of bytes that photos reserve parts of. Thread-safe."""

    def __init__(self, limit_bytes: int) -> None:
        self.used_bytes = 0
        self._limit_bytes = limit_bytes
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def reserve(self, size_bytes: int) -> int:
        """Wait until the bytes are free, first come first served, and reserve them, but no more than the limit.

        Returns the number of reserved bytes, for `release`.
        """
        size_bytes = min(size_bytes, self._limit_bytes)
        turn = object()
        with self._changed:
            self._waiting.append(turn)
            self._changed.wait_for(
                lambda: self._waiting[0] is turn and self.used_bytes + size_bytes <= self._limit_bytes
            )
            self._waiting.popleft()
            self.used_bytes += size_bytes
            self._changed.notify_all()
        return size_bytes

    def release(self, size_bytes: int) -> None:
        """Free bytes that were reserved."""
        with self._changed:
            self.used_bytes -= size_bytes
            self._changed.notify_all()
