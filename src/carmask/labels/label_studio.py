"""Label Studio's JSON: tasks with brush masks and polygons.

A brush mask is the picture's RGBA bytes, of which the last is the mask, packed by @thi.ng/rle-pack: 32 bits with the
number of values, 5 with the bits of a value less one, four times 4 with the bits of a count less one; then for each
run a bit (1: one value repeated, 0: different values), 2 bits that choose the count's size, the count less one, and the
values. Numbers are written from their highest bit. (Source: label_studio_sdk/converter/brush.py.)
"""

import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, FiniteFloat, RootModel

from carmask.imaging.decode import IMAGE_SUFFIXES
from carmask.imaging.geometry import size_text
from carmask.labels.shapes import (
    LabeledShape,
    LabelError,
    LabelFile,
    PhotoLabels,
    Pixels,
    box,
    known_size,
    named_errors,
    polygon,
    require_size,
    validate,
)

# Names of the labeling interface's parts; docs/start/own.md shows the interface.
FROM_NAME, TO_NAME = "label", "image"

_PERCENT = (100.0, 100.0)
_HEADER = (32, 5, 4, 4, 4, 4)
# As in Label Studio's own encoder: counts of 3, 4, 8 or 16 bits.
_COUNT_BITS = (3, 4, 8, 16)
_LONGEST_PX = 1 << 14  # of four bytes each, 2**16 values

# File names may hold bytes that are not valid text.
_ERRORS = "surrogateescape"
# Label Studio writes eight digits before the name of an uploaded file.
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")


class _Value(BaseModel):
    points: list[tuple[FiniteFloat, FiniteFloat]] = []
    rle: list[Annotated[int, Field(ge=0, le=255)]] = []
    x: FiniteFloat = 0.0
    y: FiniteFloat = 0.0
    width: FiniteFloat = 0.0
    height: FiniteFloat = 0.0
    brushlabels: list[str] = []
    polygonlabels: list[str] = []
    rectanglelabels: list[str] = []


class _Region(BaseModel):
    type: str
    value: _Value = _Value()
    original_width: Pixels | None = None
    original_height: Pixels | None = None


class _Labeling(BaseModel):
    result: list[_Region] = []
    was_cancelled: bool = False


class _LabelTask(BaseModel):
    data: dict[str, Any]
    annotations: list[_Labeling] = []
    predictions: list[_Labeling] = []


class _LabelTasks(RootModel[list[_LabelTask]]):
    pass


def read_label_studio(path: Path, document: Any, digest: str) -> LabelFile:
    """Read an export of tasks (JSON, not JSON-MIN). A task without annotation is left out, as a photo without labels.

    Predictions are read if no task has an annotation. Two annotations of a task give two labels of its photo.

    Raises:
        LabelError: names the place and the cause.
    """
    tasks = validate(_LabelTasks, document, path).root
    done = [[one for one in task.annotations if not one.was_cancelled] for task in tasks]
    kind = "Label Studio"
    if not any(done):
        done, kind = [task.predictions for task in tasks], "Label Studio's predictions"
    photos = []
    for number, (task, labelings) in enumerate(zip(tasks, done, strict=True)):
        name = _photo_name(task.data)
        for labeling in labelings:
            with named_errors(f"{path}: task {number}, {name}"):
                shapes = [shape for region in labeling.result for shape in _read_region(region)]
            sizes = {(one.original_height, one.original_width) for one in labeling.result if one.original_height}
            size = known_size(*sizes.pop()) if len(sizes) == 1 else None
            photos.append(PhotoLabels(path, name, kind, digest, size, tuple(shapes)))
    return LabelFile(photos)


def _photo_name(data: dict[str, Any]) -> str:
    """The photo's name, from the address at which Label Studio shows it."""
    texts = [value for value in data.values() if isinstance(value, str)]
    address = next((text for text in texts if text.lower().endswith(tuple(IMAGE_SUFFIXES))), (*texts, "")[0])
    try:
        parts = urlsplit(address)
    except ValueError:
        return address  # no address, so no photo has this name
    name = parse_qs(parts.query, errors=_ERRORS).get("d", [unquote(parts.path, errors=_ERRORS)])[0].lstrip("/")
    folder, _, file = name.rpartition("/")
    uploaded = folder.startswith("data/upload") and _UPLOADED.match(file)
    return file[uploaded.end() :] if uploaded else name


