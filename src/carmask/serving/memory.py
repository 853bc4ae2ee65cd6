"""Accounts of memory: how many bytes may be in use at a time."""

import threading
from collections import deque
from types import TracebackType
from typing import Self


class Memory:
    """A number of bytes that requests share. May be used from any thread."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def used_bytes(self) -> int:
        """How many bytes are taken."""
        return self._used_bytes

    def take(self, size_bytes: int) -> bool:
        """Take so many bytes if they are there now; they have to be given back."""
        with self._changed:
            is_there = self._used_bytes + size_bytes <= self._limit_bytes
            if is_there:
                self._used_bytes += size_bytes
            return is_there

    def give_back(self, size_bytes: int) -> None:
        """Give back what was taken, or a part of it."""
        with self._changed:
            self._used_bytes -= size_bytes
            self._changed.notify_all()

    def wait_for(self, size_bytes: int) -> "Share":
        """Take so many bytes as soon as they are there, in the order of asking.

        Who asks for more than there ever is gets all of it.
        """
        size_bytes = min(size_bytes, self._limit_bytes)
        turn = object()
        with self._changed:
            self._line.append(turn)
            self._changed.wait_for(lambda: self._line[0] is turn and self._used_bytes + size_bytes <= self._limit_bytes)
            self._line.popleft()
            self._used_bytes += size_bytes
            self._changed.notify_all()
        return Share(self, size_bytes)


class Share:
    """Bytes that were taken from an account."""

    def __init__(self, memory: Memory, size_bytes: int) -> None:
        self._memory = memory
        self._size_bytes = size_bytes

    def shrink(self, size_bytes: int) -> None:
        """Keep no more than so many bytes."""
        kept_bytes = min(size_bytes, self._size_bytes)
        self._memory.give_back(self._size_bytes - kept_bytes)
        self._size_bytes = kept_bytes

    def close(self) -> None:
        """Give back what is left."""
        self.shrink(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
