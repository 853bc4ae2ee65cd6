"""Backgrounds behind videos in high dynamic range: sRGB's white is shown at 203 cd/m2, as ITU-R BT.2408 says."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from carmask.imaging.background import Background, BackgroundInput
from carmask.pipeline.video.pixels import ColorProperties

# Code points of H.273: transfer characteristics of PQ and HLG (ITU-R BT.2100), and the primaries of BT.2020.
_PQ, _HLG, _BT2020 = 16, 18, 9
_WHITE_NITS, _PQ_NITS, _HLG_NITS, _HLG_GAMMA = 203.0, 10_000.0, 1000.0, 1.2
# From the primaries of BT.709 to those of BT.2020 (ITU-R BT.2087).
_TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593])


def in_video_range(background: Background, color: ColorProperties) -> Background:
    """Return a color or picture as it must be coded behind a video: the same one, but for videos in PQ or HLG."""
    if color.transfer not in (_PQ, _HLG):
        return background

    @lru_cache(maxsize=1)
    def canvas(size_HW: tuple[int, int]) -> NDArray[np.uint8]:
        blank_HW3 = np.zeros((*size_HW, 3), dtype=np.uint8)
        return to_video_range(background(BackgroundInput(blank_HW3, np.zeros(size_HW, dtype=np.float32), 0.5)), color)

    return lambda given: canvas(given.size_HW).copy()


def to_video_range(image_HW3: NDArray[np.uint8], color: ColorProperties) -> NDArray[np.uint8]:
    """Code sRGB pixels in the transfer characteristics (PQ or HLG) and primaries of a video; uint8 RGB."""
    level_HW3 = image_HW3 / 255
    linear_HW3 = np.where(level_HW3 <= 0.04045, level_HW3 / 12.92, ((level_HW3 + 0.055) / 1.055) ** 2.4)
    if color.primaries == _BT2020:
        linear_HW3 = linear_HW3 @ _TO_BT2020.T
    nits_HW3 = _WHITE_NITS * np.clip(linear_HW3, 0, 1)
    coded_HW3 = _pq(nits_HW3) if color.transfer == _PQ else _hlg(nits_HW3)
    coded: NDArray[np.uint8] = np.rint(255 * np.clip(coded_HW3, 0, 1)).astype(np.uint8)
    return coded


def _pq(nits_HW3: NDArray[np.float64]) -> NDArray[np.float64]:
    power_HW3 = (nits_HW3 / _PQ_NITS) ** (2610 / 16384)
    pq_HW3: NDArray[np.float64] = ((3424 / 4096 + 2413 / 128 * power_HW3) / (1 + 2392 / 128 * power_HW3)) ** (2523 / 32)
    return pq_HW3


def _hlg(nits_HW3: NDArray[np.float64]) -> NDArray[np.float64]:
    # From the light of a display of 1000 cd/m2 to that of the scene.
    shown_HW3 = nits_HW3 / _HLG_NITS
    luminance_HW1 = np.maximum(shown_HW3 @ _LUMINANCE, 1e-6)[..., None]
    scene_HW3 = shown_HW3 * luminance_HW1 ** ((1 - _HLG_GAMMA) / _HLG_GAMMA)
    logarithm_HW3 = 0.17883277 * np.log(np.maximum(12 * scene_HW3 - 0.28466892, 1e-6)) + 0.55991073
    hlg_HW3: NDArray[np.float64] = np.where(scene_HW3 <= 1 / 12, np.sqrt(3 * scene_HW3), logarithm_HW3)
    return hlg_HW3
