"""CVAT for images 1.1: an XML file with the shapes of all photos.

Polygons have no holes there, so a region with a hole is written as a mask, as CVAT's brush makes it. A mask is the box
around it and run lengths, row by row, of which the first is background.
"""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, FiniteFloat

from carmask.imaging.geometry import Size, size_text
from carmask.imaging.masks import box_of, slices
from carmask.imaging.polygons import fill_rings, find_polygons
from carmask.imaging.rle import runs_to_mask
from carmask.labels.shapes import (
    LabeledShape,
    LabelError,
    LabelFile,
    Length,
    PhotoLabels,
    Pixels,
    box,
    named_errors,
    paste,
    polygon,
    validate,
)

_HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
 <version>1.1</version>
 <meta><task><name>carmask</name><labels><label><name>vehicle</name><attributes></attributes></label></labels></task></meta>
"""

# No XML file can contain these, not even escaped (XML 1.0, 2.2).
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


class _Photo(BaseModel):
    name: str
    width: Pixels
    height: Pixels


class _Box(BaseModel):
    label: str
    xtl: FiniteFloat
    ytl: FiniteFloat
    xbr: FiniteFloat
    ybr: FiniteFloat


class _Polygon(BaseModel):
    label: str
    points: Annotated[
        list[tuple[FiniteFloat, FiniteFloat]],
        BeforeValidator(lambda text: [point.split(",") for point in text.split(";") if point]),
    ]


class _Mask(BaseModel):
    label: str
    rle: Annotated[list[Length], BeforeValidator(lambda text: text.split(","))]
    left: int
    top: int
    width: Pixels
    height: Pixels


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses entities, with which a small file can take all memory and read other files."""

    def doctype(self, *_: str | None) -> None:
        """Called where a document type begins, before any entity is defined."""
        raise LabelError("declares a document type, which no label file needs")


def parse_xml(path: Path) -> ElementTree.Element:
    """Parse an XML file.

    Raises:
        LabelError: it is none, or declares a document type, as files that attack parsers do.
    """
    try:
        with path.open("rb") as stream:
            parser = ElementTree.XMLParser(target=_NoDoctype())  # noqa: S314 - without a document type it is safe
            return ElementTree.parse(stream, parser).getroot()  # noqa: S314
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from error
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise LabelError(f"{path}: cannot be read as XML ({error})") from error


def read_cvat(path: Path, root: ElementTree.Element, digest: str) -> LabelFile:
    """Read an XML file of shapes. Boxes are boxes; lines and points, which have no area, are left out.

    Raises:
        LabelError: names the place and the cause.
    """
    photos = []
    for image in root.iter("image"):
        photo = validate(_Photo, image.attrib, path)
        with named_errors(f"{path}, {photo.name}"):
            shapes = tuple(shape for element in image for shape in _read_shape(element, path))
        photos.append(PhotoLabels(path, photo.name, "CVAT", digest, (photo.height, photo.width), shapes))
    classes = {name.text for name in root.iterfind("meta//label/name") if name.text}
    return LabelFile(photos, frozenset(classes))


def _read_shape(element: ElementTree.Element, path: Path) -> list[LabeledShape]:
    match element.tag:
        case "polygon":
            found = validate(_Polygon, element.attrib, path)
            return [polygon(found.label, np.array(found.points, np.float64))]
        case "mask":
            mask = validate(_Mask, element.attrib, path)
            lengths = np.array(mask.rle, np.int64)
            draw = partial(_draw_runs, lengths, (mask.height, mask.width), (mask.left, mask.top))
            return [LabeledShape(mask.label, draw)]
        case "box":
            b = validate(_Box, element.attrib, path)
            return [box(b.label, b.xtl, b.ytl, b.xbr, b.ybr)]
        case _:
            return []


def _draw_runs(
    lengths: NDArray[np.int64], size_HW: Size, left_top_px: tuple[int, int], mask_HW: NDArray[np.bool_]
) -> float:
    if size_HW[0] * size_HW[1] > mask_HW.size:
        raise LabelError(f"its mask of {size_text(size_HW)} is larger than the photo")
    return paste(runs_to_mask(lengths, size_HW), left_top_px, mask_HW)


def cvat_row(mask_HW: NDArray[np.bool_]) -> dict[str, Any]:
    """What an XML file says of a mask, for JSON: its size, polygons and masks."""
    height, width = mask_HW.shape
    polygons, masks = [], []
    for rings in find_polygons(mask_HW):
        if len(rings) == 1:
            polygons.append(";".join(f"{x:g},{y:g}" for x, y in rings[0].tolist()))
            continue
        region_HW = np.zeros_like(mask_HW)
        fill_rings(rings, region_HW)
        masks.append(_mask_attributes(region_HW))
    return {"height": height, "width": width, "polygons": polygons, "masks": masks}


def _mask_attributes(region_HW: NDArray[np.bool_]) -> dict[str, Any]:
    box_px = box_of(region_HW)
    assert box_px is not None, "a region has pixels"
    top, left, bottom, right = box_px
    flat = region_HW[slices(box_px)].reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = np.diff(changes, prepend=[0, 0] if flat[0] else 0, append=flat.size)
    rle = ", ".join(map(str, lengths.tolist()))
    return {"rle": rle, "left": left, "top": top, "width": right - left, "height": bottom - top}


def cvat_lines(rows: Iterable[tuple[int, str, dict[str, Any]]]) -> Iterator[str]:
    """The lines of an XML file, from the number, the name and the `cvat_row` of each photo."""
    yield _HEAD
    common = 'label="vehicle" source="auto" occluded="0"'
    for number, name, row in rows:
        size = f'width="{row["width"]}" height="{row["height"]}"'
        shown = quoteattr(_NOT_IN_XML.sub(lambda found: found[0].encode("unicode_escape").decode(), name))
        yield f' <image id="{number}" name={shown} {size}>\n'
        for points in row["polygons"]:
            yield f'  <polygon {common} points="{points}" z_order="0"></polygon>\n'
        for mask in row["masks"]:
            attributes = " ".join(f'{key}="{value}"' for key, value in mask.items())
            yield f'  <mask {common} {attributes} z_order="0"></mask>\n'
        yield " </image>\n"
    yield "</annotations>\n"
