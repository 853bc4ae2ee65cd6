"""Shadows below a vehicle, from the lower outline of its mask or from its photo; no network.

The ground line joins the lowest points of the outline, where wheels stand: it is the lower side of the outline's convex
hull. What lies between the outline and that line is the ground below the vehicle, to which hardly any light comes.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.imaging.foreground import local_mean, sure_bounds
from carmask.imaging.geometry import Size
from carmask.imaging.masks import Box

Floats = NDArray[np.floating[Any]]

# Shadows have no fine detail: they are computed at a quarter of the size, that of `local_mean` too.
SHADOW_STEP = _STEP = 4
# As shares of the vehicle's width. How far the dark ground reaches below the ground line; the softness of its edge; and
# that of the wider darkness around it; each with how much light it takes.
_BELOW = 0.009
_CORE_BLUR, _CORE = 0.005, 0.62
_HALO_BLUR, _HALO = 0.022, 0.5
# Where the hull is steeper than this, or higher above its lowest point than this share of the vehicle's height, it
# joins parts of the body, not wheels.
_STEEPEST, _HIGHEST = 0.6, 0.45
# From above and near, two wheels seem to stand on a steeper line, up to this one; they are at least so far apart, which
# the end of the body is not from a wheel.
_STEEPEST_TO_WHEEL, _WHEEL_FROM = 1.8, 0.15
# The outline stands on the ground where the gap is less than this share of the width, for at least the second one.
_CONTACT_GAP, _CONTACT_LENGTH = 0.006, 0.02
# Towards the ends of the vehicle the ground below it gets light, over this share of the width.
_OVERHANG = 0.16
# The ellipse on the floor: its half axes as shares of the width, and how much light it takes.
_WIDE, _FLAT, _WIDE_STRENGTH = 0.6, 0.055, 0.38
# No shadow is higher above the ground line than this share of the width. Beside the vehicle none is above the line, and
# it is full this share of the width below it; the two join over the third share.
_RISES, _FULL_BESIDE, _JOIN = 0.12, 0.03, 0.09
# The photo's own shadow: how far it is followed beside and below the vehicle, as a share of the width; the radius in
# which the ground without shadow is looked for; the least light that is left; and the ratio from which it is full.
_OWN_REACH, _GROUND_RADIUS, _LEAST_LIGHT, _FULL_FROM = 0.2, 0.09, 0.2, 0.92
# What takes less light than this share does not join the photo's shadow to a vehicle.
_LEAST_DARK = 0.06
# How many pixels the dark ground is carried on below the edge of the vehicle, where no pixel is surely ground.
_CARRIED_PX = 24


def drawn_shadow(
    opacity_HW: NDArray[np.uint8], part: tuple[slice, slice], size_HW: Size, *, wide: bool
) -> tuple[tuple[slice, slice], NDArray[np.uint8]]:
    """Draw the shadow of a vehicle on even ground.

    Args:
        opacity_HW: Of the vehicle, uint8.
        part: Where in the picture that is.
        size_HW: Of the picture.
        wide: Whether there is also a soft ellipse on the floor, as wide as the vehicle.

    Returns:
        The part of the picture with a shadow, and how much light it takes there, uint8: 255 is black.
    """
    nothing = (slice(0, 0), slice(0, 0)), np.zeros((0, 0), dtype=np.uint8)
    outline = _lower_outline(opacity_HW)
    if outline is None:
        return nothing
    column, low = outline
    column, low = column + part[1].start, low + part[0].start
    left, right = float(column[0]), float(column[-1] + 1)
    width_px, tall_px = right - left, float(low.max()) - part[0].start
    ground = _GroundLine.of(column, low, tall_px)
    reach = round(width_px * (0.14 if wide else 0.08))
    rows = slice(max(0, int(ground.top - _RISES * width_px)), min(size_HW[0], int(ground.bottom) + reach))
    columns = slice(max(0, int(left) - reach), min(size_HW[1], int(right) + reach))
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return nothing
    y_h1 = np.arange(rows.start + _STEP / 2, rows.stop + _STEP / 2, _STEP, dtype=np.float32)[:, None]
    x_1w = np.arange(columns.start + _STEP / 2, columns.stop + _STEP / 2, _STEP, dtype=np.float32)[None]
    ground_1w = ground.at(x_1w).astype(np.float32)
    # Beside the vehicle nothing is above the ground, and nothing climbs.
    is_below_1w = (x_1w >= left) & (x_1w <= right)
    low_1w = np.interp(x_1w, column + 0.5, low).astype(np.float32)
    under_hw = np.clip((y_h1 - low_1w) / _STEP + 1.5, 0, 1)
    # Filled behind the vehicle too: a blur of what is below it alone would be light along the outline.
    fill_hw = np.clip((ground_1w + _BELOW * width_px - y_h1) / _STEP, 0, 1) * is_below_1w
    fill_hw *= _presence(x_1w, ground_1w - low_1w, (left, right))
    core_hw, halo_hw = (_blurred(fill_hw, share * width_px) for share in (_CORE_BLUR, _HALO_BLUR))
    light_hw = (1 - _CORE * core_hw) * (1 - _HALO * halo_hw)
    if wide:
        light_hw *= 1 - _WIDE_STRENGTH * _ellipse(x_1w, y_h1, ground, (left, right))
    darkness_hw = (1 - light_hw) * _fades(y_h1 - ground_1w, x_1w, (left, right)) * np.where(is_below_1w, under_hw, 1)
    return (rows, columns), _enlarged(255 * darkness_hw, (rows.stop - rows.start, columns.stop - columns.start))


def photo_shadow(
    image_HW3: NDArray[np.uint8], probability_HW: NDArray[np.float32], box_px: Box, threshold: float
) -> NDArray[np.uint8]:
    """Find the shadow that a vehicle casts in its photo: how much darker the ground is than the ground around it.

    image_HW3: uint8 RGB. probability_HW: float32 0..1, of the photo's size. box_px: around the mask. Returns the share
    of the light that is missing, uint8 0..255, at a quarter of the photo's size; 0 above the vehicle's lower outline.
    """
    top, left, bottom, right = box_px
    width_px = right - left
    background_to, _ = sure_bounds(threshold)
    is_ground_HW = probability_HW <= background_to
    light_hw = cv2.cvtColor(local_mean(image_HW3, is_ground_HW, (_STEP, width_px / 3)), cv2.COLOR_RGB2GRAY)
    parts = (slice(None, light_hw.shape[0] * _STEP, _STEP), slice(None, light_hw.shape[1] * _STEP, _STEP))
    is_ground_hw = is_ground_HW[parts]
    side = 2 * (_CARRIED_PX // _STEP) + 1
    darkest_hw = cv2.erode(np.where(is_ground_hw, light_hw, np.uint8(255)), np.ones((side, side), np.uint8))
    light_hw = np.where(is_ground_hw, light_hw, np.minimum(light_hw, darkest_hw))
    light_hw = cv2.GaussianBlur(light_hw, (0, 0), 1.4).astype(np.float32)
    # The ground without shadow: a smooth surface that rises to the brighter parts nearby.
    side = 2 * max(1, round(_GROUND_RADIUS * width_px / _STEP)) + 1
    ground_hw = light_hw
    for _round in range(4):
        ground_hw = cv2.blur(np.maximum(ground_hw, light_hw), (2 * side + 1, side))
    ratio_hw = np.clip(light_hw / (_FULL_FROM * np.maximum(ground_hw, 1)), _LEAST_LIGHT, 1)
    height_px, _width = light_hw.shape
    outline = _lower_outline(cv2.convertScaleAbs(probability_HW, alpha=127.5 / threshold))
    if outline is None:
        return np.zeros(light_hw.shape, dtype=np.uint8)
    column, low = outline
    ground = _GroundLine.of(column, low, float(bottom - top))
    y_h1 = (np.arange(height_px, dtype=np.float32)[:, None] + 0.5) * _STEP
    x_1w = (np.arange(_width, dtype=np.float32)[None] + 0.5) * _STEP
    low_1w = np.interp(x_1w, column + 0.5, low)
    reach = _OWN_REACH * width_px
    beside_1w = np.clip(np.maximum(left - x_1w, x_1w - right), 0, None) / reach
    below_hw = np.clip(y_h1 - ground.bottom, 0, None) / (0.6 * reach)
    near_hw = np.clip(1.3 * (1 - np.hypot(beside_1w, below_hw)), 0, 1)
    is_below_1w = (x_1w >= left) & (x_1w <= right)
    under_hw = np.clip((y_h1 - low_1w) / _STEP + 1, 0, 1)
    fades_hw = _fades(y_h1 - ground.at(x_1w), x_1w, (left, right))
    # A shadow that the photo's border cuts off would end in a straight line.
    height, width = probability_HW.shape
    beside_border_hw = np.minimum(height - y_h1, np.minimum(x_1w, width - x_1w))
    fades_hw = fades_hw * np.clip(beside_border_hw / (_JOIN * width_px), 0, 1)
    darkness_hw = (1 - ratio_hw) * near_hw * fades_hw * np.where(is_below_1w, under_hw, 1)
    is_vehicle_hw = probability_HW[parts] >= threshold
    return cv2.convertScaleAbs(darkness_hw * _touching(darkness_hw, is_vehicle_hw), alpha=255)  # type: ignore[no-any-return]


def _touching(darkness_hw: Floats, is_vehicle_hw: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Where a shadow is joined to the vehicle, 1, elsewhere 0, with soft edges; spots apart from it are not its own."""
    count, part_hw = cv2.connectedComponents(((darkness_hw > _LEAST_DARK) | is_vehicle_hw).view(np.uint8))
    touches = np.zeros(count, dtype=np.float32)
    touches[part_hw[is_vehicle_hw]] = 1
    kept_hw: NDArray[np.float32] = cv2.blur(cv2.dilate(touches[part_hw], np.ones((3, 3), np.uint8)), (5, 5))
    return kept_hw


