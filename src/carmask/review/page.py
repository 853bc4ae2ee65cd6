"""The review page: one HTML file with its script, its style, the outlines of the masks and small pictures inside.

The page shows each photo itself, by a link relative to the page, so that photos and results can be moved together. The
small picture inside the page is shown until the photo is loaded, and instead of it where the photo is gone or the
browser cannot show it (HEIC, TIFF).
"""

import io
import json
import math
import os
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zlib import crc32

import numpy as np
from PIL import Image

from carmask.files import UnwritableFile, as_valid_text, atomic_write
from carmask.imaging.decode import decode_photo
from carmask.imaging.polygons import Polygon, find_polygons
from carmask.pipeline.jobs import Job
from carmask.pipeline.outputs import Plan
from carmask.pipeline.urls import URL
from carmask.result import Result
from carmask.segmenter import Segmenter

# How a page of this kind begins; another file of its name is not overwritten.
_FIRST_LINE = b"<!doctype html><!-- a review page by carmask -->\n"
# What browsers show themselves.
_SHOWN_BY_BROWSERS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".avif"})
# The longer side of a small picture. With more photos than so many, those that browsers show themselves have smaller
# ones, so that all of them together stay at some 60 MB.
_LARGE_PX = 1280
_LARGE_COUNT = 300
_JPEG_QUALITY = 78
# Of the photo's longer side: an outline that is simplified this much differs by less than a pixel of a screen.
_TOLERANCE = 1 / 3000


@dataclass(frozen=True)
class ReviewItem:
    """One photo on the page.

    key: names the decision on this photo and this mask. name: as in `PhotoList.names`. photo, result: where they are,
    absolute. link, result_link: addresses relative to the page, or None. width, height: of the photo in pixels.
    outline: path of an SVG, in pixels of the photo.
    """

    key: str
    name: str
    photo: str
    result: str
    link: str | None
    result_link: str | None
    score: float
    width: int
    height: int
    outline: str


def write_page(path: Path, destination: Path, segmenter: Segmenter, items: Iterable[tuple[ReviewItem, bytes]]) -> int:
    """Write the page with these photos, each with its small picture as JPEG; returns how many there are.

    The `destination` of the results names the decisions that the browser keeps, so that they are found again when the
    page is written again or moved.

    Raises:
        UnwritableFile: the page cannot be written, or another file has its name.
    """
    refuse_foreign_page(path)
    before, after = _template().split("<!-- DATA -->")
    written: list[dict[str, Any]] = []
    with atomic_write(path) as stream:
        stream.write(_FIRST_LINE + before.encode())
        for item, preview in items:
            stream.write(_data_element(f"preview-{len(written)}", b64encode(preview).decode()))
            written.append(asdict(item))
        about = {
            "id": sha256(os.fsencode(destination.absolute())).hexdigest()[:16],
            "network": segmenter.name,
            "isCalibrated": segmenter.is_calibrated,
            "items": written,
        }
        stream.write(_data_element("review", json.dumps(about, separators=(",", ":"))))
        stream.write(after.encode())
    return len(written)


def refuse_foreign_page(path: Path) -> None:
    """Refuse to replace a file that is no review page.

    Raises:
        UnwritableFile: there is one of this name.
    """
    if path.exists():
        with path.open("rb") as stream:
            if stream.readline() == _FIRST_LINE:
                return
        raise UnwritableFile(f"{path}: is not a review page and was not changed; move it away and run again")


def draw_item(path: Path, plan: Plan, job: Job, found: Result, *, count: int) -> tuple[ReviewItem, bytes]:
    """Draw one of `count` photos of the page; returns it with its small picture as JPEG.

    Raises:
        UnreadableImage: the photo cannot be read any more.
    """
    is_shown = job.photo.suffix.lower() in _SHOWN_BY_BROWSERS
    longest_px = _LARGE_PX * math.sqrt(_LARGE_COUNT / max(_LARGE_COUNT, count)) if is_shown else _LARGE_PX
    return _item(path, plan, job, found), _preview(job, math.ceil(longest_px))


def _item(path: Path, plan: Plan, job: Job, found: Result) -> ReviewItem:
    height, width = found.mask.shape
    outline = svg_path(find_polygons(found.mask, tolerance_px=max(0.5, max(height, width) * _TOLERANCE)))
    result = plan.result_of(job)
    assert isinstance(result, Path), "the command refuses stores"
    return ReviewItem(
        key=f"{crc32(outline.encode()):08x} {as_valid_text(job.name)}",
        name=as_valid_text(job.name),
        photo=as_valid_text(job.photo.absolute() if isinstance(job.photo, Path) else job.photo),
        result=as_valid_text(result.absolute()),
        link=_link(job.photo, path.parent),
        result_link=_link(result, path.parent),
        score=round(found.score, 4),
        width=width,
        height=height,
        outline=outline,
    )


def svg_path(polygons: Sequence[Polygon]) -> str:
    """Return outlines as the path of an SVG, to be filled by the even-odd rule, to a tenth of a pixel."""
    rings = (ring_xy for polygon in polygons for ring_xy in polygon)
    return "".join(f"M{' '.join(f'{x:.5g},{y:.5g}' for x, y in ring_xy.round(1))}z" for ring_xy in rings)


def _preview(job: Job, longest_px: int) -> bytes:
    photo = decode_photo(job.read(), at_least_HW=(longest_px, longest_px), name=str(job.photo))
    image = Image.fromarray(np.ascontiguousarray(photo.image_HWC))
    image.thumbnail((longest_px, longest_px), Image.Resampling.BOX, reducing_gap=None)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_JPEG_QUALITY, icc_profile=photo.icc_profile)
    return file.getvalue()


def _link(place: Path | URL, folder: Path) -> str | None:
    """Return the address of a file relative to a folder, or None where a browser cannot follow it."""
    if isinstance(place, URL):
        return str(place) if str(place).startswith(("http://", "https://")) else None
    try:
        return quote(os.fsencode(Path(os.path.relpath(place, folder)).as_posix()))
    except ValueError:  # another drive
        return place.absolute().as_uri()


def _template() -> str:
    folder = files("carmask.review") / "static"
    html, style, script = ((folder / f"page.{suffix}").read_text(encoding="utf-8") for suffix in ("html", "css", "js"))
    return html.replace("/* STYLE */", style).replace("/* SCRIPT */", script)


def _data_element(name: str, text: str) -> bytes:
    safe = text.replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{safe}</script>\n'.encode()
