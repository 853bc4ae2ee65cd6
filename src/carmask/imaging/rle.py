"""Run-length encodings of masks: Carvana's, the CSV tables that hold them, and COCO's.

Carvana: `start length` pairs, 1-indexed, row by row. Pixels are numbered from 1 at the top left, to the right and then
down; '3 2' marks pixels 3 and 4. An empty mask is the empty text. (Source: the evaluation page of the Carvana Image
Masking Challenge on Kaggle. Its pairs ascend and do not touch.) A table has the columns `img,rle_mask` and a row for
each photo, and its rows end in CR LF, as in the challenge's `train_masks.csv`. A name that ends in .gz is compressed.

COCO, compressed as in its annotation files and by pycocotools: the lengths of the runs column by column, left to right,
beginning with background (perhaps of length 0). From the fourth on, each length is written as its difference to the
last but one. The numbers are written in groups of five bits, the lowest first, as characters from '0' on: 32 is added
where another group follows, and the fifth bit of the last group is the sign. (Source: `rleToString` in
cocodataset/cocoapi, common/maskApi.c.)
"""

import csv
import gzip
import io
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.files import BinaryWriter, is_gzip
from carmask.imaging.masks import require_mask

_ADVICE = "check the row of the run-length table, and that it belongs to this picture"
# Numbers of up to 18 digits, also two of them summed, fit in 64 bits. A longer one is beyond any picture.
_MOST_DIGITS = 18

_HEADER = ("img", "rle_mask")
# Noisy masks have rows of megabytes, and csv's own limit is 128 KiB a field.
_MOST_FIELD_BYTES = min(sys.maxsize, 2**31 - 1)
_FIELD_LIMIT_LOCK = Lock()

# Seven groups hold 35 bits, more than any picture has pixels; pycocotools never writes more.
_MOST_GROUPS = 7


class RleError(CarmaskError):
    """Run lengths that do not describe a mask of the requested size."""


class TableError(CarmaskError):
    """A file that is not a table of run lengths."""


class CocoRle(TypedDict):
    """COCO's `segmentation`: size is [height, width] in pixels, counts the compressed run lengths."""

    size: list[int]
    counts: str


def encode_carvana(mask_HW: NDArray[np.bool_]) -> str:
    """Write a bool mask (height, width) as Carvana's run lengths: runs ascend and are as long as they can be."""
    require_mask(mask_HW)
    edge = np.empty(mask_HW.size + 1, dtype=np.bool_)
    flat = mask_HW.reshape(-1)
    edge[0], edge[-1] = flat[:1].any(), flat[-1:].any()
    np.not_equal(flat[1:], flat[:-1], out=edge[1:-1])
    boundaries = np.flatnonzero(edge)
    boundaries[1::2] -= boundaries[::2]
    boundaries[::2] += 1
    return " ".join(map(str, boundaries.tolist()))


def decode_carvana(text: str, size_HW: tuple[int, int]) -> NDArray[np.bool_]:
    """Read Carvana's run lengths as a bool mask of `size_HW` = (height, width). The runs may come in any order.

    Raises:
        RleError: an odd count of numbers, anything that is not a whole number, or a run that is empty, overlaps
            another or leaves the picture.
    """
    height, width = size_HW
    pixels = height * width
    words = text.split()
    if len(words) % 2:
        raise RleError(f"run lengths come in pairs of start and length, but there are {len(words)} numbers; {_ADVICE}")
    starts, lengths = _whole_numbers(words).reshape(-1, 2).T
    _refuse(starts < 1, starts, lengths, "starts before pixel 1")
    _refuse(lengths < 1, starts, lengths, "is empty or of negative length")
    _refuse(
        starts + lengths - 1 > pixels, starts, lengths, f"ends beyond the last pixel, {pixels} ({width} x {height})"
    )
    order = np.argsort(starts, kind="stable")
    starts, lengths = starts[order], lengths[order]
    overlaps = np.zeros(len(starts), dtype=np.bool_)
    overlaps[1:] = starts[1:] < (starts + lengths)[:-1]
    _refuse(overlaps, starts, lengths, "overlaps the run before it")

    # +1 where a run starts, -1 behind its end; touching runs cancel there, and the sum is 1 inside runs.
    steps = np.zeros(pixels + 1, dtype=np.int8)
    steps[starts - 1] += 1
    steps[starts - 1 + lengths] -= 1
    return np.cumsum(steps[:-1], dtype=np.int8).view(np.bool_).reshape(height, width)