@dataclass(frozen=True)
class _GroundLine:
    """The line on which a vehicle stands, through the points (x, y) in pixels, from left to right."""

    x: Floats
    y: Floats

    @classmethod
    def of(cls, column: NDArray[np.int64], low: NDArray[np.int64], tall_px: float) -> "_GroundLine":
        # Two points far above close the hull, so that all others are on its lower side.
        above = low.min() - 10 * (tall_px + 1)
        points = np.column_stack([column + 0.5, low]).astype(np.float32)
        ends = np.array([[points[0, 0], above], [points[-1, 0], above]], dtype=np.float32)
        hull = cv2.convexHull(np.concatenate([points, ends]))[:, 0].astype(np.float64)
        hull = hull[(hull[:, 1] > above) & (hull[:, 1] >= low.max() - _HIGHEST * tall_px)]
        hull = hull[np.argsort(hull[:, 0], kind="stable")]
        # From the lowest point outward it gets steeper and steeper, and what lies before a wheel is part of it.
        across, down = np.diff(hull, axis=0).T
        slope = np.abs(down) / np.maximum(across, 1e-6)
        is_to_wheel = across > _WHEEL_FROM * (column[-1] + 1 - column[0])
        on_ground = (slope <= _STEEPEST) | (is_to_wheel & (slope <= _STEEPEST_TO_WHEEL))
        lowest = int(np.argmax(hull[:, 1]))
        first = int(np.flatnonzero(on_ground[:lowest])[:1].min(initial=lowest))
        last = lowest + int((np.flatnonzero(on_ground[lowest:]) + 1).max(initial=0))
        return cls(hull[first : last + 1, 0], hull[first : last + 1, 1])

    @property
    def top(self) -> float:
        return float(self.y.min())

    @property
    def bottom(self) -> float:
        return float(self.y.max())

    def at(self, x: Floats) -> Floats:
        """The height of the ground at each column; level beyond the ends."""
        return np.interp(x, self.x, self.y)


