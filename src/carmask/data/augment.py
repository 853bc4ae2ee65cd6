"""Random variation of training images, moved together with their soft masks, on the device that trains.

Kornia does the work. Two of its defaults would spoil soft masks and are set aside here: masks are moved with bilinear
interpolation (nearest neighbor otherwise, half a pixel off), and everything runs in float32 (in bfloat16 a warp is
off by up to three pixels). All randomness comes from torch's global generators, which the caller seeds for each step.

Vehicles are pasted last: both they and what they are laid on have been moved and colored by their own draws, so the
light on the two differs as it does between photos, and an image that receives nothing is the same as without pasting.
"""

import math
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from carmask.data.paste import Paster

# What each probability is the probability of.
_SIZES_OF = {
    "geometric": ("shift", "scale", "rotate_deg"),
    "color": ("brightness", "contrast", "saturation", "hue"),
}


class AugmentSettings(BaseModel):
    """How far training images are varied. Zero switches a variation off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: float = Field(default=0.5, ge=0, le=1, description="probability of a horizontal flip")
    geometric: float = Field(default=0.5, ge=0, le=1, description="probability of shift, scale and rotation")
    shift: float = Field(default=0.05, ge=0, le=0.5, description="largest shift, as a share of the side")
    scale: float = Field(default=0.1, ge=0, le=0.5, description="largest change of scale, as a share")
    rotate_deg: float = Field(default=5.0, ge=0, le=45, description="largest rotation in degrees")
    color: float = Field(default=0.5, ge=0, le=1, description="probability of each of the four changes of color")
    brightness: float = Field(
        default=0.3, ge=0, le=1, description="most that is added or taken away, as a share of white"
    )
    contrast: float = Field(
        default=0.3, ge=0, le=1, description="largest change of the factor on all values, as a share"
    )
    saturation: float = Field(default=0.3, ge=0, le=1, description="largest change of saturation, as a share")
    hue: float = Field(default=0.03, ge=0, le=0.5, description="largest turn of the hue, as a share of the circle")
    gray: float = Field(default=0.1, ge=0, le=1, description="probability that the color is taken away")
    paste: float = Field(
        default=0.0, ge=0, le=1, description="probability that another photo's vehicle is laid over the image"
    )
    light_last: float = Field(
        default=0.0, ge=0, le=1, description="share of the run, at its end, in which images are only flipped"
    )

    @classmethod
    def off(cls) -> "AugmentSettings":
        """No variation at all, as in the recipe `small` was published with."""
        return cls(flip=0, geometric=0, color=0, gray=0, paste=0)

    def without_effect(self) -> dict[str, list[str]]:
        """Sizes that somebody has set and that change nothing, by the name of the probability that is 0."""
        # Settings that were written out whole say every size; then only one that is not the default was anybody's wish.
        are_whole = self.model_fields_set == type(self).model_fields.keys()

        def is_wish(name: str) -> bool:
            value, default = getattr(self, name), type(self).model_fields[name].default
            return value != 0 and name in self.model_fields_set and not (are_whole and value == default)

        found = {probability: [*filter(is_wish, sizes)] for probability, sizes in _SIZES_OF.items()}
        return {probability: sizes for probability, sizes in found.items() if sizes and not getattr(self, probability)}


class Augmenter:
    """Callable: `image_BCHW` and `soft_B1HW` (float32, 0..1) to varied tensors of the same shapes and ranges."""

    def __init__(self, settings: AugmentSettings, *, channels: int) -> None:
        self._light_from = 1 - settings.light_last if settings.light_last else math.inf
        self._flip = _geometric_operations(settings.model_copy(update={"geometric": 0}))
        self._geometric = _geometric_operations(settings)
        self._color = _color_operations(settings, channels)
        self._paste = Paster(settings.paste) if settings.paste else None

    @torch.no_grad()
    def __call__(self, image_BCHW: Tensor, soft_B1HW: Tensor, *, done: float = 0.0) -> tuple[Tensor, Tensor]:
        """Vary each image of the batch by its own draw. done: the share of the run that is behind it, 0..1."""
        light = done >= self._light_from
        move = self._flip if light else self._geometric
        with torch.autocast(image_BCHW.device.type, enabled=False):
            if move is not None:
                image_BCHW, soft_B1HW = move(image_BCHW, soft_B1HW)
            if self._color is not None and not light:
                image_BCHW = self._color(image_BCHW)
            if self._paste is not None and not light:
                image_BCHW, soft_B1HW = self._paste(image_BCHW, soft_B1HW)
        return image_BCHW.clamp_(0, 1), soft_B1HW.clamp_(0, 1)


def _geometric_operations(settings: AugmentSettings) -> Any:
    # Kornia takes a second to import and is wanted by training alone.
    import kornia.augmentation as kornia
    from kornia.constants import DataKey, Resample

    operations: list[Any] = []
    if settings.flip:
        operations.append(kornia.RandomHorizontalFlip(p=settings.flip))
    if settings.geometric and (settings.shift or settings.scale or settings.rotate_deg):
        operations.append(
            kornia.RandomAffine(
                degrees=settings.rotate_deg,
                translate=(settings.shift, settings.shift),
                scale=(1 - settings.scale, 1 + settings.scale),
                padding_mode="reflection",
                p=settings.geometric,
            )
        )
    if not operations:
        return None
    return kornia.AugmentationSequential(
        *operations,
        data_keys=["input", "mask"],
        extra_args={DataKey.MASK: {"resample": Resample.BILINEAR, "align_corners": None}},
    )


def _color_operations(settings: AugmentSettings, channels: int) -> Any:
    import kornia.augmentation as kornia

    operations: list[Any] = []
    if settings.brightness:
        operations.append(kornia.RandomBrightness(_around_one(settings.brightness), p=settings.color))
    if settings.contrast:
        operations.append(kornia.RandomContrast(_around_one(settings.contrast), p=settings.color))
    if channels == 3:
        # These mean nothing for a gray image.
        if settings.saturation:
            operations.append(kornia.RandomSaturation(_around_one(settings.saturation), p=settings.color))
        if settings.hue:
            # Kornia counts hue in turns of the circle, -0.5..0.5.
            operations.append(kornia.RandomHue((-settings.hue, settings.hue), p=settings.color))
        if settings.gray:
            operations.append(kornia.RandomGrayscale(p=settings.gray))
    operations = [operation for operation in operations if operation.p > 0]
    return torch.nn.Sequential(*operations) if operations else None


def _around_one(share: float) -> tuple[float, float]:
    return 1 - share, 1 + share
