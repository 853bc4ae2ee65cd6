"""A network whose masks are known beforehand, for the tests of what runs networks."""

from pathlib import Path

import torch

from carmask.imaging.geometry import Geometry
from carmask.models.card import ModelCard
from carmask.models.config import UNetConfig
from carmask.models.network import Network


def bright_is_vehicle(
    folder: Path, *, channels: int = 1, keep_aspect: bool = False, threshold: float = 0.5, refines: str | None = None
) -> Path:
    """Save a network that takes for a vehicle what is brighter than middle gray, and knows nothing else.

    With `refines` it is one that refines the masks of that network, by the colors of its crops alone.
    """
    unet = UNetConfig(in_channels=4 if refines else channels, widths=(1, 1), norm="none")
    geometry = Geometry(height_px=64, width_px=64 if refines else 90, keep_aspect=keep_aspect)
    network = Network(ModelCard(name="bright", unet=unet, geometry=geometry, threshold=threshold, refines=refines))
    net = network.unet
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        first, second = (layer for layer in net.encoders[0] if isinstance(layer, torch.nn.Conv2d))
        # The network scales 0..1 to -2..2; this is 0..4 again, so that nothing is lost in a ReLU.
        channels = 3 if refines else channels
        first.weight[0, :channels, 1, 1] = 1 / channels
        first.bias.fill_(2)
        second.weight[0, 0, 1, 1] = 1
        for layer in net.decoders[0]:
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight[0, 0, 1, 1] = 1
        # So little slope that the probability is nearly a straight line, as that of a good network along an edge.
        net.head.weight.fill_(1)
        net.head.bias.fill_(-2)
    network.save_pretrained(folder)
    return folder
