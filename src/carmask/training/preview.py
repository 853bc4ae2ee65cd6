"""A sheet of augmented photos with their masks, as training sees them."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from carmask.data.augment import Augmenter
from carmask.data.cache import fit_pair
from carmask.data.pairs import Pair, spread
from carmask.imaging.draw import draw_overlay, sheet
from carmask.training.config import TrainSettings
from carmask.training.data_loading import Batch, seed_step, stack, to_batch
from carmask.training.datasets import FittedPair

PHOTOS = 4
VARIATIONS = 6
TILE_WIDTH_PX = 240


def augmented_sheet(pairs: Sequence[Pair], settings: TrainSettings) -> NDArray[np.uint8]:
    """Draw a few photos, each unchanged and in several augmentations, with the mask over it (uint8, H x W x 3)."""
    chosen = spread(pairs, PHOTOS)
    key = settings.cache_key(settings.dataset)
    augment = Augmenter(settings.augment, channels=key.channels)
    fitted = [FittedPair(*fit_pair(pair, key)[:3]) for pair in chosen]
    columns = [to_batch(stack(fitted), torch.device("cpu"))]
    for variation in range(VARIATIONS):
        seed_step(settings.seed, variation)
        # All photos in one batch, because copy-paste takes vehicles from the batch's other photos.
        columns.append(Batch(*augment(*columns[0].clone())))
    names = ["as it is", *map(str, range(1, VARIATIONS + 1))]
    tiles = [
        (
            f"{pair.id} {name}" if name == names[0] else name,
            _overlaid(batch.images_BCHW[place], batch.soft_B1HW[place, 0]),
        )
        for place, pair in enumerate(chosen)
        for name, batch in zip(names, columns, strict=True)
    ]
    return sheet(tiles, columns=VARIATIONS + 1, tile_width_px=TILE_WIDTH_PX)


def _overlaid(image_CHW: torch.Tensor, soft_HW: torch.Tensor) -> NDArray[np.uint8]:
    image_HWC = (image_CHW[:3].expand(3, -1, -1).permute(1, 2, 0) * 255).round().byte().contiguous().numpy()
    return draw_overlay(image_HWC, soft_HW.numpy() >= 0.5)