def write_rows(stream: BinaryWriter, rows: Iterable[tuple[str, str]]) -> None:
    """Write a table of (photo's name, run lengths)."""
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
    writer = csv.writer(text)
    writer.writerow(_HEADER)
    writer.writerows(rows)
    text.flush()
    text.detach()


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows below the header: the number of the line on which a row ends, and its fields.

    Raises:
        TableError: the file cannot be read, or its first line is not the header of such a table.
    """
    try:
        open_text = gzip.open if is_gzip(path) else open
        with open_text(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.reader(stream)
            header = _next_row(reader) or []
            if [field.strip() for field in header] != list(_HEADER):
                raise TableError(
                    f"{path}: its first line is not '{','.join(_HEADER)}', so it is not a table of run lengths"
                )
            while (row := _next_row(reader)) is not None:
                if row:
                    yield reader.line_num, row
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise TableError(f"{path}: cannot be read as a table ({error})") from error


def encode_coco(mask_HW: NDArray[np.bool_]) -> CocoRle:
    """Write a bool mask (height, width) as compressed run lengths, the same text as pycocotools writes."""
    require_mask(mask_HW)
    height, width = mask_HW.shape
    by_column = cv2.transpose(np.ascontiguousarray(mask_HW).view(np.uint8)).reshape(-1)
    ends = np.flatnonzero(by_column[1:] != by_column[:-1]) + 1
    starts_inside = by_column[:1].any()
    lengths = np.diff(ends, prepend=[0, 0] if starts_inside else 0, append=by_column.size)
    lengths[3:] -= lengths[1:-2].copy()
    return {"size": [height, width], "counts": _coco_text(lengths)}


def parse_coco(counts: str) -> NDArray[np.int64]:
    """Read the text of COCO's compressed run lengths as the lengths of the runs; `runs_to_mask` checks them.

    Raises:
        RleError: it is no such text.
    """
    groups = np.frombuffer(counts.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64) - ord("0")
    if not groups.size:
        return groups
    ends = np.flatnonzero(groups < 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if groups.min() < 0 or groups.max() > 63 or not ends.size or ends[-1] != groups.size - 1:
        raise RleError("its text is not COCO's compressed run lengths")
    size = ends - starts + 1
    if size.max() > _MOST_GROUPS:
        raise RleError("its text has numbers beyond any picture")
    place = np.arange(groups.size) - np.repeat(starts, size)
    lengths: NDArray[np.int64] = np.add.reduceat((groups & 31) << (5 * place), starts)
    lengths -= (groups[ends] >> 4 & 1) << (5 * size)
    for first in (1, 2):
        lengths[first::2] = np.cumsum(lengths[first::2])
    return lengths


def runs_to_mask(lengths: NDArray[np.int64], size_HW: tuple[int, int]) -> NDArray[np.bool_]:
    """Make a bool mask of `size_HW` from the lengths of runs, row by row, of which the first is background.

    Raises:
        RleError: a length is negative, or all together are not the picture.
    """
    height, width = size_HW
    total = int(lengths.sum())
    if lengths.min(initial=0) < 0 or total != height * width:
        raise RleError(f"its runs hold {total} px, its size {width} x {height} is {width * height}")
    inside = np.arange(len(lengths)) % 2 == 1
    return np.repeat(inside, lengths).reshape(height, width)


def _whole_numbers(words: list[str]) -> NDArray[np.int64]:
    for word in words:
        # int() would also take '1_000', '+5' and digits of other scripts.
        if not (word.isascii() and word.removeprefix("-").isdigit()):
            raise RleError(f"run lengths are whole numbers, and {word[:40]!r} is none; {_ADVICE}")
        if len(word.lstrip("-0")) > _MOST_DIGITS:
            raise RleError(f"the number {word[:40]} is beyond any picture; {_ADVICE}")
    return np.array([int(word) for word in words], dtype=np.int64)


def _refuse(
    wrong: NDArray[np.bool_], starts: NDArray[np.int64], lengths: NDArray[np.int64], what_is_wrong: str
) -> None:
    if wrong.any():
        first = int(np.argmax(wrong))
        more = f" (and {int(wrong.sum()) - 1} more)" if wrong.sum() > 1 else ""
        raise RleError(f"the run '{starts[first]} {lengths[first]}' {what_is_wrong}{more}; {_ADVICE}")


def _next_row(reader: Iterator[list[str]]) -> list[str] | None:
    """Read a row of long fields. csv has one limit for the whole process, so it is raised for this row only."""
    with _FIELD_LIMIT_LOCK:
        usual = csv.field_size_limit(_MOST_FIELD_BYTES)
        try:
            return next(reader, None)
        finally:
            csv.field_size_limit(usual)


def _coco_text(numbers: NDArray[np.int64]) -> str:
    groups = numbers[:, None] >> np.arange(0, 5 * _MOST_GROUPS, 5)
    # What is left above a group must be nothing but copies of the group's highest bit, which is the sign.
    ends = (groups >> 4 == 0) | (groups >> 4 == -1)
    last = np.argmax(ends, axis=1)[:, None]
    column = np.arange(_MOST_GROUPS)
    characters = (groups & 31) + 32 * (column < last) + ord("0")
    return bytes(characters[column <= last].astype(np.uint8)).decode("ascii")
