"""What a network is made of: levels, shapes, parameters, multiply-adds, receptive field."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from carmask.imaging.geometry import Size
from carmask.models.config import UNetConfig
from carmask.models.unet import UNet


@dataclass(frozen=True)
class Level:
    """One block of the network and what leaves it."""

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
    """Measure a network by sending one empty image of `size_HW` through a copy that computes shapes only."""
    model = copy.deepcopy(model).to("meta").eval()
    names = {id(module): name for name, module in _blocks(model)}
    levels: list[Level] = []

    def record(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        levels.append(
            Level(
                name=names[id(module)],
                channels=output.shape[1],
                size_HW=(output.shape[2], output.shape[3]),
                parameters=sum(parameter.numel() for parameter in module.parameters()),
                multiply_adds=sum(macs.pop(id(part), 0) for part in module.modules()),
            )
        )

    macs: dict[int, int] = {}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        # Every weight of a convolution meets each output position once, of a transposed one each input position.
        at = output if isinstance(module, nn.Conv2d) else inputs[0]
        macs[id(module)] = module.weight.numel() * at.shape[2] * at.shape[3]

    convolutions = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)]
    for part in convolutions:
        part.register_forward_hook(count)
    for _, block in _blocks(model):
        block.register_forward_hook(record)
    input_CHW = (model.config.in_channels, *size_HW)
    with torch.no_grad():
        model(torch.zeros(1, *input_CHW, device="meta"))
    return NetworkSummary(input_CHW, tuple(levels), receptive_field_px(model))


def receptive_field_px(model: UNet) -> int:
    """Width in input pixels of the area that can reach one output pixel: of the pixel that sees farthest.

    Goes back from the output through the lowest level, and keeps the first and the last pixel that matter (Dumoulin and
    Visin, "A guide to convolution arithmetic", 2016).
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


def _blocks(model: UNet) -> list[tuple[str, nn.Module]]:
    depth = len(model.config.widths)
    blocks: list[tuple[str, nn.Module]] = [(f"encoder {i}", block) for i, block in enumerate(model.encoders, 1)]
    for i, (up, decoder) in enumerate(zip(model.ups, model.decoders, strict=True), 1):
        blocks += [(f"up {depth - i}", up), (f"decoder {depth - i}", decoder)]
    return [*blocks, ("head", model.head)]
