"""How many threads work on photos beside the network."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2

from carmask.limits import usable_cpus

_MOST_WORKERS = 16


def default_workers() -> int:
    """One thread for each processor that this process may use, but at least two."""
    return min(max(2, usable_cpus()), _MOST_WORKERS)


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Keep OpenCV from starting threads of its own: every core has work already, and they would wait for each other.

    On a machine that other programs use too that cost most of the speed.
    """
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
