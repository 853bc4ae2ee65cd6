"""Copy-paste augmentation: vehicles cut out along their soft masks and pasted onto other images of the batch.

Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation" (CVPR 2021), here with
soft masks: pixels are mixed by the vehicle's share in them, so that image and mask agree at the edge too.
"""

import torch
from torch import Tensor
from torch.nn import functional

# Largest shift as a share of the sides, and scale. A photo's mask shows its main vehicle, large and near the middle,
# and vehicles parked behind it are background. Vehicles pasted small and anywhere would teach the opposite.
_SHIFT_XY = (0.2, 0.1)
_SCALE = (0.7, 1.2)
# Side of the box over which background is averaged: from the middle of a soft edge it reaches well into the background.
_BOX_PX = 16
_STRIDE_PX = 4
# Weight of a pixel's own color beside the background near it: it counts only where there is none.
_FALLBACK_WEIGHT = 1e-6


class CopyPaste:
    """Callable: images and soft masks (float32, 0..1) to new tensors, some with another image's vehicle on top.

    What is pasted is known; vehicles of images with unknown pixels are not pasted.

    probability: 0..1, for each image, that it receives a vehicle.
    """

    def __init__(self, probability: float) -> None:
        # Takes a second to import, and only training needs it.
        import kornia.augmentation as kornia

        self._probability = probability
        self._move = kornia.RandomAffine(degrees=0, translate=_SHIFT_XY, scale=_SCALE, padding_mode="zeros", p=1)

    def __call__(
        self, image_BCHW: Tensor, soft_B1HW: Tensor, known_B1HW: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Draw which images receive a vehicle, and for each of them an image to take it from."""
        # Drawn on the CPU, as Kornia does, so as not to wait for the accelerator.
        onto_N = (torch.rand(len(image_BCHW)) < self._probability).nonzero().flatten()
        if len(image_BCHW) < 2 or not len(onto_N):
            return image_BCHW, soft_B1HW, known_B1HW
        from_N = _sources(soft_B1HW, known_B1HW, onto_N)
        onto_N = onto_N.to(image_BCHW.device)
        # Color and alpha are moved as one tensor, so that they stay together. Colors are weighted by alpha, so that
        # interpolation mixes nothing in from where alpha is 0.
        cut_out_NCHW = self._move(_cut_out(image_BCHW[from_N], soft_B1HW[from_N]))
        color_NCHW, alpha_N1HW = cut_out_NCHW[:, :-1], cut_out_NCHW[:, -1:]
        below_N1HW = soft_B1HW[onto_N]
        if known_B1HW is not None:
            # Never a vehicle without a mask: where all images have unknown pixels, nothing is pasted.
            whole_N = known_B1HW[from_N].flatten(1).amin(1) > 0
            onto_N, color_NCHW, alpha_N1HW = onto_N[whole_N], color_NCHW[whole_N], alpha_N1HW[whole_N]
            below_N1HW = below_N1HW[whole_N]
            known_B1HW = known_B1HW.index_copy(0, onto_N, known_B1HW[onto_N].maximum((alpha_N1HW >= 1).float()))
        return (
            image_BCHW.index_copy(0, onto_N, color_NCHW + (1 - alpha_N1HW) * image_BCHW[onto_N]),
            # 1 - (1 - a)(1 - b), written so that where nothing is pasted not a bit changes.
            soft_B1HW.index_copy(0, onto_N, below_N1HW + (1 - below_N1HW) * alpha_N1HW),
            known_B1HW,
        )


def _sources(soft_B1HW: Tensor, known_B1HW: Tensor | None, onto_N: Tensor) -> Tensor:
    """For each receiving image another image of the batch, one with a vehicle and a whole mask if there is any."""
    score_NB = torch.rand(len(onto_N), len(soft_B1HW))
    score_NB[torch.arange(len(onto_N)), onto_N] = -2
    score_NB = score_NB.to(soft_B1HW.device)
    has_none_B = soft_B1HW.flatten(1).amax(1) == 0
    if known_B1HW is not None:
        has_none_B |= known_B1HW.flatten(1).amin(1) == 0
    return (score_NB - has_none_B.float()).argmax(1)


def _cut_out(image_NCHW: Tensor, alpha_N1HW: Tensor) -> Tensor:
    """The vehicles' own colors weighted by alpha (premultiplied), and alpha as the last channel.

    A pixel at the edge shows I = a F + (1 - a) B, so a F = I - (1 - a) B, with B the mean color of the sure background
    near it. Without this, a rim of the old background would show where something was pasted.

    `carmask.imaging.foreground` does the same for finished cut-outs, more carefully: it takes the share of the vehicle
    from the colors, at the photo's full size and on the CPU. Here masks are exact, batches are on any device, and the
    results must stay the same bits, so the two share no code.
    """
    background_N1HW = (alpha_N1HW == 0).float()
    around_NCHW = _near_mean(torch.cat((image_NCHW * background_N1HW, background_N1HW), dim=1))
    behind_NCHW = (around_NCHW[:, :-1] + _FALLBACK_WEIGHT * image_NCHW) / (around_NCHW[:, -1:] + _FALLBACK_WEIGHT)
    own_NCHW = (image_NCHW - (1 - alpha_N1HW) * behind_NCHW).clamp(min=0).minimum(alpha_N1HW)
    return torch.cat((own_NCHW, alpha_N1HW), dim=1)


def _near_mean(image_NCHW: Tensor) -> Tensor:
    """Box mean around each pixel, with zeros beyond the border; computed at a quarter of the size, which is enough."""
    mean_NChw = functional.avg_pool2d(image_NCHW, _BOX_PX, stride=_STRIDE_PX, padding=(_BOX_PX - _STRIDE_PX) // 2)
    return functional.interpolate(mean_NChw, size=image_NCHW.shape[2:], mode="bilinear")
