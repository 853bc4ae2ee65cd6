"""Supervisely's projects: meta.json with the classes, and ann/NAME.json beside img/NAME in each data set."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, FiniteFloat

from carmask.labels.shapes import (
    LabeledShape,
    LabelError,
    PhotoLabels,
    Pixels,
    box,
    draw_picture,
    draw_through_pixels,
    from_base64,
    named_errors,
    validate,
)

Ring = list[tuple[FiniteFloat, FiniteFloat]]


class _Size(BaseModel):
    height: Pixels
    width: Pixels


class _RingPoints(BaseModel):
    exterior: Ring = []
    interior: list[Ring] = []


class _Bitmap(BaseModel):
    data: str
    origin: tuple[int, int]


class _Figure(BaseModel):
    classTitle: str
    geometryType: str
    points: _RingPoints = _RingPoints()
    bitmap: _Bitmap | None = None


class _Annotations(BaseModel):
    size: _Size
    objects: list[_Figure]


class _Class(BaseModel):
    title: str


class _Meta(BaseModel):
    classes: list[_Class]


def read_classes(path: Path, document: Any) -> frozenset[str]:
    """Read the classes that meta.json declares."""
    return frozenset(one.title for one in validate(_Meta, document, path).classes)


def read_supervisely(path: Path, document: Any, digest: str) -> PhotoLabels:
    """Read the file of one photo. Polygons and bitmaps are shapes, rectangles boxes; lines and points are left out.

    Raises:
        LabelError: names the place and the cause.
    """
    found = validate(_Annotations, document, path)
    shapes = []
    for number, figure in enumerate(found.objects):
        with named_errors(f"{path}: objects.{number}, {figure.classTitle}"):
            shapes += _read_figure(figure)
    name = f"{path.parent.parent.name}/img/{path.stem}"
    return PhotoLabels(path, name, "Supervisely", digest, (found.size.height, found.size.width), tuple(shapes))


def _read_figure(figure: _Figure) -> list[LabeledShape]:
    label = figure.classTitle
    rings_xy = tuple(
        np.array(ring, np.float64).reshape(-1, 2) for ring in (figure.points.exterior, *figure.points.interior)
    )
    match figure.geometryType:
        case "polygon":
            if min(map(len, rings_xy)) < 3:
                raise LabelError("a polygon of fewer than three points")
            return [LabeledShape(label, partial(draw_through_pixels, rings_xy))]
        case "bitmap" if figure.bitmap:
            data = from_base64(figure.bitmap.data, packed=True)
            return [LabeledShape(label, partial(draw_picture, data, figure.bitmap.origin, "A"))]
        case "rectangle" if len(rings_xy[0]) >= 2:
            left, top = rings_xy[0].min(axis=0).tolist()
            right, bottom = (rings_xy[0].max(axis=0) + 1).tolist()
            return [box(label, left, top, right, bottom)]
        case "line" | "polyline" | "point" | "graph":
            return []
        case other:
            raise LabelError(f"a figure of type {other!r}, which cannot be read")
