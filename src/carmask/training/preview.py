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
from carmask.training.data_loading import seed_step, to_batch

PHOTOS = 4
VARIATIONS = 6
TILE_WIDTH_PX = 240


def augmented_sheet(pairs: Sequence[Pair], settings: TrainSettings) -> NDArray[np.uint8]:
    """Draw a few photos, each unchanged and in several augmentations, with the mask over it (uint8, H x W x 3)."""
    chosen = spread(pairs, PHOTOS)
    key = settings.cache_key()
    augment = Augmenter(settings.augment, channels=key.channels)
    images, masks, _, _ = zip(*(fit_pair(pair, key) for pair in chosen), strict=True)
    columns = [to_batch(np.stack(images), np.stack(masks), torch.device("cpu"))]
    for variation in range(VARIATIONS):
        seed_step(settings.seed, variation)
        # All photos in one batch, because copy-paste takes vehicles from the batch's other photos.
        columns.append(augment(*(tensor.clone() for tensor in columns[0])))
    names = ["as it is", *map(str, range(1, VARIATIONS + 1))]
    tiles = [
        (f"{pair.id} {name}" if name == names[0] else name, _overlaid(images_BCHW[place], soft_B1HW[place, 0]))
        for place, pair in enumerate(chosen)
        for name, (images_BCHW, soft_B1HW) in zip(names, columns, strict=True)
    ]
    return sheet(tiles, columns=VARIATIONS + 1, tile_width_px=TILE_WIDTH_PX)


def _overlaid(image_CHW: torch.Tensor, soft_HW: torch.Tensor) -> NDArray[np.uint8]:
    image_HWC = (image_CHW.expand(3, -1, -1).permute(1, 2, 0) * 255).round().byte().contiguous().numpy()
    return draw_overlay(image_HWC, soft_HW.numpy() >= 0.5)
