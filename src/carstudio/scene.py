"""The empty studio: turntable, gray floor, round wall with the studio's sign; and the car's shadow."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from carstudio.arrays import FloatArray, smoothstep
from carstudio.blueprints import TIRE_WIDTH_M
from carstudio.body import Shape
from carstudio.raster import PinholeCamera

# Thin letters, then bold ones, as car dealers have them.
_SIGNS = (("CAR", "MASK"), ("TURN", "TABLE"), ("MOTO", "RAMA"), ("AUTO", "HAUS"), ("STUDIO", "16"), ("FORE", "COURT"))
_TABLE_RADIUS_M, _TABLE_GAP_M = 3.1, 0.012
_TABLE_MAP_M = 8.0  # side of the square map that carries the table's seams and the shadow
_TABLE_MAP_PX = 1024
# Under the car: growth of its outline, blur (meters) and depth of the wide, the close and the innermost shadow.
_SHADOWS = ((0.0, 0.32, 0.25), (-0.16, 0.16, 0.40), (-0.30, 0.10, 0.55))


@dataclass(frozen=True)
class Studio:
    """One session's room: the same for all views of a car."""

    wall_radius_m: float
    floor_rgb: FloatArray
    wall_rgb: FloatArray
    sign: tuple[str, str]
    sign_height_m: float
    sign_foot_m: float
    sign_turn_m: float  # along the wall, to the right
    sign_rgb: FloatArray
    gloss: float
    seed: tuple[int, ...]
    camera_distance_m: float
    camera_height_m: float
    camera_pitch_rad: float
    camera_pan_rad: float
    focal_share: float  # focal length as a share of the picture's width

    def camera(self, size_HW: tuple[int, int]) -> PinholeCamera:
        """The session's camera; a picture that is not 3:2 is cut or extended, never squeezed."""
        reference_px = min(size_HW[1], 1.5 * size_HW[0])
        return PinholeCamera(
            self.camera_distance_m,
            self.camera_height_m,
            self.camera_pitch_rad,
            self.camera_pan_rad,
            self.focal_share * reference_px,
            size_HW,
        )


def furnish(seed: int, number: int) -> Studio:
    """The room in which car `number` was photographed."""
    rng = np.random.default_rng([seed, number, 1])
    warmth = rng.normal(0, 0.012)
    tint = np.array([1 + warmth, 1.0, 1 - warmth], dtype=np.float32)
    return Studio(
        wall_radius_m=float(rng.uniform(5.6, 6.4)),
        floor_rgb=np.float32(rng.uniform(0.17, 0.28)) * tint * np.array([0.97, 1, 1.03], dtype=np.float32),
        wall_rgb=np.float32(rng.uniform(0.7, 0.95)) * tint,
        sign=_SIGNS[int(rng.integers(len(_SIGNS)))],
        sign_height_m=float(rng.uniform(1.15, 1.4)),
        sign_foot_m=float(rng.uniform(0.12, 0.25)),
        sign_turn_m=float(rng.uniform(-0.5, 0.5)),
        sign_rgb=np.float32(rng.uniform(0.04, 0.07)) * tint,
        gloss=float(rng.uniform(0.08, 0.2)),
        seed=(seed, number, 2),
        camera_distance_m=float(rng.uniform(5.5, 5.8)),
        camera_height_m=float(rng.uniform(1.75, 2.0)),
        camera_pitch_rad=float(np.radians(rng.uniform(10.5, 12))),
        camera_pan_rad=float(np.radians(rng.uniform(-0.6, 0.6))),
        focal_share=float(rng.uniform(0.785, 0.83)),
    )


@dataclass(frozen=True)
class Backdrop:
    """The empty room as the camera sees it.

    Of the rows with floor also each pixel's place on it, (x, y) in meters, and the share of the pixel that is floor.
    """

    radiance_HW3: FloatArray
    floor_rows: slice
    floor_xy_HW2: FloatArray
    floor_share_HW: FloatArray


