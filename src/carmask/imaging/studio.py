"""An empty photo studio as a background: a light wall that turns into a lit floor without a corner."""

import numpy as np
from numpy.typing import NDArray

from carmask.imaging.geometry import Size

# Levels of the wall at the top and where it meets the floor, and of the floor there and at the lower edge of the
# picture. Blue is a little stronger than red, as daylight lamps make it.
_WALL = (206.0, 232.0)
_FLOOR = (226.0, 198.0)
_TINT = np.array([-2.0, 0.0, 2.5])
# As shares of the height: how far above the wheels the wall begins, and how softly the floor turns into it.
_HORIZON_ABOVE, _TURN = 0.17, 0.10
# The light of the lamp on the floor below the vehicle, and how much darker the corners are.
_LAMP, _CORNERS = 26.0, 20.0
# So many rows are drawn at once: in float64 the whole picture would take a hundred bytes for each pixel.
_ROWS = 64


def draw_studio(size_HW: Size, floor: float) -> NDArray[np.uint8]:
    """Return the studio, uint8 RGB sRGB (height, width, 3).

    floor: where the wheels stand, as a share 0..1 of the height. Levels are dithered with interleaved gradient noise
    (Jimenez, "Next Generation Post Processing in Call of Duty", SIGGRAPH 2014), so that no steps are visible.
    """
    height = size_HW[0]
    studio_HW3 = np.empty((*size_HW, 3), dtype=np.uint8)
    for first in range(0, height, _ROWS):
        rows = np.arange(first, min(first + _ROWS, height))
        studio_HW3[rows[0] : rows[-1] + 1] = _draw_rows(rows, size_HW, floor)
    return studio_HW3


def _draw_rows(rows: NDArray[np.intp], size_HW: Size, floor: float) -> NDArray[np.float64]:
    """Levels 0..255 of some rows of the studio, whole numbers."""
    height, width = size_HW
    y_H1 = ((rows + 0.5) / height)[:, None]
    x_1W = ((np.arange(width) + 0.5) / width)[None, :]
    horizon = floor - _HORIZON_ABOVE
    wall_H1 = _WALL[0] + (_WALL[1] - _WALL[0]) * np.clip(y_H1 / max(horizon, 0.05), 0, 1) ** 1.5
    depth_H1 = np.clip((y_H1 - horizon) / max(1 - horizon, 0.05), 0, 1)
    ground_H1 = _FLOOR[0] + (_FLOOR[1] - _FLOOR[0]) * depth_H1
    turn_H1 = np.clip((y_H1 - horizon) / _TURN + 0.5, 0, 1)
    turn_H1 = turn_H1 * turn_H1 * (3 - 2 * turn_H1)
    lamp_HW = np.exp(-(((x_1W - 0.5) / 0.42) ** 2) - ((y_H1 - floor) / 0.2) ** 2)
    corner_HW = np.clip(((x_1W - 0.5) / 0.5) ** 2 + ((y_H1 - 0.5) / 0.5) ** 2, 0, 2) / 2
    level_HW = wall_H1 * (1 - turn_H1) + (ground_H1 + _LAMP * lamp_HW) * turn_H1 - _CORNERS * corner_HW**1.5
    row_H1, column_1W = rows[:, None], np.arange(width)[None, :]
    noise_HW = np.modf(52.9829189 * np.modf(0.06711056 * column_1W + 0.00583715 * row_H1)[0])[0]
    level_HW3 = level_HW[..., None] + _TINT + noise_HW[..., None]
    levels_HW3: NDArray[np.float64] = np.clip(np.floor(level_HW3), 0, 255)
    return levels_HW3
