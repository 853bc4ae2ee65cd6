"""What an earlier run noted of a result, and whether that still holds."""

import os
import stat
import time
from pathlib import Path

from carmask.pipeline.addresses import Address
from carmask.pipeline.jobs import BadDestination, Job
from carmask.pipeline.journal import Entry, Recipe, differences
from carmask.pipeline.outcome import Extent


def account(job: Job, extent: Extent) -> Entry:
    """Note of a result what it was made from and what was found."""
    return {
        "origin_bytes": _size_bytes(job),
        "coverage": extent.coverage,
        "box_px": extent.box_px,
    }


def is_unchanged(origin: Path | Address, size_bytes: int, since_ns: int) -> bool:
    """Whether a photo is still what it was then. Of one that is gone nobody knows, so its result is left in peace.

    At an address nobody looks: asking a store about each photo takes longer than the network.
    """
    status = stat_file(origin) if isinstance(origin, Path) else None
    if status is None:
        return True
    # Cameras whose clock is wrong date photos into the future.
    return status.st_size == size_bytes and (status.st_mtime_ns <= since_ns or status.st_mtime > time.time())


def stat_file(path: Path) -> os.stat_result | None:
    """What the system says of a plain file; nothing of what is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def refuse_recipe(path: Path, then: Recipe | None, now: Recipe) -> None:
    """Refuse to mix results; says in which settings they differ.

    Raises:
        BadDestination: always.

    """
    how = f"were made otherwise ({differences(then, now)})" if then else "have a damaged record"
    raise BadDestination(
        f"{path}: results that are there {how}; give --overwrite to make them anew, or another name for these"
    )


def _size_bytes(job: Job) -> int:
    if isinstance(job.origin, Address):
        return len(job.picture) if isinstance(job.picture, bytes) else 0
    status = stat_file(job.origin)
    return status.st_size if status else 0
