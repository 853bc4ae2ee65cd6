"""Copy-paste: vehicles cut out along their soft masks and laid onto other images of the same batch.

Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation" (CVPR 2021), here with
soft masks: pixels are mixed by the vehicle's share in them, so that picture and mask agree at the edge too.
"""

import torch
from torch import Tensor
from torch.nn import functional

# Of the sides, and of the vehicle's size in its own photo. A photo's mask is of its main vehicle, large and near the
# middle; whatever is parked behind it is background. Vehicles pasted small and anywhere would teach the opposite.
_SHIFT_XY = (0.2, 0.1)
_SCALE = (0.7, 1.2)
# Side of what counts as near: from the middle of an edge that is a few pixels soft it reaches well into the background.
_NEAR_PX = 16
_EVERY_PX = 4
# How much a pixel's own color counts beside the background near it, which is to say where there is none.
_FAR = 1e-6


class Paster:
    """Callable: `image_BCHW` and `soft_B1HW` (float32, 0..1) to those with other images' vehicles laid over some."""

    def __init__(self, probability: float) -> None:
        # Kornia takes a second to import and is wanted by training alone.
        import kornia.augmentation as kornia

        self._probability = probability
        self._place = kornia.RandomAffine(degrees=0, translate=_SHIFT_XY, scale=_SCALE, padding_mode="zeros", p=1)

    def __call__(self, image_BCHW: Tensor, soft_B1HW: Tensor) -> tuple[Tensor, Tensor]:
        """Draw which images receive a vehicle, and each one's from the others that have one; new tensors."""
        # Drawn on the CPU, as Kornia draws, so that no accelerator has to be waited for.
        onto_N = (torch.rand(len(image_BCHW)) < self._probability).nonzero().flatten()
        if len(image_BCHW) < 2 or not len(onto_N):
            return image_BCHW, soft_B1HW
        from_N = _sources(soft_B1HW, onto_N)
        onto_N = onto_N.to(image_BCHW.device)
        # Color and alpha move as one tensor: so they cannot come apart, and interpolating between colors that are
        # weighted by alpha lets nothing in from where alpha is 0.
        cut_out_NCHW = self._place(_cut_out(image_BCHW[from_N], soft_B1HW[from_N]))
        color_NCHW, alpha_N1HW = cut_out_NCHW[:, :-1], cut_out_NCHW[:, -1:]
        below_N1HW = soft_B1HW[onto_N]
        return (
            image_BCHW.index_copy(0, onto_N, color_NCHW + (1 - alpha_N1HW) * image_BCHW[onto_N]),
            # 1 - (1 - a)(1 - b), written so that nothing pasted changes nothing, to the last bit.
            soft_B1HW.index_copy(0, onto_N, below_N1HW + (1 - below_N1HW) * alpha_N1HW),
        )


def _sources(soft_B1HW: Tensor, onto_N: Tensor) -> Tensor:
    """For each of the images another one of the batch, one that has a vehicle if there is any."""
    score_NB = torch.rand(len(onto_N), len(soft_B1HW))
    score_NB[torch.arange(len(onto_N)), onto_N] = -2
    score_NB = score_NB.to(soft_B1HW.device)
    has_none_B = soft_B1HW.flatten(1).amax(1) == 0
    return (score_NB - has_none_B.float()).argmax(1)


def _cut_out(image_NCHW: Tensor, alpha_N1HW: Tensor) -> Tensor:
    """The vehicles' own colors weighted by alpha, and alpha as the last channel.

    A pixel at the edge shows I = a F + (1 - a) B, so a F = I - (1 - a) B, with B the mean color of what surely is
    background near by. Without this, a rim of the old background would tell where something was pasted.
    """
    background_N1HW = (alpha_N1HW == 0).float()
    around_NCHW = _near_mean(torch.cat((image_NCHW * background_N1HW, background_N1HW), dim=1))
    behind_NCHW = (around_NCHW[:, :-1] + _FAR * image_NCHW) / (around_NCHW[:, -1:] + _FAR)
    own_NCHW = (image_NCHW - (1 - alpha_N1HW) * behind_NCHW).clamp(min=0).minimum(alpha_N1HW)
    return torch.cat((own_NCHW, alpha_N1HW), dim=1)


def _near_mean(image_NCHW: Tensor) -> Tensor:
    """Mean of the pixels around each, zero counting beyond the border; at a quarter of the size, which is enough."""
    mean_NChw = functional.avg_pool2d(image_NCHW, _NEAR_PX, stride=_EVERY_PX, padding=(_NEAR_PX - _EVERY_PX) // 2)
    return functional.interpolate(mean_NChw, size=image_NCHW.shape[2:], mode="bilinear")
