"""A sheet of what training sees: photos and soft masks as they are varied."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from carmask.data.augment import Augmenter
from carmask.data.pairs import Pair, load_soft_mask
from carmask.imaging.decode import decode_photo
from carmask.imaging.draw import draw_overlay, sheet
from carmask.imaging.geometry import fit_image, fit_mask, plan
from carmask.models.presets import PRESETS
from carmask.training.batches import seed_step
from carmask.training.settings import TrainSettings

TILE_WIDTH_PX = 240


def augmented_sheet(
    pairs: Sequence[Pair], settings: TrainSettings, *, photos: int = 4, variations: int = 6
) -> NDArray[np.uint8]:
    """Draw each of a few photos as it is and in several variations, the mask laid over (uint8, H x W x 3)."""
    chosen = [pairs[place] for place in np.linspace(0, len(pairs) - 1, min(photos, len(pairs))).round().astype(int)]
    unet = PRESETS[settings.preset].unet
    augment = Augmenter(settings.augment, channels=unet.in_channels)
    tiles: list[tuple[str, NDArray[np.uint8]]] = []
    for place, pair in enumerate(chosen):
        image_CHW, soft_HW = _fit(pair, settings, unet.in_channels, unet.stride_px)
        tiles.append((f"{pair.id} as it is", _overlaid(image_CHW, soft_HW)))
        for variation in range(variations):
            seed_step(settings.seed, place * variations + variation)
            varied_1CHW, varied_11HW = augment(image_CHW[None].clone(), soft_HW[None, None].clone())
            tiles.append((f"{variation + 1}", _overlaid(varied_1CHW[0], varied_11HW[0, 0])))
    return sheet(tiles, columns=variations + 1, tile_width_px=TILE_WIDTH_PX)


def _fit(pair: Pair, settings: TrainSettings, channels: int, stride_px: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Image (C x H x W) and soft mask (H x W), float32 0..1, as the cache would hold them."""
    geometry = settings.geometry()
    photo = decode_photo(pair.image, channels=channels, at_least_HW=geometry.size_HW)
    placement = plan(photo.size_HW, geometry, stride_px=stride_px)
    image_HWC = fit_image(photo.image_HWC, placement)
    soft_HW = fit_mask(load_soft_mask(pair, foreground=settings.dataset.foreground).soft_HW, placement)
    return torch.from_numpy(image_HWC).permute(2, 0, 1).float() / 255, torch.from_numpy(soft_HW).float() / 255


def _overlaid(image_CHW: torch.Tensor, soft_HW: torch.Tensor) -> NDArray[np.uint8]:
    image_HWC = (image_CHW.expand(3, -1, -1).permute(1, 2, 0) * 255).round().byte().contiguous().numpy()
    return draw_overlay(image_HWC, soft_HW.numpy() >= 0.5)
