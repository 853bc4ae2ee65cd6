"""From what was found in a photo to the answer: the bytes that `carmask predict` writes, and a few facts about them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field

from carmask.imaging.background import Background, picture_background
from carmask.imaging.decode import decode_photo
from carmask.imaging.rle import encode_carvana
from carmask.pipeline.jobs import Job
from carmask.pipeline.kinds import OutputStyle
from carmask.pipeline.render import make_render
from carmask.result import Result
from carmask.serving.form import Upload
from carmask.serving.wishes import JSON, Wish

# What the headers of an answer say in short.
SIZE, BOX, COVERAGE, SECONDS = (f"X-Carmask-{fact}" for fact in ("Size", "Box", "Coverage", "Seconds"))


class Segmentation(BaseModel):
    """What was found in a photo."""

    size: tuple[int, int] = Field(description="height and width in pixels, of the photo as it is shown")
    box: tuple[int, int, int, int] | None = Field(
        description="top, left, bottom, right around the mask in pixels, bottom and right exclusive; null when no "
        "vehicle was found"
    )
    coverage: float = Field(ge=0, le=1, description="share of the photo that the mask covers")
    threshold: float = Field(gt=0, lt=1, description="from which probability on a pixel belongs to the mask")
    rle: str = Field(description="the mask as run lengths: `start length` pairs, 1-indexed, row by row")
    model: str = Field(description="the network")
    seconds: float = Field(ge=0, description="from the photo's arrival to its answer")
    request_id: str


@dataclass(frozen=True)
class Answer:
    """A body with what describes it. `release` gives back the memory that was set aside for it."""

    body: bytes
    media_type: str
    headers: Mapping[str, str]
    is_empty: bool
    release: Callable[[], None]


def draw(photo: Upload, wish: Wish, found: Result, *, max_pixels: int) -> bytes:
    """The result as the bytes of a file: what `carmask predict` writes of the same photo with the same options.

    Raises:
        CarmaskError: the photo, or the picture behind it, cannot be read, or the result cannot be encoded.

    """
    background = wish.background if wish.backdrop is None else _backdrop(wish.backdrop, max_pixels)
    style = OutputStyle(wish.kind, wish.picture_format, crop=wish.crop)
    render = make_render(style, Path(), of_one=True, background=background)
    name = Path(photo.name)
    return render(Job(0, photo.name, name, photo.data, name, ""), found)


def describe(found: Result, model: str, *, seconds: float, request_id: str) -> bytes:
    """What was found as JSON, its mask as run lengths."""
    segmentation = Segmentation(
        size=found.mask.shape,
        box=found.box_px,
        coverage=round(found.coverage, 6),
        threshold=found.threshold,
        rle=encode_carvana(found.mask),
        model=model,
        seconds=round(seconds, 4),
        request_id=request_id,
    )
    return segmentation.model_dump_json().encode()


def headers_of(found: Result, seconds: float) -> dict[str, str]:
    """Size, box, coverage and time, for whoever only looks at headers."""
    return {
        SIZE: ",".join(map(str, found.mask.shape)),
        BOX: "none" if found.box_px is None else ",".join(map(str, found.box_px)),
        COVERAGE: f"{found.coverage:.6f}",
        SECONDS: f"{seconds:.4f}",
    }


def wants_json(wish: Wish) -> bool:
    """Whether the answer is a description in place of a file."""
    return wish.media_type == JSON


def _backdrop(upload: Upload, max_pixels: int) -> Background:
    return picture_background(decode_photo(upload.data, max_pixels=max_pixels, name=upload.name).image_HWC)
