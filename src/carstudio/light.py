"""How the studio lights a surface: its reflection in all directions, and the shading of lacquer, glass and rubber."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from carstudio.arrays import FloatArray, smoothstep

# Radiance in the picture's linear units, where a white wall at normal exposure is about 0.8.
_FLOOR, _FLOOR_BELOW_CAR = 0.30, 0.10
_WALL_LOW, _WALL_HIGH = 0.6, 1.0
_CEILING, _SOFTBOX = 0.5, 2.8
_DARK_STUDIO = 0.22  # the unlit hall behind the camera
_GRAZING = 0.5  # the rest of Schlick's formula, halved: photographers of cars turn a polarizing filter
_F0_LACQUER = 0.05  # mirror reflection at right angles, refractive index 1.54


@dataclass
class Material:
    """Per sample: base color (N, 3) in linear light, share of clear mirror gloss, share of metal flake."""

    color_N3: FloatArray
    gloss_N: FloatArray
    flake_N: FloatArray

    def cover(self, share_N: FloatArray, color: tuple[float, float, float], gloss: float, flake: float = 0.0) -> None:
        """Paint over: `share_N` 0..1 says how much of each sample the new color takes."""
        index = np.flatnonzero(share_N)
        new = share_N[index].astype(np.float32)
        self.color_N3[index] += (np.asarray(color, dtype=np.float32) - self.color_N3[index]) * new[:, None]
        self.gloss_N[index] += (np.float32(gloss) - self.gloss_N[index]) * new
        self.flake_N[index] += (np.float32(flake) - self.flake_N[index]) * new

    def darken(self, share_N: FloatArray, amount: float) -> None:
        """Multiply color and gloss by 1 - amount where `share_N` is 1: gaps, recesses."""
        index = np.flatnonzero(share_N)
        keep = 1 - np.float32(amount) * share_N[index].astype(np.float32)
        self.color_N3[index] *= keep[:, None]
        self.gloss_N[index] *= keep


def reflection(direction_N3: FloatArray) -> FloatArray:
    """Radiance (N,) that arrives from `direction_N3` (studio frame): floor, round wall, ceiling with two softboxes."""
    x, y, up = direction_N3[:, 0], direction_N3[:, 1], direction_N3[:, 2]
    floor = _FLOOR_BELOW_CAR + (_FLOOR - _FLOOR_BELOW_CAR) * smoothstep(-0.9, -0.12, up)
    wall = _WALL_LOW + (_WALL_HIGH - _WALL_LOW) * smoothstep(0.0, 0.35, up)
    behind_camera = smoothstep(-0.1, 0.9, -y) * (1 - smoothstep(0.25, 0.5, up))
    wall = wall + (_DARK_STUDIO - wall) * 0.75 * behind_camera
    height = np.maximum(up, 0.05)
    aside, ahead = np.abs(x / height), y / height
    box = (smoothstep(0.28, 0.36, aside) - smoothstep(0.95, 1.05, aside)) * (1 - smoothstep(1.5, 1.7, np.abs(ahead)))
    ceiling = _CEILING + (_SOFTBOX - _CEILING) * box
    value = wall + (ceiling - wall) * smoothstep(0.38, 0.52, up)
    radiance: FloatArray = floor + (value - floor) * smoothstep(-0.03, 0.03, up)
    return radiance


def irradiance(normal_N3: FloatArray) -> FloatArray:
    """Light (N,) that a matt surface gathers: mostly from above, a little more from the front left."""
    up = normal_N3[:, 2]
    sky = 0.26 + 0.62 * (0.5 + 0.5 * up)
    key = np.clip(0.62 * up - 0.62 * normal_N3[:, 1] - 0.40 * normal_N3[:, 0], 0, 1)
    gathered: FloatArray = sky + 0.22 * key
    return gathered


def shade(
    material: Material,
    normal_N3: FloatArray,
    view_N3: FloatArray,
    open_N: FloatArray,
) -> FloatArray:
    """Radiance (N, 3) toward the camera.

    `view_N3` points from the camera to the sample; `open_N` is 0..1, how much of the room the sample sees. Lacquer is a
    matt or metallic base below a clear coat with Schlick's approximation of the Fresnel reflection.
    """
    facing = np.clip(-np.einsum("ni,ni->n", normal_N3, view_N3), 0, 1)
    mirror_N3 = view_N3 + 2 * facing[:, None] * normal_N3
    mirrored = reflection(mirror_N3) * (0.35 + 0.65 * open_N)
    fresnel = _F0_LACQUER + _GRAZING * (1 - facing) ** 5
    matt = irradiance(normal_N3) * open_N
    # Metal flakes throw light back around the mirror direction: brighter where the surface faces the light.
    flakes = (0.25 * irradiance(mirror_N3) + 0.75 * facing * irradiance(normal_N3) + 0.35 * mirrored) * open_N
    base = matt + (flakes - matt) * material.flake_N
    clear = material.gloss_N * fresnel * mirrored
    coat = material.color_N3 * (base * (1 - material.gloss_N * fresnel))[:, None]
    radiance: FloatArray = coat + clear[:, None]
    return radiance
