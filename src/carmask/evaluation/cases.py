"""Draw single photos for the report: photo, truth, prediction, error map, and the worst spot close up."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carmask.data.pairs import Pair
from carmask.errors import CarmaskError
from carmask.evaluation.evaluate import Segments, failure_of, load_truth
from carmask.evaluation.metrics import BoolArray
from carmask.evaluation.results import PhotoRow
from carmask.imaging.decode import decode_photo
from carmask.imaging.draw import draw_error_map
from carmask.imaging.encode import encode_soft
from carmask.imaging.geometry import Geometry, Placement, fit_image, fit_mask, plan
from carmask.progress import Progress

PANEL_PX = 480
CLOSE_UP_HW = (200, 300)
_JPEG_QUALITY = 82


@dataclass(frozen=True)
class Panel:
    """One picture of a case, as a data address that a page can show without a request."""

    title: str
    address: str


@dataclass(frozen=True)
class Case:
    """One photo's figures and pictures; `problem` says why it has none, where it could not be drawn."""

    row: PhotoRow
    panels: tuple[Panel, ...]
    problem: str | None = None


def draw_cases(
    rows: Sequence[PhotoRow],
    pairs: Mapping[str, Pair],
    segmenter: Segments,
    *,
    foreground: int | None = None,
    progress: Progress | None = None,
) -> list[Case]:
    """Read and predict these photos once more and draw them, one at a time.

    `pairs` gives the pair of each row's id. A photo that can no longer be read becomes a case that says so.
    """
    cases = []
    for number, row in enumerate(rows, start=1):
        try:
            cases.append(Case(row, tuple(_panels(pairs[row.id], segmenter, foreground))))
        except CarmaskError as error:
            cases.append(Case(row, (), failure_of(pairs[row.id], error, pairs[row.id].image.name).cause))
        if progress is not None:
            progress(number, len(rows))
    return cases


def _panels(pair: Pair, segmenter: Segments, foreground: int | None) -> Iterator[Panel]:
    image_HWC = decode_photo(pair.image).image_HWC
    height, width = image_HWC.shape[:2]
    truth_HW = load_truth(pair, (height, width), foreground).mask_HW
    (probability_HW,) = segmenter.predict_photos([segmenter.decode(pair.image)])
    mask_HW: BoolArray = probability_HW >= segmenter.threshold
    small = _small(height, width)
    error_map_HWC = draw_error_map(image_HWC, truth_HW, mask_HW)
    yield Panel("photo", _jpeg(fit_image(image_HWC, small)))
    yield Panel("truth", _gray_png(truth_HW, small))
    yield Panel("prediction", _gray_png(mask_HW, small))
    yield Panel("error map", _jpeg(fit_image(error_map_HWC, small)))
    yield Panel("worst spot, close up", _jpeg(error_map_HWC[_worst_spot(truth_HW != mask_HW)]))


def _small(height: int, width: int) -> Placement:
    """Fit into a panel without enlarging."""
    scale = min(PANEL_PX / height, PANEL_PX / width, 1.0)
    small_height, small_width = (max(16, round(side * scale)) for side in (height, width))
    return plan((height, width), Geometry(height_px=small_height, width_px=small_width))


def _worst_spot(wrong_HW: BoolArray) -> tuple[slice, slice]:
    """The window of CLOSE_UP_HW, inside the picture, about the pixel with the most wrong ones around it."""
    size_HW = [min(side, limit) for side, limit in zip(wrong_HW.shape, CLOSE_UP_HW, strict=True)]
    crowd_HW = cv2.boxFilter(wrong_HW.astype(np.float32), -1, size_HW[::-1], borderType=cv2.BORDER_CONSTANT)
    center = np.unravel_index(int(crowd_HW.argmax()), wrong_HW.shape)
    starts = [
        min(max(int(middle) - size // 2, 0), side - size)
        for middle, size, side in zip(center, size_HW, wrong_HW.shape, strict=True)
    ]
    rows, columns = (slice(start, start + size) for start, size in zip(starts, size_HW, strict=True))
    return rows, columns


def _gray_png(mask_HW: BoolArray, small: Placement) -> str:
    soft_HW = fit_mask(mask_HW.astype(np.uint8) * np.uint8(255), small)
    return _address("png", encode_soft(soft_HW.astype(np.float32) / np.float32(255)))


def _jpeg(image_HWC: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_HWC)).save(file, "JPEG", quality=_JPEG_QUALITY)
    return _address("jpeg", file.getvalue())


def _address(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
