"""Losses of logits (`logits_B1HW`, float) against soft masks (`soft_B1HW`, float 0..1), one value per image.

`known_B1HW` (float 0 or 1) says where the soft mask is known; other pixels have no part in the loss. None: everywhere.
"""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from carmask.training.config_sections import LossSettings


class Loss(Protocol):
    """`logits_B1HW`, `soft_B1HW` and `known_B1HW` to the loss of each image."""

    def __call__(self, logits_B1HW: Tensor, soft_B1HW: Tensor, known_B1HW: Tensor | None = None, /) -> Tensor:
        """Return `loss_B`."""
        ...


# Makes the Dice of an empty mask that is predicted empty one.
DICE_SMOOTHING = 1.0
# A pixel lies in the band along the edge where the mean of the mask around it lies between these.
BAND_LOWEST, BAND_HIGHEST = 0.01, 0.99
# Side of that mean's window as a share of the image's longer side: 41 px at 1024 px.
BAND_WINDOW_SHARE = 0.04


def make_loss(settings: LossSettings) -> Loss:
    """Return the loss function that the settings name."""
    losses: dict[str, Loss] = {
        "bce": cross_entropy,
        "dice": soft_dice,
        "bce+dice": bce_and_dice,
        "border": partial(border_weighted, weight=settings.border_weight),
    }
    loss = losses[settings.name]
    if settings.hard_targets:
        return lambda logits_B1HW, soft_B1HW, known_B1HW=None: loss(
            logits_B1HW, (soft_B1HW >= 0.5).to(soft_B1HW.dtype), known_B1HW
        )
    return loss


def cross_entropy(
    logits_B1HW: Tensor,
    soft_B1HW: Tensor,
    known_B1HW: Tensor | None = None,
    *,
    weights_B1HW: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy of each image, averaged over its known pixels."""
    each_B1HW = functional.binary_cross_entropy_with_logits(logits_B1HW, soft_B1HW, weights_B1HW, reduction="none")
    if known_B1HW is None:
        return each_B1HW.mean((1, 2, 3))
    return (each_B1HW * known_B1HW).sum((1, 2, 3)) / known_B1HW.sum((1, 2, 3)).clamp(min=1)


def soft_dice(
    logits_B1HW: Tensor,
    soft_B1HW: Tensor,
    known_B1HW: Tensor | None = None,
    *,
    weights_B1HW: Tensor | None = None,
) -> Tensor:
    """One minus the Dice of each image.

    With squares in the denominator (Milletari et al., "V-Net", 3DV 2016, section 3), so that it is zero exactly
    where the probability equals the soft target. Weights enter numerator and denominator alike.
    """
    probability_B1HW = logits_B1HW.sigmoid()
    weights_B1HW = torch.ones_like(soft_B1HW) if weights_B1HW is None else weights_B1HW
    if known_B1HW is not None:
        weights_B1HW = weights_B1HW * known_B1HW
    axes = (1, 2, 3)
    overlap_B = (weights_B1HW * probability_B1HW * soft_B1HW).sum(axes)
    total_B = (weights_B1HW * (probability_B1HW.square() + soft_B1HW.square())).sum(axes)
    return 1 - (2 * overlap_B + DICE_SMOOTHING) / (total_B + DICE_SMOOTHING)


def bce_and_dice(logits_B1HW: Tensor, soft_B1HW: Tensor, known_B1HW: Tensor | None = None) -> Tensor:
    """Binary cross-entropy, which moves every pixel, plus soft Dice, which is close to the metric."""
    return cross_entropy(logits_B1HW, soft_B1HW, known_B1HW) + soft_dice(logits_B1HW, soft_B1HW, known_B1HW)


def border_weighted(
    logits_B1HW: Tensor, soft_B1HW: Tensor, known_B1HW: Tensor | None = None, *, weight: float
) -> Tensor:
    """Cross-entropy plus Dice with the band along the edge weighted, as the challenge's winners trained.

    Buslaev, Shvets and Iglovikov, first place of the Carvana challenge, 2017: the band is found by average pooling, and
    weights are scaled to a mean of one.
    """
    weights_B1HW = border_weights(soft_B1HW, weight)
    return cross_entropy(logits_B1HW, soft_B1HW, known_B1HW, weights_B1HW=weights_B1HW) + soft_dice(
        logits_B1HW, soft_B1HW, known_B1HW, weights_B1HW=weights_B1HW.square()
    )


def border_weights(soft_B1HW: Tensor, weight: float) -> Tensor:
    """`weight` in the band along the mask's edge, one elsewhere, each image scaled to a mean of one."""
    window_px = 2 * round(BAND_WINDOW_SHARE * max(soft_B1HW.shape[2:]) / 2) + 1
    # Rows, then columns: the same mean for a fifteenth of the additions at 31 px.
    mean_B1HW = soft_B1HW
    for side_px in ((1, window_px), (window_px, 1)):
        half_px = (side_px[0] // 2, side_px[1] // 2)
        mean_B1HW = functional.avg_pool2d(mean_B1HW, side_px, stride=1, padding=half_px, count_include_pad=False)
    band_B1HW = (mean_B1HW > BAND_LOWEST) & (mean_B1HW < BAND_HIGHEST)
    weights_B1HW = torch.where(band_B1HW, weight, 1.0)
    return weights_B1HW / weights_B1HW.mean((1, 2, 3), keepdim=True)
