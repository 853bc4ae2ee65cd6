"""Random augmentation of training images together with their soft masks, on the device that trains.

Kornia does the work, with two of its defaults changed for soft masks: masks are moved with bilinear interpolation
(its nearest neighbor is half a pixel off), and everything runs in float32 (in bfloat16 a warp is off by up to three
pixels). All randomness comes from torch's global generators, which the caller seeds for each step.

Copy-paste comes last: the vehicle and the image under it were moved and colored by draws of their own, so their light
differs as it does between photos, and an image that receives no vehicle is the same as without copy-paste.
"""

from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from carmask.data.copy_paste import CopyPaste

# The sizes that each probability switches on.
_SIZES_OF = {
    "geometric": ("shift", "scale", "rotate_deg"),
    "color": ("brightness", "contrast", "saturation", "hue"),
}


class AugmentSettings(BaseModel):
    """How strongly training images are varied. 0 switches a variation off."""

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
    copy_paste: float = Field(
        default=0.0, ge=0, le=1, description="probability that another photo's vehicle is pasted over the image"
    )

    @classmethod
    def off(cls) -> "AugmentSettings":
        """No variation at all, as in the recipe `small` was published with."""
        return cls(flip=0, geometric=0, color=0, gray=0, copy_paste=0)

    def without_effect(self) -> dict[str, list[str]]:
        """Sizes that were set but change nothing, by the name of the probability that is 0."""
        # A configuration that was written out in full sets every size. There, only sizes other than the default count.
        is_complete = self.model_fields_set == type(self).model_fields.keys()

        def is_wanted(name: str) -> bool:
            value, default = getattr(self, name), type(self).model_fields[name].default
            return value != 0 and name in self.model_fields_set and not (is_complete and value == default)

        found = {probability: [*filter(is_wanted, sizes)] for probability, sizes in _SIZES_OF.items()}
        return {probability: sizes for probability, sizes in found.items() if sizes and not getattr(self, probability)}


class Augmenter:
    """Callable: `image_BCHW` and `soft_B1HW` (float32, 0..1) to augmented tensors of the same shapes and ranges."""

    def __init__(self, settings: AugmentSettings, *, channels: int) -> None:
        self._geometric = _geometric_operations(settings)
        self._color = _color_operations(settings, channels)
        self._copy_paste = CopyPaste(settings.copy_paste) if settings.copy_paste else None

    @torch.no_grad()
    def __call__(self, image_BCHW: Tensor, soft_B1HW: Tensor) -> tuple[Tensor, Tensor]:
        """Augment each image of the batch by its own random draw."""
        with torch.autocast(image_BCHW.device.type, enabled=False):
            if self._geometric is not None:
                image_BCHW, soft_B1HW = self._geometric(image_BCHW, soft_B1HW)
            if self._color is not None:
                image_BCHW = self._color(image_BCHW)
            if self._copy_paste is not None:
                image_BCHW, soft_B1HW = self._copy_paste(image_BCHW, soft_B1HW)
        return image_BCHW.clamp_(0, 1), soft_B1HW.clamp_(0, 1)


def _geometric_operations(settings: AugmentSettings) -> Any:
    # Takes a second to import, and only training needs it.
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
