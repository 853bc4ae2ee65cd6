"""What a video is to show of each frame."""

from dataclasses import dataclass
from typing import Literal

from carmask.pipeline.video.pyav import BadVideoOutput

VideoKind = Literal["overlay", "cutout", "mask", "soft"]

TRANSPARENT = "transparent"


@dataclass(frozen=True)
class Look:
    """A kind of result, with the background of a cutout as `parse_background` takes it."""

    kind: VideoKind
    background: str = TRANSPARENT

    @property
    def is_transparent(self) -> bool:
        """Whether the result has an alpha channel."""
        return self.kind == "cutout" and self.background == TRANSPARENT


def choose_look(kind: VideoKind | None, background: str | None) -> Look:
    """Return the kind that is asked for, or that is meant: a cutout where there is a background, else an overlay.

    Raises:
        BadVideoOutput: a background is given for what has none.

    """
    if background is None:
        return Look(kind or "overlay")
    if kind not in (None, "cutout"):
        raise BadVideoOutput(f"--background {background}: is for --kind cutout; {kind} shows no background")
    return Look("cutout", background.strip())
