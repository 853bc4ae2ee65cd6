"""From what was found in a photo to the bytes of its own result."""

import json
import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.imaging import PictureFormat
from carmask.imaging.decode import Photo, decode_photo
from carmask.imaging.draw import draw_compare, draw_overlay
from carmask.imaging.encode import encode_mask, encode_picture, encode_soft
from carmask.pipeline.jobs import Job
from carmask.pipeline.kinds import OF_PHOTO, PhotoKind
from carmask.pipeline.sinks import Render
from carmask.result import Result

if TYPE_CHECKING:
    # Its tables take a while to make, which only cut-outs wait for.
    from carmask.imaging.background import Background

_WEBP_MOST_PX = 16383


@dataclass(frozen=True)
class OutputStyle:
    """What results style like, where their kind leaves that open."""

    kind: PhotoKind
    picture_format: PictureFormat = "png"
    background: str = "transparent"
    crop: bool = False

    def __post_init__(self) -> None:
        if self.kind != "cutout":
            for option, given in (("--background", self.background != "transparent"), ("--crop", self.crop)):
                if given:
                    raise CarmaskError(f"{option}: is for --kind cutout, not {self.kind}")

    def describe(self) -> dict[str, Any]:
        """All on which the bytes of a result depend, as JSON can hold it; a background picture by its digest."""
        described: dict[str, Any] = {"kind": self.kind}
        if self.kind in OF_PHOTO:
            described["format"] = self.picture_format
        if self.kind == "cutout":
            picture = Path(self.background)
            digest = f"picture {sha256(picture.read_bytes()).hexdigest()[:16]}" if picture.is_file() else None
            described |= {"background": digest or self.background, "crop": self.crop}
        return described


def make_render(
    style: OutputStyle, destination: Path, *, of_one: bool, background: "Background | None" = None
) -> Render:
    """Return what draws results. `destination` is the folder that they go to, or the file of one result.

    `background` goes before what the style says of it.

    Raises:
        CarmaskError: there is no such background.

    """
    if style.kind == "mask":
        return lambda _, found: encode_mask(found.mask)
    if style.kind == "soft":
        return lambda _, found: encode_soft(found.probability)
    if style.kind == "cutout":
        return _cutouts(style, background)
    if style.kind == "polygons":
        return _geojson
    if style.kind == "labelme":
        return lambda job, found: _labelme(job, found, destination if of_one else destination / job.result)
    return _drawings(style)


def _drawings(style: OutputStyle) -> Render:
    draw = draw_overlay if style.kind == "overlay" else draw_compare

    def render(job: Job, found: Result) -> bytes:
        photo = _whole_photo(job, found)
        return _encode(job, draw(photo.image_HWC, found.mask), style.picture_format, photo.icc_profile)

    return render


def _cutouts(style: OutputStyle, given: "Background | None") -> Render:
    from carmask.imaging.background import parse_background
    from carmask.imaging.cutout import cut_out

    background = parse_background(style.background) if given is None else given

    def render(job: Job, found: Result) -> bytes:
        photo = _whole_photo(job, found)
        crop_px = found.box_px if style.crop else None
        image_HWC = cut_out(photo.image_HWC, found.probability, background, crop_px=crop_px, threshold=found.threshold)
        return _encode(job, image_HWC, style.picture_format, photo.icc_profile)

    return render


def _geojson(job: Job, found: Result) -> bytes:
    from carmask.imaging.polygons import find_polygons, geojson

    return _json(geojson(find_polygons(found.mask), found.mask.shape, job.name))


def _labelme(job: Job, found: Result, result: Path) -> bytes:
    from carmask.imaging.labelme import labelme

    assert isinstance(job.photo, Path), "refused when the run was planned"
    to_photo = PurePath(os.path.relpath(job.photo, result.parent)).as_posix()
    return _json(labelme(found.mask, to_photo))


def _whole_photo(job: Job, found: Result) -> Photo:
    """The photo at its full size, which the networks did not need."""
    photo = decode_photo(job.read(), name=str(job.photo))
    if photo.size_HW != found.mask.shape:
        (height, width), (mask_height, mask_width) = photo.size_HW, found.mask.shape
        raise CarmaskError(
            f"{job.origin}: is {mask_height} x {mask_width} px, its photo {height} x {width} px; replace one of them"
        )
    return photo


def _encode(job: Job, image_HWC: NDArray[np.uint8], picture_format: PictureFormat, icc_profile: bytes | None) -> bytes:
    if picture_format == "webp" and max(image_HWC.shape) > _WEBP_MOST_PX:
        height, width = image_HWC.shape[:2]
        raise CarmaskError(
            f"{job.photo}: its result is {height} x {width} px, and WebP has at most {_WEBP_MOST_PX} a side; choose png"
        )
    return encode_picture(image_HWC, picture_format, icc_profile)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode() + b"\n"
