"""What changes the weights: the optimizer, its learning rate, and their moving average (EMA)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from carmask.models.network import Network
from carmask.training.config_sections import OptimizerSettings, ScheduleSettings

# One-cycle (Smith and Topin, "Super-Convergence", 2018, in the cosine shape of fast.ai): first and last rate, as
# a share of the peak.
START_SHARE = 1 / 25
END_SHARE = 1e-4


def make_optimizer(network: Network, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Build the optimizer. Each group of parameters has a `scale`: its learning rate as a share of the settings' rate.

    Weight decay is for weights only: biases and norms have no reason to be near zero.
    """
    encoder = set(network.unet.encoders.parameters())
    groups = []
    for scale, in_encoder in ((1.0, False), (settings.encoder_lr, True)):
        part = [parameter for parameter in network.parameters() if (parameter in encoder) == in_encoder]
        for decay, is_weight in ((settings.weight_decay, True), (0.0, False)):
            chosen = [parameter for parameter in part if (parameter.ndim > 1) == is_weight]
            groups.append({"params": chosen, "weight_decay": decay, "scale": scale})
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)
    optimizer_class = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return optimizer_class(groups, lr=settings.lr)


def learning_rate(step: int, total_steps: int, peak: float, settings: ScheduleSettings) -> float:
    """Learning rate of step `step` (0 to `total_steps` - 1).

    A function of the step alone, unlike torch's schedulers, so there is no state to restore on resume.
    """
    if settings.name == "constant":
        return peak
    start, end = (START_SHARE, END_SHARE) if settings.name == "one-cycle" else (0.0, 0.0)
    warmup_steps = settings.warmup * total_steps
    if step < warmup_steps:
        progress = (step + 1) / (warmup_steps + 1)
        share = _cosine(start, 1, progress) if settings.name == "one-cycle" else progress
    else:
        share = _cosine(1, end, (step - warmup_steps) / max(1.0, total_steps - warmup_steps))
    return peak * share


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1))) / 2


def make_averaged_model(network: nn.Module, decay: float) -> AveragedModel:
    """Build an exponential moving average of the weights (Polyak and Juditsky, 1992) and of BatchNorm's statistics.

    The decay rises from 0.1 to `decay`, so that the random initial weights are soon forgotten.
    """

    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int) -> None:
        if not averaged[0].is_floating_point():
            torch._foreach_copy_(list(averaged), list(current))
            return
        number = int(updates)
        torch._foreach_lerp_(list(averaged), list(current), 1 - min(decay, number / (number + 9)))

    model = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
    # Torch's first update would copy the weights. Here the copy above counts as the first.
    model.n_averaged.fill_(1)
    return model.requires_grad_(False)
