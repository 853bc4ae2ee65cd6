"""Smoothing over time, so that edges do not flicker, and without a trail behind what moves."""

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.segmenter import Fitted, Raw

# How much of the frame before counts where nothing moves.
_STRENGTH = 0.6

# Mean difference of neighboring pixels from the frame before, in levels of 255: below the first it is the noise of a
# camera or a codec, from the second on something moves.
_STILL, _MOVING = 3.0, 9.0
_NEIGHBORHOOD_PX = 9
# From this mean difference of a whole frame on, it is another scene.
_CUT = 40.0


class Smoother:
    """Exponential smoothing of what the networks find, frame after frame of one video, on their canvases.

    Where the picture stays the same, most of the frame before is kept; where it changes nothing is, so that a
    vehicle that moves leaves no trail and what it uncovers is free at once. After a cut it begins anew.
    """

    def __init__(self) -> None:
        change_L = np.arange(256, dtype=np.float32)
        still_L = np.clip((_MOVING - change_L) / (_MOVING - _STILL), 0, 1)
        # By the change of a pixel's neighborhood, in levels: the share of the frame before.
        self._kept_L = (_STRENGTH * still_L).astype(np.float32)
        self._before: tuple[Fitted, Raw] | None = None

    def __call__(self, fitted: Fitted, raw: Raw) -> Raw:
        """Smooth one frame's probabilities (float32 0..1); frames come in the order in which they are shown."""
        if self._before is not None:
            before, smoothed = self._before
            raw = tuple(
                self._blend(cv2.absdiff(old.image_HWC, new.image_HWC), old_HW, new_HW)
                for old, new, old_HW, new_HW in zip(before.views, fitted.views, smoothed, raw, strict=True)
            )
        self._before = fitted, raw
        return raw

    def _blend(
        self, change_HWC: NDArray[np.uint8], before_HW: NDArray[np.float32], now_HW: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        change_HW = functools.reduce(cv2.max, cv2.split(change_HWC))
        if cv2.mean(change_HW)[0] >= _CUT:
            return now_HW
        kept_HW = cv2.LUT(cv2.blur(change_HW, (_NEIGHBORHOOD_PX, _NEIGHBORHOOD_PX)), self._kept_L)
        blended_HW: NDArray[np.float32] = cv2.add(now_HW, cv2.multiply(kept_HW, cv2.subtract(before_HW, now_HW)))
        return blended_HW
