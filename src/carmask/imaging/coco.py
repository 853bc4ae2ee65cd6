"""Run lengths of COCO, compressed as in its annotation files and by pycocotools: read column by column.

A mask is the lengths of its runs down the columns, left to right, a run of background first (perhaps of length 0).
From the fourth on each length is written as its difference to the last but one. The numbers are written in groups of
five bits, the lowest first, as characters from '0' on: 32 is added where another group follows, and the fifth bit of
the last one is the sign. (Source: `rleToString` in cocodataset/cocoapi, common/maskApi.c.)
"""

from typing import TypedDict

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.imaging.mask_array import require_mask

# Seven groups hold 35 bits, more than any picture's pixels; pycocotools never writes more.
_MOST_GROUPS = 7


class CocoRle(TypedDict):
    """COCO's `segmentation`: size is [height, width] in pixels, counts the compressed run lengths."""

    size: list[int]
    counts: str


def encode_coco(mask_HW: NDArray[np.bool_]) -> CocoRle:
    """Write a bool mask (height, width) as compressed run lengths, the same text as pycocotools writes."""
    require_mask(mask_HW)
    height, width = mask_HW.shape
    by_column = cv2.transpose(np.ascontiguousarray(mask_HW).view(np.uint8)).reshape(-1)
    ends = np.flatnonzero(by_column[1:] != by_column[:-1]) + 1
    starts_inside = by_column[:1].any()
    lengths = np.diff(ends, prepend=[0, 0] if starts_inside else 0, append=by_column.size)
    lengths[3:] -= lengths[1:-2].copy()
    return {"size": [height, width], "counts": _to_text(lengths)}


def _to_text(numbers: NDArray[np.int64]) -> str:
    groups = numbers[:, None] >> np.arange(0, 5 * _MOST_GROUPS, 5)
    # What is left above a group must be nothing but copies of the group's highest bit, which is the sign.
    ends = (groups >> 4 == 0) | (groups >> 4 == -1)
    last = np.argmax(ends, axis=1)[:, None]
    column = np.arange(_MOST_GROUPS)
    characters = (groups & 31) + 32 * (column < last) + ord("0")
    return bytes(characters[column <= last].astype(np.uint8)).decode("ascii")
