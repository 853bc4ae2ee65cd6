"""A sheet of what training sees: photos and soft masks as they are varied."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from carmask.data.augment import Augmenter
from carmask.data.cache import fit_pair
from carmask.data.pairs import Pair
from carmask.imaging.draw import draw_overlay, sheet
from carmask.training.batches import seed_step, to_batch
from carmask.training.settings import TrainSettings

TILE_WIDTH_PX = 240


def augmented_sheet(
    pairs: Sequence[Pair], settings: TrainSettings, *, photos: int = 4, variations: int = 6
) -> NDArray[np.uint8]:
    """Draw each of a few photos as it is and in several variations, the mask laid over (uint8, H x W x 3)."""
    chosen = [pairs[place] for place in np.linspace(0, len(pairs) - 1, min(photos, len(pairs))).round().astype(int)]
    recipe = settings.cache_recipe()
    augment = Augmenter(settings.augment, channels=recipe.channels)
    tiles: list[tuple[str, NDArray[np.uint8]]] = []
    for place, pair in enumerate(chosen):
        image_HWC, fitted_HW, _ = fit_pair(pair, recipe)
        image_1CHW, soft_11HW = to_batch(image_HWC[None], fitted_HW[None], torch.device("cpu"))
        tiles.append((f"{pair.id} as it is", _overlaid(image_1CHW[0], soft_11HW[0, 0])))
        for variation in range(variations):
            seed_step(settings.seed, place * variations + variation)
            varied_1CHW, varied_11HW = augment(image_1CHW.clone(), soft_11HW.clone())
            tiles.append((f"{variation + 1}", _overlaid(varied_1CHW[0], varied_11HW[0, 0])))
    return sheet(tiles, columns=variations + 1, tile_width_px=TILE_WIDTH_PX)


def _overlaid(image_CHW: torch.Tensor, soft_HW: torch.Tensor) -> NDArray[np.uint8]:
    image_HWC = (image_CHW.expand(3, -1, -1).permute(1, 2, 0) * 255).round().byte().contiguous().numpy()
    return draw_overlay(image_HWC, soft_HW.numpy() >= 0.5)
