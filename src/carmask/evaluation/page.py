"""The report's HTML page, which loads nothing from elsewhere: charts, tables and the worst photos. Needs Jinja.

Of each of the worst photos it shows the photo, truth, prediction, error map, and the worst spot close up.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from carmask.data.pairs import Pair
from carmask.errors import CarmaskError
from carmask.evaluation.charts import draw_charts
from carmask.evaluation.evaluate import load_truth, make_failure
from carmask.evaluation.metric_labels import format_metric
from carmask.evaluation.outlines import BoolArray
from carmask.evaluation.results import Evaluation, PhotoRow, Subject
from carmask.imaging.decode import decode_photo
from carmask.imaging.draw import FALSE_NEGATIVE_RGB, FALSE_POSITIVE_RGB, UNKNOWN_RGB, draw_error_map, hatch_unknown
from carmask.imaging.encode import encode_png
from carmask.imaging.geometry import Geometry, Placement, fit_image, fit_known, fit_mask, plan
from carmask.segmenter import Segmenter

PANEL_PX = 480
CLOSE_UP_HW = (200, 300)
_JPEG_QUALITY = 82


@dataclass(frozen=True)
class Case:
    """One photo with its pictures, title -> data URL; `problem` says why there are none, if it could not be drawn."""

    row: PhotoRow
    panels: Mapping[str, str]
    problem: str | None = None


def render_page(
    evaluation: Evaluation,
    subject: Subject,
    *,
    cases: Sequence[Case] = (),
    training_log: Path | None = None,
) -> str:
    """Render the whole report as one HTML page, with its charts and pictures inside."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["metric"] = format_metric
    return templates.get_template("report.html.jinja").render(
        evaluation=evaluation,
        subject=subject,
        model=_flatten(subject.description),
        environment=_flatten(subject.environment),
        charts=draw_charts(evaluation, group_word=subject.group_word, training_log=training_log),
        cases=cases,
        false_positive=FALSE_POSITIVE_RGB,
        false_negative=FALSE_NEGATIVE_RGB,
        unknown=UNKNOWN_RGB,
    )


def draw_case(row: PhotoRow, pair: Pair, segmenter: Segmenter) -> Case:
    """Read and predict a photo once more and draw it; a photo or mask that can no longer be read has no pictures."""
    try:
        return Case(row, _draw_panels(pair, segmenter))
    except CarmaskError as error:
        return Case(row, {}, make_failure(pair, error).cause)


def _draw_panels(pair: Pair, segmenter: Segmenter) -> dict[str, str]:
    image_HWC = decode_photo(pair.image).image_HWC
    height, width = image_HWC.shape[:2]
    truth = load_truth(pair, (height, width))
    truth_HW, known_HW = truth.mask_HW, truth.known_HW
    (probability_HW,) = segmenter.predict_photos([segmenter.decode(pair.image)])
    mask_HW: BoolArray = probability_HW >= segmenter.threshold
    judged_HW = mask_HW if known_HW is None else mask_HW & known_HW
    small = _panel_size(height, width)
    error_map_HWC = hatch_unknown(draw_error_map(image_HWC, truth_HW, judged_HW), known_HW)
    return {
        "photo": _jpeg(fit_image(image_HWC, small)),
        "truth": _mask_png(truth_HW, small, known_HW),
        "prediction": _mask_png(mask_HW, small),
        "error map": _jpeg(fit_image(error_map_HWC, small)),
        "worst spot, close up": _jpeg(error_map_HWC[_worst_spot(truth_HW != judged_HW)]),
    }


def _panel_size(height: int, width: int) -> Placement:
    """Fit a picture into a panel without enlarging it."""
    scale = min(PANEL_PX / height, PANEL_PX / width, 1.0)
    small_height, small_width = (max(16, round(side * scale)) for side in (height, width))
    return plan((height, width), Geometry(height_px=small_height, width_px=small_width))


def _worst_spot(wrong_HW: BoolArray) -> tuple[slice, slice]:
    """Return the window of CLOSE_UP_HW, inside the picture, around the pixel with the most wrong ones near it."""
    size_HW = [min(side, limit) for side, limit in zip(wrong_HW.shape, CLOSE_UP_HW, strict=True)]
    density_HW = cv2.boxFilter(wrong_HW.astype(np.float32), -1, size_HW[::-1], borderType=cv2.BORDER_CONSTANT)
    center = np.unravel_index(int(density_HW.argmax()), wrong_HW.shape)
    starts = [
        min(max(int(middle) - size // 2, 0), side - size)
        for middle, size, side in zip(center, size_HW, wrong_HW.shape, strict=True)
    ]
    rows, columns = (slice(start, start + size) for start, size in zip(starts, size_HW, strict=True))
    return rows, columns


def _mask_png(mask_HW: BoolArray, small: Placement, known_HW: BoolArray | None = None) -> str:
    soft_HW1 = fit_mask(mask_HW.astype(np.uint8) * np.uint8(255), small)[..., None]
    small_known_HW = None if known_HW is None else fit_known(known_HW, small)
    return _data_url("png", encode_png(hatch_unknown(soft_HW1, small_known_HW)))


def _jpeg(image_HWC: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_HWC)).save(file, "JPEG", quality=_JPEG_QUALITY)
    return _data_url("jpeg", file.getvalue())


def _data_url(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Turn nested values into lines of name and text."""
    lines: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
            lines += _flatten({f"{name} {number}": item for number, item in enumerate(value, start=1)}, prefix)
        elif isinstance(value, Mapping):
            lines += _flatten(value, f"{prefix}{name} · ")
        else:
            lines.append((f"{prefix}{name}", "unknown" if value is None else str(value)))
    return lines
