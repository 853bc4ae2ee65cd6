"""How results were made, and whether those of an earlier run still hold."""

import os
import stat
import time
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from carmask import __version__
from carmask.imaging.masks import Regions
from carmask.pipeline.jobs import BadDestination, Extent, Job
from carmask.pipeline.journal import Entry, Provenance, differences
from carmask.pipeline.urls import URL
from carmask.runtime.load import files_of
from carmask.segmenter import Segmenter


def provenance_of(segmenter: Segmenter, regions: Regions) -> dict[str, Any]:
    """Return the networks by name and digest, how they run, and what is done with their probabilities."""
    members = segmenter.members
    return {
        "carmask": __version__,
        "model": " + ".join(f"{member.card.name} {_digest(member.place)}" for member in members),
        "engine": _each(member.engine.name for member in members),
        "device": _each(member.engine.device.partition(":")[0] for member in members),
        "precision": _each(member.engine.precision for member in members),
        "tta": segmenter.tta,
        "tile": segmenter.tile,
        "threshold": segmenter.threshold,
        "keep-largest": regions.largest_only,
        "min-area": str(regions.min_area),
    }


def _each(words: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(words))


def _digest(place: Path) -> str:
    """The first digits of the SHA-256 of a model's file, or of a folder's weights."""
    digest = sha256()
    for path in files_of(place):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def account(job: Job, extent: Extent) -> Entry:
    """Note of a result what it was made from and what was found."""
    return {
        "origin_bytes": _size_bytes(job),
        "coverage": extent.coverage,
        "box_px": extent.box_px,
    }


def is_unchanged(origin: Path | URL, size_bytes: int, since_ns: int) -> bool:
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


def refuse_other_provenance(path: Path, then: Provenance | None, now: Provenance) -> None:
    """Refuse to mix results; says in which settings they differ.

    Raises:
        BadDestination: always.

    """
    how = f"were made otherwise ({differences(then, now)})" if then else "have a damaged record"
    raise BadDestination(
        f"{path}: results that are there {how}; give --overwrite to make them anew, or another name for these"
    )


def _size_bytes(job: Job) -> int:
    if isinstance(job.origin, URL):
        return len(job.picture) if isinstance(job.picture, bytes) else 0
    status = stat_file(job.origin)
    return status.st_size if status else 0
