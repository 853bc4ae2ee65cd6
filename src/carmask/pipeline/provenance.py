"""How results were made, and whether those of an earlier run are still valid."""

import json
import os
import stat
import time
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from carmask import __version__
from carmask.imaging.masks import Regions
from carmask.pipeline.jobs import BadDestination, Job
from carmask.pipeline.urls import URL
from carmask.result import Result
from carmask.runtime.locate import files_of
from carmask.segmenter import Segmenter

# All settings that results depend on, as JSON can hold them: results of another provenance are not valid.
Provenance = Mapping[str, Any]


def provenance_of(segmenter: Segmenter, regions: Regions) -> dict[str, Any]:
    """Return the networks by name and digest, how they run, and how their probabilities are processed."""
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


def differences(earlier: Provenance, now: Provenance) -> str:
    """Name the settings in which two provenances differ."""
    keys = [key for key in {**earlier, **now} if earlier.get(key) != now.get(key)]
    return "; ".join(f"{key}: {_shown(earlier.get(key))} there, {_shown(now.get(key))} now" for key in keys)


def refuse_other_provenance(path: Path, earlier: Provenance | None, now: Provenance) -> None:
    """Refuse to mix results of two provenances, and name the settings that differ.

    Raises:
        BadDestination: always.

    """
    how = f"were made with other settings ({differences(earlier, now)})" if earlier else "have a damaged journal"
    raise BadDestination(f"{path}: the results in it {how}; use --overwrite to replace them, or another destination")


def journal_entry(job: Job, found: Result) -> dict[str, Any]:
    """Return what a journal says of a result: the size of the file it was made from, and what was found."""
    if isinstance(job.origin, URL):
        origin_bytes = len(job.picture) if isinstance(job.picture, bytes) else 0
    else:
        status = stat_file(job.origin)
        origin_bytes = status.st_size if status else 0
    return {"origin_bytes": origin_bytes, "coverage": round(found.coverage, 6), "box_px": found.box_px}


def is_unchanged(origin: Path | URL, size_bytes: int, since_ns: int) -> bool:
    """Whether a photo is the same as when its result was made. The result of a photo that is gone is kept.

    Photos at URLs are not checked: to ask a store about each photo takes longer than the network.
    """
    status = stat_file(origin) if isinstance(origin, Path) else None
    if status is None:
        return True
    # Cameras whose clock is wrong date photos into the future.
    return status.st_size == size_bytes and (status.st_mtime_ns <= since_ns or status.st_mtime > time.time())


def stat_file(path: Path) -> os.stat_result | None:
    """Return the status of a regular file; None for anything else."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _each(words: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(words))


def _digest(place: Path) -> str:
    """Return the first digits of the SHA-256 of a model's file, or of a folder's weights."""
    digest = sha256()
    for path in files_of(place):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _shown(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
