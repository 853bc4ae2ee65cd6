"""Run lengths of the Carvana Image Masking Challenge: `start length` pairs, 1-indexed, row by row.

Pixels are numbered from 1 at the top left, to the right and then down; '3 2' marks pixels 3 and 4. An empty mask is
the empty text. (Source: the challenge's evaluation page on Kaggle. Its pairs ascend and do not touch.)
"""

import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.imaging.mask_array import require_mask

_ADVICE = "check the row of the run-length table, and that it belongs to this picture"
# So many digits fit in 64 bits, also summed; a longer number is beyond any picture.
_MOST_DIGITS = 18


class RleError(CarmaskError):
    """Run lengths that do not describe a mask of the size asked for."""


def encode_carvana(mask_HW: NDArray[np.bool_]) -> str:
    """Write a bool mask (height, width) as run lengths, the runs ascending and as long as they can be."""
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
    """Read run lengths as a bool mask of `size_HW` = (height, width).

    The runs may stand in any order. Raises `RleError` for an odd count of numbers, for anything that is not a whole
    number, and for runs that are empty, overlap, or leave the picture.
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