def _fades(below_hw: Floats, x_1w: Floats, sides: tuple[float, float]) -> Floats:
    """How much of a shadow stays, 0..1, by how many pixels below the ground line a pixel is."""
    left, right = sides
    width_px = right - left
    under_hw = np.clip(2 + 2 * below_hw / (_RISES * width_px), 0, 1)
    beside_hw = np.clip(below_hw / (_FULL_BESIDE * width_px), 0, 1)
    inside_1w = np.clip(np.minimum(x_1w - left, right - x_1w) / (_JOIN * width_px), 0, 1) ** 1.5
    fades_hw: Floats = under_hw * inside_1w + beside_hw * (1 - inside_1w)
    return fades_hw


def _presence(x_1w: Floats, gap_1w: Floats, sides: tuple[float, float]) -> Floats:
    """How dark the ground below each column may be, 0..1: 1 below wheels and between the overhangs."""
    left, right = sides
    width_px = right - left
    inside_1w = np.clip(np.minimum(x_1w - left, right - x_1w) / (_OVERHANG * width_px), 0, 1)
    touches_1w = (gap_1w < _CONTACT_GAP * width_px).astype(np.uint8)
    length = np.ones((1, max(1, round(_CONTACT_LENGTH * width_px / _STEP))), dtype=np.uint8)
    wheels_1w = cv2.morphologyEx(touches_1w, cv2.MORPH_OPEN, length, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    blurred_1w = cv2.blur(wheels_1w.astype(np.float32), length.shape[::-1])
    presence_1w: Floats = np.maximum(inside_1w**2 * (3 - 2 * inside_1w), blurred_1w)
    return presence_1w


def _lower_outline(opacity_HW: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """The columns with a vehicle, and the row below its lowest pixel in each; None without a vehicle."""
    is_vehicle_HW = opacity_HW >= 128
    column = np.flatnonzero(is_vehicle_HW.any(axis=0))
    if not column.size:
        return None
    return column, len(is_vehicle_HW) - np.argmax(is_vehicle_HW[::-1, column], axis=0)


def _ellipse(x_1w: Floats, y_h1: Floats, ground: _GroundLine, sides: tuple[float, float]) -> Floats:
    left, right = sides
    half_tall = _FLAT * (right - left) + (ground.bottom - ground.top) / 2
    across_1w = (x_1w - (left + right) / 2) / (_WIDE * (right - left))
    along_h1 = (y_h1 - (ground.top + ground.bottom) / 2) / half_tall
    inside_hw = np.clip(1 - across_1w**2 - along_h1**2, 0, 1)
    smooth_hw: Floats = inside_hw * inside_hw * (3 - 2 * inside_hw)
    return smooth_hw


def _blurred(level_hw: Floats, sigma_px: float) -> NDArray[np.float32]:
    """Blur, along the ground twice as much as up and down, because the ground is seen at a slant."""
    sigma = max(0.3, sigma_px / _STEP)
    blurred_hw: NDArray[np.float32] = cv2.GaussianBlur(level_hw.astype(np.float32), (0, 0), sigma, sigmaY=sigma / 2)
    return blurred_hw


def _enlarged(level_hw: Floats, size_HW: Size) -> NDArray[np.uint8]:
    height, width = size_HW
    height_px, width_px = level_hw.shape
    level_HW = cv2.resize(level_hw, (width_px * _STEP, height_px * _STEP), interpolation=cv2.INTER_LINEAR)
    return cv2.convertScaleAbs(level_HW[:height, :width])  # type: ignore[no-any-return]
