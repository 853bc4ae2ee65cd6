"""Run lengths of COCO, compressed as in its annotation files and by pycocotools: read column by column.

A mask is the lengths of its runs down the columns, left to right, a run of background first (perhaps of length 0).
From the fourth on each length is written as its difference to the last but one. The numbers are written in groups of
five bits, the lowest first, as characters from '0' on: 32 is added where another group follows, and the fifth bit of
the last one is the sign. (Source: `rleToString` in cocodataset/cocoapi, common/maskApi.c.)
"""

from collections.abc import Mapping
from typing import TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.imaging.rle import RleError
from carmask.imaging.source import DEFAULT_MAX_PIXELS

_ADVICE = "check that it is COCO's compressed form and belongs to this picture"
# Seven groups hold 35 bits, more than any picture's pixels; pycocotools never writes more.
_MOST_GROUPS = 7


class CocoRle(TypedDict):
    """COCO's `segmentation`: size is [height, width] in pixels, counts the compressed run lengths."""

    size: list[int]
    counts: str


def encode_coco(mask_HW: NDArray[np.bool_]) -> CocoRle:
    """Write a bool mask (height, width) as compressed run lengths, the same text as pycocotools writes."""
    if mask_HW.ndim != 2 or mask_HW.dtype != np.bool_:
        raise ValueError(f"a mask is a bool array (height, width), not {mask_HW.dtype} {mask_HW.shape}")
    height, width = mask_HW.shape
    by_column = cv2.transpose(np.ascontiguousarray(mask_HW).view(np.uint8)).reshape(-1)
    ends = np.flatnonzero(by_column[1:] != by_column[:-1]) + 1
    starts_inside = by_column[:1].any()
    lengths = np.diff(ends, prepend=[0, 0] if starts_inside else 0, append=by_column.size)
    lengths[3:] -= lengths[1:-2].copy()
    return {"size": [height, width], "counts": _to_text(lengths)}


def decode_coco(rle: Mapping[str, object]) -> NDArray[np.bool_]:
    """Read compressed run lengths, `counts` as text or ASCII bytes, as a bool mask (height, width).

    Raises:
        RleError: there is no size or no text, or they do not describe a mask of that size.

    """
    height, width = _size_of(rle)
    lengths = _from_text(_bytes_of(rle.get("counts")))
    for first in (1, 2):
        lengths[first::2] = np.cumsum(lengths[first::2])
    if lengths.min(initial=0) < 0 or lengths.max(initial=0) > height * width or lengths.sum() != height * width:
        raise RleError(
            f"COCO's runs must not be negative and have {height * width} pixels in sum ({width} x {height}); {_ADVICE}"
        )
    inside = np.arange(lengths.size) % 2 == 1
    by_column = np.repeat(inside, lengths).reshape(width, height).view(np.uint8)
    mask_HW: NDArray[np.bool_] = cv2.transpose(by_column).reshape(height, width).view(np.bool_)
    return mask_HW


def _to_text(numbers: NDArray[np.int64]) -> str:
    groups = numbers[:, None] >> np.arange(0, 5 * _MOST_GROUPS, 5)
    # What is left above a group must be nothing but copies of the group's highest bit, which is the sign.
    ends = (groups >> 4 == 0) | (groups >> 4 == -1)
    last = np.argmax(ends, axis=1)[:, None]
    column = np.arange(_MOST_GROUPS)
    characters = (groups & 31) + 32 * (column < last) + ord("0")
    return bytes(characters[column <= last].astype(np.uint8)).decode("ascii")


def _from_text(text: bytes) -> NDArray[np.int64]:
    groups = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - ord("0")
    if not groups.size:
        return groups
    if groups.min() < 0 or groups.max() > 63:
        where = int(np.argmax((groups < 0) | (groups > 63)))
        raise RleError(f"COCO's counts hold characters from '0' to 'o', and character {where + 1} is none; {_ADVICE}")
    is_last = groups < 32
    if not is_last[-1]:
        raise RleError(f"COCO's counts end in the middle of a number; {_ADVICE}")
    starts = np.flatnonzero(np.concatenate([[True], is_last[:-1]]))
    position = np.arange(groups.size) - np.repeat(starts, np.diff(starts, append=groups.size))
    if position.max() >= _MOST_GROUPS:
        raise RleError(f"COCO's counts hold a number beyond any picture; {_ADVICE}")
    numbers: NDArray[np.int64] = np.add.reduceat((groups & 31) << 5 * position, starts)
    last = np.flatnonzero(is_last)
    numbers[(groups[last] & 16) != 0] -= 1 << 5 * (position[last][(groups[last] & 16) != 0] + 1)
    return numbers


def _bytes_of(counts: object) -> bytes:
    if isinstance(counts, str):
        # What is not ASCII becomes a byte that is no character of the form, and is named with the others.
        return bytes(min(ord(character), 255) for character in counts)
    if not isinstance(counts, bytes):
        raise RleError(f"COCO's counts are a text here, not {type(counts).__name__}; {_ADVICE}")
    return counts


def _size_of(rle: Mapping[str, object]) -> tuple[int, int]:
    size = rle.get("size")
    sides = size if isinstance(size, list | tuple) else ()
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise RleError(f"COCO's size is [height, width] in pixels, not {str(size)[:40]}; {_ADVICE}")
    height, width = sides
    if height * width > DEFAULT_MAX_PIXELS:
        raise RleError(f"COCO's size, {width} x {height}, is beyond any photo that is read here; {_ADVICE}")
    return height, width
