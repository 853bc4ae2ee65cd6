"""All on which a mask depends, in a few words: results of another recipe are not taken for done."""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from carmask import __version__
from carmask.pipeline.regions import Regions
from carmask.runtime.load import files_of
from carmask.segmenter import Segmenter


def recipe_of(segmenter: Segmenter, regions: Regions) -> dict[str, Any]:
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
