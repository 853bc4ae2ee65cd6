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
from torch.nn import functional

from carmask.data.copy_paste import CopyPaste

# An interpolated pixel is known from this share on.
_ALL_KNOWN = 1 - 1e-3
# At night a photo has less than a tenth of the light of day.
_DARKEST = 0.08
# A wet floor mirrors at most this share of the light.
_MOST_MIRRORED = 0.6
# A blurred image has one value for each square of this side, as if it had been small and was magnified.
_BLUR_PX = 2
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
    brightness: float = Field(default=0.3, ge=0, le=1, description="largest change of brightness, as a share of white")
    contrast: float = Field(default=0.3, ge=0, le=1, description="largest change of contrast, as a share")
    saturation: float = Field(default=0.3, ge=0, le=1, description="largest change of saturation, as a share")
    hue: float = Field(default=0.03, ge=0, le=0.5, description="largest change of hue, as a share of the color circle")
    gray: float = Field(default=0.1, ge=0, le=1, description="probability of gray instead of color")
    zoom: float = Field(
        default=1.0, ge=1, le=8, description="largest magnification and largest reduction, equally likely; 1 for none"
    )
    turn: float = Field(
        default=0, ge=0, le=1, description="probability of a rotation by 90 degrees, for photos without an orientation"
    )
    wet: float = Field(default=0, ge=0, le=1, description="probability that the ground mirrors the vehicle above it")
    dark: float = Field(default=0, ge=0, le=1, description="probability that the light is dimmed, as at dusk or night")
    tint: float = Field(default=0, ge=0, le=0.5, description="largest change of each color's gain, as a share")
    blur: float = Field(default=0, ge=0, le=1, description="probability of a blur")
    noise: float = Field(
        default=0, ge=0, le=0.5, description="largest standard deviation of noise, as a share of white"
    )
    copy_paste: float = Field(
        default=0.0, ge=0, le=1, description="probability that another photo's vehicle is pasted over the image"
    )

    @classmethod
    def off(cls) -> "AugmentSettings":
        """No variation at all, as in the recipe `small` was published with."""
        return cls(
            flip=0, geometric=0, color=0, gray=0, zoom=1, turn=0, wet=0, dark=0, tint=0, blur=0, noise=0, copy_paste=0
        )

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
    """Callable: images, soft masks and where these are known, to augmented tensors of the same shapes and ranges.

    `image_BCHW` and `soft_B1HW` are float32 0..1; `known_B1HW` is float32 0 or 1, or None if all is known. A pixel
    stays known only if all of what it is interpolated from is known.
    """

    def __init__(self, settings: AugmentSettings, *, channels: int) -> None:
        self._settings = settings
        self._geometric = _geometric_operations(settings)
        self._color = _color_operations(settings, channels)
        self._copy_paste = CopyPaste(settings.copy_paste) if settings.copy_paste else None

    @torch.no_grad()
    def __call__(
        self, image_BCHW: Tensor, soft_B1HW: Tensor, known_B1HW: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Augment each image of the batch by its own random draw."""
        mask_BCHW = soft_B1HW if known_B1HW is None else torch.cat((soft_B1HW, known_B1HW), dim=1)
        with torch.autocast(image_BCHW.device.type, enabled=False):
            if self._geometric is not None:
                image_BCHW, mask_BCHW = self._geometric(image_BCHW, mask_BCHW)
            if self._settings.zoom > 1:
                image_BCHW, mask_BCHW = random_zoom(image_BCHW, mask_BCHW, self._settings.zoom)
            if self._settings.wet:
                image_BCHW = random_mirror(image_BCHW, mask_BCHW[:, :1], self._settings.wet)
            if self._settings.turn:
                image_BCHW, mask_BCHW = random_turn(image_BCHW, mask_BCHW, self._settings.turn)
            soft_B1HW = mask_BCHW[:, :1]
            known_B1HW = None if known_B1HW is None else (mask_BCHW[:, 1:] > _ALL_KNOWN).float()
            # A fourth channel is a probability, which has no light.
            color_BCHW, rest_BCHW = image_BCHW[:, :3], image_BCHW[:, 3:]
            if self._color is not None:
                color_BCHW = self._color(color_BCHW)
            color_BCHW = vary_light(color_BCHW, self._settings)
            image_BCHW = torch.cat((color_BCHW, rest_BCHW), dim=1) if rest_BCHW.shape[1] else color_BCHW
            if self._copy_paste is not None:
                image_BCHW, soft_B1HW, known_B1HW = self._copy_paste(image_BCHW, soft_B1HW, known_B1HW)
        return image_BCHW.clamp_(0, 1), soft_B1HW.clamp_(0, 1), known_B1HW


def random_zoom(image_BCHW: Tensor, mask_BCHW: Tensor, zoom: float) -> tuple[Tensor, Tensor]:
    """Magnify or reduce each image with its mask by up to `zoom`, and show a random part of it.

    The factor is drawn evenly on a logarithmic scale. What a reduced image leaves free is filled with its reflection.
    """
    # Drawn on the CPU, as Kornia does, so as not to wait for the accelerator.
    scale_B = zoom ** torch.empty(len(image_BCHW)).uniform_(-1, 1)
    # Half of the width that is shown, of which 1 is half the image. The middle keeps what is shown inside the image.
    half_B = 1 / scale_B
    middle_B2 = torch.empty(len(image_BCHW), 2).uniform_(-1, 1) * (1 - half_B).abs()[:, None]
    theta_B23 = torch.zeros(len(image_BCHW), 2, 3)
    theta_B23[:, 0, 0] = theta_B23[:, 1, 1] = half_B
    theta_B23[:, :, 2] = middle_B2
    return _sampled(image_BCHW, mask_BCHW, theta_B23)


def random_turn(image_BCHW: Tensor, mask_BCHW: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """Turn some images with their masks by 90 degrees, to the left or to the right, and fit them into their height.

    What is free beside them is filled with their reflection.
    """
    batch, _, height, width = image_BCHW.shape
    is_turned_B = torch.rand(batch) < probability
    side_B = torch.where(torch.rand(batch) < 0.5, -1.0, 1.0)
    # Grids count from -1 to 1 on both axes: a turned image is shown whole, its width in the height of the canvas.
    turned_B23 = torch.zeros(batch, 2, 3)
    turned_B23[:, 0, 1] = side_B
    turned_B23[:, 1, 0] = -side_B * (width / height) ** 2
    theta_B23 = torch.where(is_turned_B[:, None, None], turned_B23, torch.eye(2, 3))
    return _sampled(image_BCHW, mask_BCHW, theta_B23)


def random_mirror(image_BCHW: Tensor, soft_B1HW: Tensor, probability: float) -> Tensor:
    """Mirror the vehicles of some images in the ground below their lowest point; the mirror image is background."""
    batch, _, height, _ = image_BCHW.shape
    strength_B111 = (torch.rand(batch) * _MOST_MIRRORED * (torch.rand(batch) < probability)).view(-1, 1, 1, 1)
    row_H = torch.arange(height, device=image_BCHW.device)
    is_vehicle_BH = soft_B1HW.amax((1, 3)) >= 0.5
    bottom_B1 = torch.where(is_vehicle_BH, row_H, -1).amax(1, keepdim=True)
    source_BH = (2 * bottom_B1 + 1 - row_H).clamp(0, height - 1)
    is_below_BH = (row_H > bottom_B1) & (row_H <= 2 * bottom_B1 + 1)
    place_B1H1 = source_BH[:, None, :, None]
    mirrored_BCHW = image_BCHW.gather(2, place_B1H1.expand_as(image_BCHW))
    share_B1HW = soft_B1HW.gather(2, place_B1H1.expand_as(soft_B1HW)) * is_below_BH[:, None, :, None]
    return image_BCHW.lerp(mirrored_BCHW, share_B1HW * strength_B111.to(image_BCHW.device))


def _sampled(image_BCHW: Tensor, mask_BCHW: Tensor, theta_B23: Tensor) -> tuple[Tensor, Tensor]:
    """Sample images and masks where affine maps of the grid -1..1 point to, with reflections beyond the borders."""
    grid_BHW2 = functional.affine_grid(
        theta_B23.to(image_BCHW.device), [len(image_BCHW), 1, *image_BCHW.shape[2:]], align_corners=False
    )
    both_BCHW = functional.grid_sample(
        torch.cat((image_BCHW, mask_BCHW), dim=1), grid_BHW2, padding_mode="reflection", align_corners=False
    )
    channels = image_BCHW.shape[1]
    return both_BCHW[:, :channels], both_BCHW[:, channels:]


def vary_light(image_BCHW: Tensor, settings: AugmentSettings) -> Tensor:
    """Dim, tint, blur each image and add noise, by draws of its own; variations that are off draw nothing."""
    batch, channels = image_BCHW.shape[:2]
    device = image_BCHW.device

    def drawn(probability: float) -> Tensor:
        return torch.rand(batch, 1, 1, 1) < probability

    if settings.dark:
        gain_B111 = _DARKEST ** torch.rand(batch, 1, 1, 1)
        image_BCHW = image_BCHW * torch.where(drawn(settings.dark), gain_B111, torch.ones(())).to(device)
    if settings.tint:
        image_BCHW = image_BCHW * (1 + settings.tint * torch.empty(batch, channels, 1, 1).uniform_(-1, 1)).to(device)
    if settings.blur:
        small_BChw = functional.avg_pool2d(image_BCHW, _BLUR_PX)
        blurred_BCHW = functional.interpolate(small_BChw, size=image_BCHW.shape[2:], mode="bilinear")
        image_BCHW = torch.where(drawn(settings.blur).to(device), blurred_BCHW, image_BCHW)
    if settings.noise:
        std_B111 = settings.noise * torch.rand(batch, 1, 1, 1).to(device)
        image_BCHW = image_BCHW + std_B111 * torch.randn_like(image_BCHW)
    return image_BCHW


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
    if channels >= 3:
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
