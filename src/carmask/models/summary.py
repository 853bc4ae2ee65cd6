"""The figures of a network: levels, shapes, parameters, multiply-adds, receptive field."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from carmask.imaging.geometry import Size
from carmask.models.unet import UNet, UpConv


@dataclass(frozen=True)
class Level:
    """One block of the network, and the channels and size of its output."""

    name: str
    channels: int
    size_HW: Size
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class NetworkSummary:
    """The figures of a network for one input size and a batch of one."""

    input_CHW: tuple[int, int, int]
    levels: tuple[Level, ...]
    receptive_field_px: int

    @property
    def parameters(self) -> int:
        """Learned numbers, without the running statistics of BatchNorm."""
        return sum(level.parameters for level in self.levels)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of all convolutions; the rest is small beside them."""
        return sum(level.multiply_adds for level in self.levels)

    def __str__(self) -> str:
        channels, height, width = self.input_CHW
        rows = [f"{'level':<12}{'channels':>9}{'height x width':>17}{'parameters':>13}{'MMAC':>10}"]
        for level in self.levels:
            size = f"{level.size_HW[0]} x {level.size_HW[1]}"
            rows.append(
                f"{level.name:<12}{level.channels:>9}{size:>17}{level.parameters:>13,}"
                f"{level.multiply_adds / 1e6:>10,.0f}"
            )
        rows.append(
            f"input {channels} x {height} x {width}: {self.parameters:,} parameters, "
            f"{self.multiply_adds / 1e9:.2f} G multiply-adds, receptive field {self.receptive_field_px} px"
        )
        return "\n".join(rows)


def summarize(model: UNet, input_HW: Size) -> NetworkSummary:
    """Return the figures of a network for one image of `input_HW` px, multiples of its stride."""
    config, levels = model.config, list[Level]()
    size_HW = input_HW[0] // config.stem, input_HW[1] // config.stem

    def add(name: str, block: nn.Module) -> None:
        """Add a block that takes features of `size_HW`, and set that to the size of its output."""
        nonlocal size_HW
        multiply_adds, channels = 0, 0
        for conv in _convolutions(block):
            # Every weight of a convolution meets each output position once, of a transposed one each input position.
            if isinstance(conv, UpConv):
                multiply_adds += conv.weight.numel() * math.prod(size_HW)
                size_HW = 2 * size_HW[0], 2 * size_HW[1]
            else:
                size_HW = size_HW[0] // conv.stride[0], size_HW[1] // conv.stride[1]
                multiply_adds += conv.weight.numel() * math.prod(size_HW)
            channels = conv.out_channels
        parameters = sum(parameter.numel() for parameter in block.parameters())
        levels.append(Level(name, channels, size_HW, parameters, multiply_adds))

    for depth, encoder in enumerate(model.encoders, 1):
        if config.encoder == "plain" and depth > 1:
            size_HW = size_HW[0] // 2, size_HW[1] // 2
        add(f"encoder {depth}", encoder)
    for depth, up, decoder in zip(range(len(model.ups), 0, -1), model.ups, model.decoders, strict=True):
        add(f"up {depth}", up)
        add(f"decoder {depth}", decoder)
    add("head", model.head)
    return NetworkSummary((config.in_channels, *input_HW), tuple(levels), receptive_field_px(model))


def receptive_field_px(model: UNet) -> int:
    """Return the width in input pixels of the area that one output pixel depends on, for the pixel with the widest.

    Follows the first and the last of these pixels from the output back through the lowest level (Dumoulin and Visin,
    "A guide to convolution arithmetic", 2016).
    """
    return max(_view_px(model, column) for column in range(model.config.stride_px))


def _view_px(model: UNet, column: int) -> int:
    config = model.config
    first = last = column // config.finest_stride_px
    first, last = first - config.head_kernel // 2, last + config.head_kernel // 2
    for _ in model.decoders:
        # Two convolutions, then a transposed one: each pixel comes from one below, with kernel 3 every other from two.
        first, last = (first - 2) // 2, (last + 2 + config.up_kernel - 2) // 2
    for depth, encoder in reversed(list(enumerate(model.encoders))):
        for conv in reversed(list(_convolutions(encoder))):
            kernel, stride = conv.kernel_size[0], conv.stride[0]
            before = (kernel - stride) // 2
            first, last = stride * first - before, stride * last - before + kernel - 1
        if config.encoder == "plain" and depth:
            # Pooling
            first, last = 2 * first, 2 * last + 1
    return (last - first + 1) * config.stem


def _convolutions(block: nn.Module) -> Iterator[nn.Conv2d | UpConv]:
    """Yield the convolutions of a block, which run one after the other."""
    return (module for module in block.modules() if isinstance(module, nn.Conv2d | UpConv))