def paint_backdrop(studio: Studio, camera: PinholeCamera) -> Backdrop:
    """Cast one ray per pixel at the floor and at the wall around it."""
    rays = camera.rays()
    origin = camera.position.astype(np.float32)
    x, y, z = rays[..., 0], rays[..., 1], rays[..., 2]
    # Where the ray leaves the cylinder of the wall: |origin + t * ray| = radius in the plane.
    flat = x * x + y * y
    along = origin[1] * y
    t_wall = (-along + np.sqrt(np.maximum(along**2 - flat * (origin[1] ** 2 - studio.wall_radius_m**2), 0))) / flat
    wall_height = origin[2] + t_wall * z
    # How much of a pixel at the foot of the wall is floor.
    share = np.clip(0.5 - wall_height / (t_wall / np.float32(camera.focal_px)), 0, 1)
    # The sign is drawn a little finer than it is seen, so that it is neither blurred nor jagged.
    sign_px_per_m = 1.3 * camera.focal_px / (studio.camera_distance_m + studio.wall_radius_m)
    radiance = _wall(studio, origin + t_wall[..., None] * rays, sign_px_per_m)
    rows = slice(int(np.argmax((share > 0).any(axis=1))), camera.size_HW[0])
    share, below = share[rows], np.minimum(z[rows], -1e-3)
    t_floor = np.minimum(-origin[2] / below, t_wall[rows])
    ground = origin[:2] + t_floor[..., None] * rays[rows, :, :2]
    radiance[rows] += (_floor(studio, ground) - radiance[rows]) * share[..., None]
    return Backdrop(radiance, rows, ground, share)


