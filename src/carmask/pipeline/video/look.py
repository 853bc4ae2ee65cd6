"""A frame and its probability to what the result shows."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.imaging.background import parse_background
from carmask.imaging.cutout import cut_out
from carmask.imaging.draw import draw_overlay
from carmask.pipeline.video.kinds import Look

# image_HWC uint8 RGB, probability_HW float32 0..1, the threshold from which on a pixel belongs to the mask; to pixels
# that are uint8 with 1 (gray), 3 (RGB) or 4 (RGBA) channels.
Compositor = Callable[[NDArray[np.uint8], NDArray[np.float32], float], NDArray[np.uint8]]


def compositor(look: Look) -> Compositor:
    """What makes a result's frame of a photo and the probability of foreground, in any thread.

    look: overlay is the mask laid over the frame, cutout the vehicle on a background, mask white on black, soft the
    probability as gray.

    Raises:
        CarmaskError: there is no such background.

    """
    if look.kind == "mask":
        return lambda _, probability_HW, threshold: _as_gray(probability_HW >= threshold)
    if look.kind == "soft":
        return lambda _, probability_HW, __: cv2.convertScaleAbs(probability_HW, alpha=255)[..., None]
    if look.kind == "overlay":
        return lambda image_HWC, probability_HW, threshold: draw_overlay(image_HWC, probability_HW >= threshold)
    background = parse_background(look.background)
    return lambda image_HWC, probability_HW, threshold: cut_out(
        image_HWC, probability_HW, background, threshold=threshold
    )


def _as_gray(mask_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return (mask_HW.view(np.uint8) * np.uint8(255))[..., None]
