"""The figures of a network: levels, shapes, parameters, multiply-adds, receptive field."""

from dataclasses import dataclass

from torch import nn

from carmask.imaging.geometry import Size
from carmask.models.config import UNetConfig
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


def summarize(model: UNet, size_HW: Size) -> NetworkSummary:
    """Return the figures of a network for one image of `size_HW` px, multiples of its stride."""
    config = model.config
    levels: list[Level] = []

    def add(name: str, block: nn.Module, channels: int, depth: int) -> None:
        height, width = (side // (config.stem * 2**depth) for side in size_HW)
        kernels = sum(parameter.numel() for parameter in block.parameters() if parameter.ndim == 4)
        # Every weight of a convolution meets each output position once, of a transposed one each input position.
        positions = height * width // (4 if isinstance(block, UpConv) else 1)
        parameters = sum(parameter.numel() for parameter in block.parameters())
        levels.append(Level(name, channels, (height, width), parameters, kernels * positions))

    for depth, (encoder, channels) in enumerate(zip(model.encoders, config.widths, strict=True)):
        add(f"encoder {depth + 1}", encoder, channels, depth)
    for depth, up, decoder in zip(reversed(range(len(model.ups))), model.ups, model.decoders, strict=True):
        add(f"up {depth + 1}", up, config.widths[depth], depth)
        add(f"decoder {depth + 1}", decoder, config.widths[depth], depth)
    add("head", model.head, config.stem**2, 0)
    return NetworkSummary((config.in_channels, *size_HW), tuple(levels), receptive_field_px(model))


def receptive_field_px(model: UNet) -> int:
    """Return the width in input pixels of the area that one output pixel depends on, for the pixel with the widest.

    Follows the first and the last of these pixels from the output back through the lowest level (Dumoulin and Visin,
    "A guide to convolution arithmetic", 2016).
    """
    return max(_view_px(model.config, column) for column in range(model.config.stride_px))


def _view_px(config: UNetConfig, column: int) -> int:
    first = last = column // config.stem
    first, last = first - config.head_kernel // 2, last + config.head_kernel // 2
    for _ in config.widths[1:]:
        # Two convolutions, then a transposed one: each pixel comes from one below, with kernel 3 every other from two.
        first, last = (first - 2) // 2, (last + 2 + config.up_kernel - 2) // 2
    first, last = first - 2, last + 2
    for _ in config.widths[1:]:
        # Pooling, then two convolutions.
        first, last = 2 * first - 2, 2 * last + 1 + 2
    return (last - first + 1) * config.stem
