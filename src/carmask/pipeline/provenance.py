"""What the results of a run depend on besides the photos: its networks and settings."""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from carmask import __version__
from carmask.imaging.look import PLAIN_LOOK
from carmask.imaging.masks import Regions
from carmask.pipeline.jobs import BadDestination
from carmask.pipeline.urls import URL
from carmask.runtime.locate import files_of
from carmask.segmenter import Segmenter

# All settings that results depend on, as JSON can hold them: results of another provenance are not valid.
Provenance = Mapping[str, Any]


def provenance_of(segmenter: Segmenter, regions: Regions) -> dict[str, Any]:
    """Return the networks by name and digest, how they run, and how their probabilities are processed."""
    members = segmenter.networks
    return {
        "carmask": __version__,
        "model": " + ".join(f"{member.card.name} {_digest(member.place)}" for member in members),
        "engine": _each(member.engine.name for member in members),
        "device": _each(member.engine.device.partition(":")[0] for member in members),
        "precision": _each(member.engine.precision for member in members),
        "tta": segmenter.tta,
        "tile": segmenter.tile,
        "threshold": segmenter.threshold,
        "vehicles": regions.vehicles,
        "min-area": str(regions.min_area),
    }


def differences(earlier: Provenance, now: Provenance) -> str:
    """Name the settings in which two provenances differ. Settings of looks that one lacks have their defaults there."""
    defaults = PLAIN_LOOK.model_dump()
    there, here = {**defaults, **earlier}, {**defaults, **now}
    keys = [key for key in {**earlier, **now} if there.get(key) != here.get(key)]
    return "; ".join(f"{key}: {_shown(there.get(key))} there, {_shown(here.get(key))} now" for key in keys)


def other_provenance(path: Path | URL, earlier: Provenance | None, now: Provenance) -> BadDestination:
    """Return the error to raise where results of two provenances would be mixed; it names what differs."""
    how = f"were made with other settings ({differences(earlier, now)})" if earlier else "have a damaged journal"
    return BadDestination(f"{path}: the results in it {how}; use --overwrite to replace them, or another destination")


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
