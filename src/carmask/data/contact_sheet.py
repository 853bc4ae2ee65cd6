"""A sheet of a data set's photos with their masks, those with problems first."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from carmask.data.pairs import Dataset, Pair, load_soft_mask
from carmask.errors import CarmaskError
from carmask.imaging.decode import decode_photo
from carmask.imaging.draw import draw_overlay, hatch_unknown, sheet
from carmask.imaging.geometry import Geometry, fit_image, fit_known, fit_mask, plan
from carmask.imaging.mask_values import FOREGROUND_FROM
from carmask.runner import in_threads

_TILE_WIDTH_PX = 480
_COLUMNS = 4


def contact_sheet(dataset: Dataset, count: int = 24, *, doubtful: Mapping[str, str] | None = None) -> NDArray[np.uint8]:
    """Draw `count` photos with their masks on one sheet: uint8 RGB, (height, width, 3). What is unknown is hatched.

    The pairs in `doubtful` (id -> kinds of problem) come first. The others are spread over the data set: one from each
    of equal parts, drawn at random so that they do not all show the same view.
    """
    pairs = {pair.id: pair for pair in dataset.pairs}
    doubtful = doubtful or {}
    chosen = [id_ for id_ in doubtful if id_ in pairs][:count]
    others = [id_ for id_ in pairs if id_ not in doubtful]
    rng = np.random.default_rng(0)
    edges = np.linspace(0, len(others), min(count - len(chosen), len(others)) + 1).astype(int).tolist()
    chosen += [others[rng.integers(start, end)] for start, end in pairwise(edges)]
    labels = [f"{doubtful[id_]}: {id_}" if id_ in doubtful else id_ for id_ in chosen]
    tiles = in_threads(lambda id_: _tile(pairs[id_]), chosen)
    return sheet(list(zip(labels, tiles, strict=True)), _COLUMNS, _TILE_WIDTH_PX)


def _tile(pair: Pair) -> NDArray[np.uint8]:
    """Draw the photo with its mask over it, or without, or a gray area, if they cannot be read."""
    try:
        photo = decode_photo(pair.image, at_least_HW=(_TILE_WIDTH_PX, _TILE_WIDTH_PX))
    except CarmaskError:
        return np.full((_TILE_WIDTH_PX * 2 // 3, _TILE_WIDTH_PX, 3), 96, dtype=np.uint8)
    height, width = photo.size_HW
    # A photo many times as high as wide is squeezed, so that the sheet stays small.
    height_px = min(max(round(_TILE_WIDTH_PX * height / width), 16), 2 * _TILE_WIDTH_PX)
    geometry = Geometry(height_px=height_px, width_px=_TILE_WIDTH_PX)
    image_HWC = fit_image(photo.image_HWC, plan(photo.size_HW, geometry))
    try:
        reading = load_soft_mask(pair)
    except CarmaskError:
        return image_HWC
    height, width = reading.soft_HW.shape
    placement = plan((height, width), geometry)
    drawn_HWC = draw_overlay(image_HWC, fit_mask(reading.soft_HW, placement) >= FOREGROUND_FROM)
    return hatch_unknown(drawn_HWC, None if reading.known_HW is None else fit_known(reading.known_HW, placement))
