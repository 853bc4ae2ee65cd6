"""What a result shows: from a photo and its mask to pixels, and to the bytes of a file."""

import json
import os
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.imaging.decode import Photo, decode_photo
from carmask.imaging.draw import draw_compare, draw_overlay
from carmask.imaging.encode import encode_mask, encode_picture, encode_soft
from carmask.imaging.geometry import size_text
from carmask.imaging.metadata import NO_METADATA, read_metadata
from carmask.pipeline.jobs import Job
from carmask.pipeline.kinds import OF_FILE, OF_PHOTO, OutputStyle
from carmask.pipeline.urls import URL
from carmask.result import Result

if TYPE_CHECKING:
    # It builds tables, which only cut-outs need.
    from carmask.imaging.background import Background

# From a photo and its result to the bytes of a file; runs in any thread.
Render = Callable[[Job, Result], bytes]


def load_background(style: OutputStyle) -> "Background | None":
    """Return the background of a cut-out; None for other kinds.

    Raises:
        CarmaskError: there is no such background.
    """
    if style.kind != "cutout":
        return None
    from carmask.imaging.background import parse_background

    return parse_background(style.look.background)


def draw(
    style: OutputStyle,
    image_HWC: NDArray[np.uint8],
    found: Result,
    background: "Background | None" = None,
    photo: Photo | None = None,
    extent_HW: tuple[int, int] | None = None,
) -> NDArray[np.uint8]:
    """Draw what a kind of pictures shows of one photo; in any thread.

    Args:
        style: Any kind of pictures.
        image_HWC: uint8 RGB, of the mask's size.
        found: The mask.
        background: Of cut-outs, from `load_background`.
        photo: With the color profile and the opacity of `image_HWC`, if there may be any.
        extent_HW: Of photos that are to have one scale; see `carmask.imaging.placed_layer.place_vehicle`.

    Returns:
        uint8 pixels (height, width, channels): 1 channel (gray) for mask and soft, 4 (RGBA) for transparent cut-outs,
        otherwise 3 (RGB).
    """
    if style.kind == "mask":
        return (found.mask.view(np.uint8) * np.uint8(255))[..., None]
    if style.kind == "soft":
        level_HW: NDArray[np.uint8] = cv2.convertScaleAbs(found.probability, alpha=255)
        return level_HW[..., None]
    if style.kind == "overlay":
        return draw_overlay(image_HWC, found.mask, photo.icc_profile if photo else None)
    if style.kind == "compare":
        return draw_compare(image_HWC, found.mask)
    from carmask.imaging.compose import compose

    assert background is not None, "a cut-out needs a background"
    photo = photo or Photo(image_HWC, image_HWC.shape[:2])
    return compose(
        photo,
        found.probability,
        found.box_px,
        style.look,
        background,
        threshold=found.threshold,
        extent_HW=extent_HW,
    )


def make_render(
    style: OutputStyle, destination: Path | URL, *, of_one: bool, background: "Background | None" = None
) -> Render:
    """Return the function that makes the bytes of a result.

    `destination` is the folder of the results or, with `of_one`, the file of the only one. `background` replaces the
    one that `style` names.

    Raises:
        CarmaskError: there is no such background.
    """
    return partial(_render, style, background or load_background(style), destination, of_one)


def describe_style(style: OutputStyle) -> dict[str, Any]:
    """Return all that the bytes of a result depend on, for JSON; a background picture by its digest."""
    described: dict[str, Any] = {"kind": style.kind}
    if style.kind not in OF_PHOTO:
        return described
    settings = style.look.described()
    if style.kind != "cutout":
        return described | {name: settings[name] for name in OF_FILE if name in settings}
    picture = Path(style.look.background)
    if picture.is_file():
        settings["background"] = f"picture {sha256(picture.read_bytes()).hexdigest()[:16]}"
    return described | settings


def _render(
    style: OutputStyle, background: "Background | None", destination: Path | URL, of_one: bool, job: Job, found: Result
) -> bytes:
    if style.kind == "mask":
        return encode_mask(found.mask)
    if style.kind == "soft":
        return encode_soft(found.probability)
    if style.kind == "polygons":
        from carmask.imaging.polygons import find_polygons, geojson

        return _to_json(geojson(find_polygons(found.mask), found.mask.shape, job.name))
    if style.kind == "labelme":
        from carmask.labels.labelme import labelme

        assert isinstance(job.photo, Path) and isinstance(destination, Path), "the plan refuses others"  # noqa: PT018
        result = destination if of_one else destination / job.result
        return _to_json(labelme(found.mask, PurePath(os.path.relpath(job.photo, result.parent)).as_posix()))
    if style.kind == "yolo":
        from carmask.labels.yolo import yolo_text

        return yolo_text(found.mask).encode()
    photo = _decode_full_size(job, found)
    image_HWC = draw(style, photo.image_HWC, found, background, photo, job.extent_HW)
    look = style.look
    metadata = NO_METADATA if look.strip else read_metadata(job.read(), name=str(job.photo))
    try:
        return encode_picture(image_HWC, look.format, photo.icc_profile, quality=look.quality, metadata=metadata)
    except CarmaskError as error:
        raise CarmaskError(f"{job.photo}: {error}") from error


def _decode_full_size(job: Job, found: Result) -> Photo:
    """Decode the photo again: the networks may have seen it smaller."""
    photo = decode_photo(job.read(), name=str(job.photo))
    if photo.size_HW != found.mask.shape:
        sizes = f"is {size_text(found.mask.shape)}, its photo {size_text(photo.size_HW)}"
        raise CarmaskError(f"{job.origin}: {sizes}; replace one of them")
    return photo


def _to_json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode() + b"\n"