def _wall(studio: Studio, place_HW3: FloatArray, sign_px_per_m: float) -> FloatArray:
    x, y, z = place_HW3[..., 0], place_HW3[..., 1], place_HW3[..., 2]
    round_m = np.arctan2(x, y) * np.float32(studio.wall_radius_m)
    scale = sign_px_per_m
    sign = _draw_sign(studio.sign, round(scale * studio.sign_height_m))
    column = (round_m - studio.sign_turn_m) * scale + sign.shape[1] / 2
    row = (studio.sign_foot_m + studio.sign_height_m - z) * scale
    letters = cv2.remap(sign, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    light = 0.93 + 0.10 * smoothstep(0.0, 2.2, z) - 0.10 * smoothstep(1.5, 5.5, np.abs(x))
    light = light * (0.86 + 0.14 * smoothstep(-0.02, 0.10, z))
    wall = light[..., None] * studio.wall_rgb
    painted: FloatArray = wall + (studio.sign_rgb - wall) * letters[..., None]
    return painted


def _draw_sign(words: tuple[str, str], height_px: int) -> FloatArray:
    """Both words in one line, the second bold, widely set; 0..1, float32, capitals `height_px` high."""
    height_px = max(height_px, 8)
    font = ImageFont.load_default(size=1.35 * height_px)
    spacing = round(0.24 * height_px)
    letters = []
    for word, stroke in zip(words, (0, max(1, round(0.035 * height_px))), strict=True):
        for letter in word:
            left, top, right, bottom = (round(edge) for edge in font.getbbox(letter, stroke_width=stroke))
            canvas = Image.new("L", (right - left, bottom - top), 0)
            ImageDraw.Draw(canvas).text((-left, -top), letter, 255, font, stroke_width=stroke)
            drawn = cv2.resize(np.asarray(canvas), (canvas.width, height_px), interpolation=cv2.INTER_AREA)
            letters += [drawn, np.zeros((height_px, spacing), dtype=np.uint8)]
    return np.pad(np.hstack(letters), 2).astype(np.float32) / 255


def _floor(studio: Studio, ground_HW2: FloatArray) -> FloatArray:
    x, y = ground_HW2[..., 0], ground_HW2[..., 1]
    distance = np.hypot(x, y)
    # Darker toward the wall, lit in front; the table itself a touch brighter.
    light = 1.0 - 0.18 * smoothstep(1.5, studio.wall_radius_m, y) + 0.25 * smoothstep(0.5, 4.5, -y)
    light = light * (1 + 0.04 * (distance < _TABLE_RADIUS_M))
    rng = np.random.default_rng(studio.seed)
    stains = cv2.resize(rng.normal(0, 1, (24, 24)).astype(np.float32), (256, 256), interpolation=cv2.INTER_CUBIC)
    scale = 256 / (2 * studio.wall_radius_m)
    light = light * (1 + 0.018 * cv2.remap(stains, (x + studio.wall_radius_m) * scale,
                                            (y + studio.wall_radius_m) * scale, cv2.INTER_LINEAR))  # fmt: skip
    # Far away a pixel is wider than the gap around the table, which then darkens only its share of the pixel.
    pixel_m = np.abs(np.gradient(distance, axis=0)) + np.abs(np.gradient(distance, axis=1))
    gap_m = np.maximum(pixel_m, _TABLE_GAP_M)
    ring = np.clip(1.5 - np.abs(distance - _TABLE_RADIUS_M) / (0.5 * gap_m), 0, 1) * _TABLE_GAP_M / gap_m
    light = light * (1 - 0.55 * ring)
    painted: FloatArray = light[..., None] * studio.floor_rgb
    return painted


def table_map(shape: Shape) -> FloatArray:
    """Light that reaches the turntable around the car, 0..1, float32: seams and shadow, in the car's own frame.

    A square of `_TABLE_MAP_M`, the car's middle in its middle; columns run forwards, rows to the car's left.
    """
    plan = shape.car.plan
    scale = _TABLE_MAP_PX / _TABLE_MAP_M

    def px(x: float, y: float) -> tuple[int, int]:
        return round((x + _TABLE_MAP_M / 2) * scale), round((y + _TABLE_MAP_M / 2) * scale)

    seams = np.ones((_TABLE_MAP_PX, _TABLE_MAP_PX), dtype=np.float32)
    for y in (-1.6, 0.0, 1.6):
        cv2.line(seams, px(-4, y), px(4, y), 0.86, 1, cv2.LINE_AA)
    for x in (-1.9, 1.9):
        cv2.line(seams, px(x, -4), px(x, 4), 0.86, 1, cv2.LINE_AA)
    half, wide = plan.length / 2, plan.width / 2
    light = seams
    for grow, blur_m, depth in _SHADOWS:
        light = light * (1 - depth * _soft_box(half + grow, wide + grow, blur_m, (0.0, 0.0)))
    for x in shape.wheel_x:
        for side in (-1, 1):
            y = side * shape.car.wheel_y
            light = light * (1 - 0.85 * _soft_box(0.16, TIRE_WIDTH_M / 2, 0.035, (x, y)))
    return light.astype(np.float32)


def _soft_box(half_x_m: float, half_y_m: float, blur_m: float, center: tuple[float, float]) -> FloatArray:
    """A box on the table map blurred by about `blur_m`: the product of two soft steps along each axis."""
    at = (np.arange(_TABLE_MAP_PX) + 0.5) / _TABLE_MAP_PX * _TABLE_MAP_M - _TABLE_MAP_M / 2

    def soft(half_m: float, middle: float) -> FloatArray:
        inside = half_m - np.abs(at - middle)
        return smoothstep(-1.8 * blur_m, 1.8 * blur_m, inside).astype(np.float32)

    return soft(half_y_m, center[1])[:, None] * soft(half_x_m, center[0])[None, :]


def light_on_floor(backdrop: Backdrop, table: FloatArray, to_world: FloatArray) -> FloatArray:
    """Share of light left on the floor's rows (rows, W), float32, with the car turned to its place."""
    inverse = to_world[:2, :2].T.astype(np.float32)
    offset = to_world[:2, 3].astype(np.float32)
    local = (backdrop.floor_xy_HW2 - offset) @ inverse.T
    scale = np.float32(_TABLE_MAP_PX / _TABLE_MAP_M)
    at = (local + np.float32(_TABLE_MAP_M / 2)) * scale
    light = cv2.remap(table, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=1.0)
    left: FloatArray = 1 + (light - 1) * backdrop.floor_share_HW
    return left