def _read_region(region: _Region) -> list[LabeledShape]:
    value = region.value
    match region.type:
        case "brushlabels" if region.original_height and region.original_width and value.rle:
            data = bytes(value.rle)
            size = (region.original_height, region.original_width)
            return [LabeledShape(label, partial(_draw_brush, data, size)) for label in value.brushlabels[:1]]
        case "polygonlabels":
            points_xy = np.array(value.points, np.float64)
            return [polygon(label, points_xy, scale_xy=_PERCENT) for label in value.polygonlabels[:1]]
        case "rectanglelabels":
            right, bottom = value.x + value.width, value.y + value.height
            return [box(label, value.x, value.y, right, bottom, scale_xy=_PERCENT) for label in value.rectanglelabels]
        case "brushlabels" | "ellipselabels" | "bitmask":
            raise LabelError(f"a region of type {region.type} without run lengths, which cannot be read")
        case _:  # choices, texts, points
            return []


def _draw_brush(data: bytes, size_HW: tuple[int, int], mask_HW: NDArray[np.bool_]) -> float:
    require_size(size_HW, mask_HW)
    mask_HW |= decode_brush(data, size_HW)
    return 0.0


def decode_brush(data: bytes, size_HW: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a brush mask: bool, `size_HW` = (height, width).

    Raises:
        LabelError: it is damaged, or of another size.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    at = 0

    def read(count: int) -> int:
        nonlocal at
        if at + count > bits.size:
            raise LabelError("its brush mask ends too early")
        first = at >> 3
        at += count
        number = int.from_bytes(data[first : (at + 7) >> 3], "big") >> (-at % 8)
        return number & ((1 << count) - 1)

    total, word_bits, *count_bits = (read(count) + (count < 32) for count in _HEADER)
    if word_bits != 8 or total != 4 * size_HW[0] * size_HW[1]:
        raise LabelError(f"its brush mask is not one of {size_text(size_HW)}")
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        is_run = read(1)
        end = done + 1 + read(count_bits[read(2)])
        if is_run:
            values[done:end] = read(8)
        else:
            last = at + 8 * (end - done)
            if end > total or last > bits.size:
                raise LabelError("its brush mask ends too early")
            values[done:end] = np.packbits(bits[at:last])
            at = last
        done = end
    return values.reshape(*size_HW, 4)[..., 3] > 0


def encode_brush(mask_HW: NDArray[np.bool_]) -> list[int]:
    """Write a bool mask (height, width) as a brush mask: bytes 0..255."""
    flat = mask_HW.reshape(-1)
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = np.diff(starts, append=flat.size)
    # Runs that are too long for a count are divided.
    parts = -(-lengths // _LONGEST_PX)
    inside = np.repeat(flat[starts], parts)
    first = np.cumsum(parts) - parts
    pixels = np.full(parts.sum(), _LONGEST_PX)
    pixels[first + parts - 1] = lengths - (parts - 1) * _LONGEST_PX
    # A run: 1, the fourth size of a count, the count less one, and the value.
    runs = (0b111 << 24) | ((4 * pixels - 1) << 8) | np.where(inside, 255, 0)
    head = zip((4 * flat.size, 7, *(count - 1 for count in _COUNT_BITS)), _HEADER, strict=True)
    bits = [_bits(np.array([number]), count) for number, count in head]
    return np.packbits(np.concatenate([*bits, _bits(runs, 27)])).tolist()


def _bits(numbers: NDArray[np.int64], count: int) -> NDArray[np.uint8]:
    shifts = np.arange(count - 1, -1, -1)
    return (numbers[:, None] >> shifts & 1).astype(np.uint8).reshape(-1)


def label_studio_row(mask_HW: NDArray[np.bool_]) -> dict[str, Any]:
    """What a task says of a mask, for JSON: its size and the brush mask, empty where there is nothing."""
    height, width = mask_HW.shape
    return {"height": height, "width": width, "rle": encode_brush(mask_HW) if mask_HW.any() else []}


def label_studio_task(number: int, name: str, row: dict[str, Any], score: float | None) -> dict[str, Any]:
    """A task with one prediction, from the photo's name below the folder that Label Studio serves."""
    region = {
        "id": f"vehicle{number}",
        "type": "brushlabels",
        "from_name": FROM_NAME,
        "to_name": TO_NAME,
        "original_width": row["width"],
        "original_height": row["height"],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": row["rle"], "brushlabels": ["vehicle"]},
    }
    prediction: dict[str, Any] = {"model_version": "carmask", "result": [region] if row["rle"] else []}
    prediction |= {} if score is None else {"score": score}
    address = f"/data/local-files/?d={quote(name, errors=_ERRORS)}"
    return {"id": number, "data": {"image": address}, "annotations": [], "predictions": [prediction]}
