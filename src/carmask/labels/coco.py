"""Read COCO's instances: polygons, run lengths (compressed or not) and crowds, whose pixels are unknown.

A polygon's coordinates are areas' corners, as pycocotools draws them; here a pixel is inside if its center is.
"""

from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, FiniteFloat

from carmask.imaging.geometry import Size
from carmask.imaging.rle import parse_coco, runs_to_mask
from carmask.labels.shapes import (
    LabeledShape,
    LabelError,
    LabelFile,
    Length,
    PhotoLabels,
    Pixels,
    Points,
    box,
    draw_ring,
    known_size,
    named_errors,
    require_size,
    validate,
)


class _Image(BaseModel):
    id: int | str
    file_name: str
    width: Pixels | None = None
    height: Pixels | None = None


class _Runs(BaseModel):
    size: tuple[Pixels, Pixels]
    counts: str | list[Length]


class _Annotation(BaseModel):
    image_id: int | str
    category_id: int | str
    segmentation: _Runs | list[Annotated[list[FiniteFloat], Field(min_length=4)]] | None = None
    bbox: Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)] | None = None
    iscrowd: bool = False


class _Category(BaseModel):
    id: int | str
    name: str


class _Instances(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read_coco(path: Path, document: Any, digest: str) -> LabelFile:
    """Read a file of instances.

    Raises:
        LabelError: names the place and the cause.
    """
    instances = validate(_Instances, document, path)
    name_of = {category.id: category.name for category in instances.categories}
    photos = {
        image.id: PhotoLabels(path, image.file_name, "COCO", digest, known_size(image.height, image.width))
        for image in instances.images
    }
    if len(photos) < len(instances.images):
        raise LabelError(f"{path}: two of its images have the same id")
    shapes: dict[int | str, list[LabeledShape]] = defaultdict(list)
    for number, annotation in enumerate(instances.annotations):
        if annotation.image_id not in photos or annotation.category_id not in name_of:
            raise LabelError(f"{path}: annotations.{number} is of an image or a category that is not in the file")
        with named_errors(f"{path}: annotations.{number}, of {photos[annotation.image_id].photo}"):
            shape = _shape(annotation, name_of[annotation.category_id])
        shapes[annotation.image_id].append(replace(shape, ignored=annotation.iscrowd))
    labeled = [replace(photo, shapes=tuple(shapes[id_])) for id_, photo in photos.items()]
    return LabelFile(labeled, frozenset(name_of.values()))


def _shape(annotation: _Annotation, label: str) -> LabeledShape:
    segmentation = annotation.segmentation
    if isinstance(segmentation, _Runs):
        counts = segmentation.counts
        lengths = parse_coco(counts) if isinstance(counts, str) else np.array(counts, np.int64)
        return LabeledShape(label, partial(_draw_runs, lengths, segmentation.size))
    # Some tools write a line for an object of two pixels.
    polygons = tuple(_points(numbers) for numbers in segmentation or ())
    if polygons:
        return LabeledShape(label, partial(_draw_polygons, polygons))
    left, top, width, height = annotation.bbox or [0, 0, 0, 0]
    return box(label, left, top, left + width, top + height)


def _points(numbers: list[float]) -> Points:
    if len(numbers) % 2:
        raise LabelError(f"a polygon of {len(numbers)} numbers, which are not pairs of x and y")
    return np.array(numbers, np.float64).reshape(-1, 2)


def _draw_runs(lengths: NDArray[np.int64], size_HW: Size, mask_HW: NDArray[np.bool_]) -> float:
    require_size(size_HW, mask_HW)
    # COCO's runs go column by column.
    mask_HW |= runs_to_mask(lengths, size_HW[::-1]).T
    return 0.0


def _draw_polygons(polygons: tuple[Points, ...], mask_HW: NDArray[np.bool_]) -> float:
    """An object may have several polygons, which may overlap."""
    return max(draw_ring(points_xy, None, mask_HW) for points_xy in polygons)
