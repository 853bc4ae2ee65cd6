"""What became of one photo, in a few numbers."""

from dataclasses import dataclass
from typing import Any

from carmask.imaging.masks import Box
from carmask.pipeline.jobs import Job
from carmask.result import Result


@dataclass(frozen=True)
class Extent:
    """Where the vehicle is. box_px: top, left, bottom, right, or None where there is none. coverage: share, 0..1."""

    box_px: Box | None = None
    coverage: float = 0.0

    @classmethod
    def of(cls, found: Result) -> "Extent":
        """Measure a mask."""
        return cls(found.box_px, round(found.coverage, 6))


@dataclass(frozen=True)
class Outcome:
    """What became of one photo.

    cause: why there is no result, or None. row: what a table has to say of it. seconds: computing time of this photo.
    """

    job: Job
    cause: str | None = None
    row: Any = None
    extent: Extent = Extent()
    seconds: float = 0.0
