"""Frames through the networks to composited pixels, the same for video files and cameras.

Temporal smoothing keeps edges from flickering, and moving vehicles leave no trail.
"""

import functools
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.imaging.decode import Photo
from carmask.imaging.look import TRANSPARENT, Look
from carmask.imaging.masks import ALL_REGIONS, Regions
from carmask.pipeline.kinds import OutputStyle, PhotoKind, refuse_cutout_options
from carmask.result import Result
from carmask.runner import Prediction, run_segmenter
from carmask.segmenter import Fitted, Raw, Segmenter

Frame = TypeVar("Frame")
Output = TypeVar("Output")

_WORKERS = 2

# The weight of the previous frame where nothing moves.
_SMOOTHING_WEIGHT = 0.6

# Mean difference of a pixel's neighborhood from the previous frame, in levels of 255: below the first value it is noise
# of the camera or the codec, from the second on something moves.
_STILL, _MOVING = 3.0, 9.0
_NEIGHBORHOOD_PX = 9
# From this mean difference of a whole frame on, it is a cut.
_CUT = 40.0


def choose_style(kind: PhotoKind | None, background: str | None) -> OutputStyle:
    """Return the style of a result; without a kind a cutout if there is a background, otherwise an overlay.

    Raises:
        CarmaskError: the kind has no background.
    """
    if background is None:
        return OutputStyle(kind or "overlay")
    kind = kind or "cutout"
    refuse_cutout_options(kind, ["--background"])
    return OutputStyle(kind, Look(background=background.strip()))


def is_transparent(style: OutputStyle) -> bool:
    """Whether results have an alpha channel."""
    return style.kind == "cutout" and style.look.background == TRANSPARENT


def segment_frames(
    frames: Iterator[Frame],
    segmenter: Segmenter,
    to_rgb: Callable[[Frame], NDArray[np.uint8]],
    make_output: Callable[[Frame, NDArray[np.uint8], Result], Output],
    *,
    regions: Regions = ALL_REGIONS,
    smooth: bool = False,
    batch_size: int = 1,
    ahead: int = 4,
) -> Generator[tuple[Frame, Output, bool], None, None]:
    """Segment frame after frame, in display order. The thread that iterates runs the networks.

    Yields the frame as it was read, what `make_output` made of it, and whether a vehicle was found in it.

    Frames are read in a thread of their own, and at most `ahead` of them wait behind each stage. In any thread,
    `to_rgb` converts a frame to upright uint8 RGB pixels (height, width, 3), and `make_output` makes the output of
    a frame, those pixels and what was found in them.
    """

    def load(frame: Frame) -> tuple[Photo, NDArray[np.uint8]]:
        image_HWC = to_rgb(frame)
        return Photo(image_HWC, (image_HWC.shape[0], image_HWC.shape[1])), image_HWC

    def consume(prediction: Prediction[Frame, NDArray[np.uint8]]) -> tuple[Frame, Output, bool]:
        result = segmenter.result(regions.keep(prediction.probability_HW, segmenter.threshold))
        return prediction.item, make_output(prediction.item, prediction.extra, result), bool(result.mask.any())

    return run_segmenter(
        frames,
        segmenter,
        load=load,
        consume=consume,
        smooth=TemporalSmoother().smooth if smooth else None,
        batch_size=batch_size,
        workers=_WORKERS,
        ahead=ahead,
        items_in_thread=True,
    )


class TemporalSmoother:
    """Exponential smoothing of the networks' probabilities over the frames of one video, on their canvases.

    Where the picture does not change, the previous frame weighs most; where it changes it weighs nothing, so that a
    moving vehicle leaves no trail and uncovered background is free at once. A cut starts anew.
    """

    def __init__(self) -> None:
        change_L = np.arange(256, dtype=np.float32)
        stillness_L = np.clip((_MOVING - change_L) / (_MOVING - _STILL), 0, 1)
        # The weight of the previous frame, by the change of a pixel's neighborhood in levels.
        self._weight_L = (_SMOOTHING_WEIGHT * stillness_L).astype(np.float32)
        self._previous: tuple[Fitted, Raw] | None = None

    def smooth(self, fitted: Fitted, raw: Raw) -> Raw:
        """Smooth one frame's probabilities (float32 0..1); frames come in display order."""
        if self._previous is not None:
            previous, smoothed = self._previous
            raw = tuple(
                self._blend(cv2.absdiff(old.image_HWC, new.image_HWC), old_HW, new_HW)
                for old, new, old_HW, new_HW in zip(previous.views, fitted.views, smoothed, raw, strict=True)
            )
        self._previous = fitted, raw
        return raw

    def _blend(
        self, change_HWC: NDArray[np.uint8], previous_HW: NDArray[np.float32], current_HW: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        change_HW = functools.reduce(cv2.max, cv2.split(change_HWC))
        if cv2.mean(change_HW)[0] >= _CUT:
            return current_HW
        weight_HW = cv2.LUT(cv2.blur(change_HW, (_NEIGHBORHOOD_PX, _NEIGHBORHOOD_PX)), self._weight_L)
        difference_HW = cv2.subtract(previous_HW, current_HW)
        blended_HW: NDArray[np.float32] = cv2.add(current_HW, cv2.multiply(weight_HW, difference_HW))
        return blended_HW
