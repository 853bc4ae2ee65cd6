"""Pascal VOC's SegmentationClass: a picture for each photo, in which each class has a color.

`labelmap.txt`, as CVAT and datumaro write it, has the classes (NAME:R,G,B::); without it they are those of VOC2012.
Pixels of the color of index 255, the border around objects, are unknown.
"""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carmask.imaging.decode import IMAGE_SUFFIXES, read_size
from carmask.imaging.geometry import Size, size_text
from carmask.imaging.image_file import UnreadableImage, open_image
from carmask.labels.shapes import LabeledShape, LabelError, LabelFile, PhotoLabels, digest_of, files_below
from carmask.limits import max_pixels

Color = tuple[int, int, int]

VOC = "Pascal VOC"
_VOID_INDEX, _VOID = 255, "void"
_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def color_of(index: int) -> Color:
    """VOC's color of a class: its bits, from the lowest, are the highest of red, green, blue, red, ..."""
    red, green, blue = (sum((index >> (3 * bit + place) & 1) << (7 - bit) for bit in range(3)) for place in range(3))
    return red, green, blue


def is_voc(masks: Path) -> bool:
    """Whether the pictures in this folder have VOC's palette, or there is a labelmap.txt beside it."""
    if (masks.parent / "labelmap.txt").is_file():
        return True
    first = min(files_below(masks, (".png",)), default=None)
    try:
        if first is None:
            return False
        with open_image(first, max_pixels=max_pixels(), name=None) as image:
            palette = image.getpalette("RGB") if image.mode == "P" else None
    except UnreadableImage:
        return False
    return palette is not None and tuple(palette[:9]) == (*color_of(0), *color_of(1), *color_of(2))


def read_voc(photos: Path, masks: Path) -> LabelFile:
    """Read the names of all masks. Photos are named without their ending.

    Raises:
        LabelError: labelmap.txt is no list of classes.
    """
    color_by_class = _read_label_map(masks.parent / "labelmap.txt")
    labeled = []
    for path in sorted(files_below(masks, IMAGE_SUFFIXES)):
        shapes = tuple(
            LabeledShape(name, partial(_draw_class, path, index, color), ignored=name == _VOID)
            for name, (index, color) in color_by_class.items()
        )
        name = (photos.name / path.relative_to(masks)).with_suffix("").as_posix()
        labeled.append(PhotoLabels(path, name, VOC, digest_of(path.read_bytes()), _size_of(path), shapes))
    return LabelFile(labeled, frozenset(color_by_class))


def _size_of(path: Path) -> Size | None:
    try:
        return read_size(path)
    except UnreadableImage:
        return None  # drawing its classes names the cause


def _read_label_map(path: Path) -> dict[str, tuple[int, Color]]:
    found = {name: (index, color_of(index)) for index, name in enumerate(_CLASSES)}
    if path.is_file():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            words = [line.split(":") for line in lines if line and not line.startswith("#")]
            # Without colors they are those of VOC.
            found = {
                name: (index, _parse_color(text) if text else color_of(index))
                for index, (name, text, *_) in enumerate(words)
            }
        except ValueError as error:
            raise LabelError(f"{path}: a line is not NAME:R,G,B:: ({error})") from error
    return {**found, _VOID: (_VOID_INDEX, color_of(_VOID_INDEX))}


def _parse_color(text: str) -> Color:
    red, green, blue = map(int, text.split(","))
    return red, green, blue


def _draw_class(path: Path, index: int, color: Color, mask_HW: NDArray[np.bool_]) -> float:
    with open_image(path, max_pixels=max_pixels(), name=None) as image:
        if (image.height, image.width) != mask_HW.shape:
            own_HW = image.height, image.width
            raise LabelError(f"is {size_text(own_HW)}, its photo {size_text(mask_HW.shape)}")
        if image.mode == "L":
            mask_HW |= np.asarray(image) == index
        else:
            mask_HW |= (np.asarray(image.convert("RGB")) == color).all(axis=2)
    return 0.0
