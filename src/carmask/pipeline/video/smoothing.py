"""Temporal smoothing: edges do not flicker, and moving vehicles leave no trail."""

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.segmenter import Fitted, Raw

# The weight of the previous frame where nothing moves.
_WEIGHT = 0.6

# Mean difference of a pixel's neighborhood from the previous frame, in levels of 255: below the first value it is noise
# of the camera or the codec, from the second on something moves.
_STILL, _MOVING = 3.0, 9.0
_NEIGHBORHOOD_PX = 9
# From this mean difference of a whole frame on, it is a cut.
_CUT = 40.0


class TemporalSmoother:
    """Exponential smoothing of the networks' probabilities over the frames of one video, on their canvases.

    Where the picture does not change, the previous frame weighs most; where it changes it weighs nothing, so that a
    moving vehicle leaves no trail and uncovered background is free at once. A cut starts anew.
    """

    def __init__(self) -> None:
        change_L = np.arange(256, dtype=np.float32)
        stillness_L = np.clip((_MOVING - change_L) / (_MOVING - _STILL), 0, 1)
        # The weight of the previous frame, by the change of a pixel's neighborhood in levels.
        self._weight_L = (_WEIGHT * stillness_L).astype(np.float32)
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
