"""The U-Net, from scratch.

One class for every preset: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation" (MICCAI 2015), with padded convolutions so that the mask has the size of the image, an optional
BatchNorm, and an optional space-to-depth stem (Shi et al., "Real-Time Single Image and Video Super-Resolution Using an
Efficient Sub-Pixel Convolutional Neural Network", CVPR 2016, run backwards at the input and forwards at the output).
An EfficientNet can take the place of the encoder; its finest features have half the size of the image, so the
output is depth-to-space, too.

Shapes: B batch, C channels, H height, W width. `x_BCHW` float 0..1, `logits_B1HW` float, before the sigmoid.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from carmask.errors import CarmaskError
from carmask.models import efficientnet
from carmask.models.config import UNetConfig

# Pixels are 0..1; He initialization assumes inputs of mean 0 and variance 1.
INPUT_MEAN = 0.5
INPUT_STD = 0.25


class WrongInputShape(CarmaskError):
    """A tensor of a shape that this network cannot take. The message names a shape that it can."""


class UNet(nn.Module):
    """Image in, one logit for each pixel out: `x_BCHW` float 0..1 -> `logits_B1HW` float of the same size."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.PixelUnshuffle(config.stem)
        if config.encoder == "plain":
            self.mean, self.std = INPUT_MEAN, INPUT_STD
            channels = config.widths
            self.encoders = nn.ModuleList(
                DoubleConv(before, after, config.norm)
                for before, after in pairwise((config.in_channels * config.stem**2, *channels))
            )
            self.pool: nn.Module = nn.MaxPool2d(2)
        else:
            self.mean, self.std = efficientnet.INPUT_MEAN, efficientnet.INPUT_STD
            channels = efficientnet.encoder_channels(config.encoder)
            self.encoders = efficientnet.encoder_levels(config.encoder)
            # Each of its levels begins with a convolution of stride 2.
            self.pool = nn.Identity()
        widths = config.decoder_widths
        self.ups = nn.ModuleList(
            UpConv(below, here, config.up_kernel) for here, below in reversed(list(pairwise((*widths, channels[-1]))))
        )
        self.decoders = nn.ModuleList(
            DoubleConv(skip + here, here, config.norm)
            for skip, here in reversed(list(zip(channels[:-1], widths, strict=True)))
        )
        logits = config.finest_stride_px**2
        self.head = nn.Conv2d(widths[0], logits, config.head_kernel, padding=config.head_kernel // 2)
        self.unstem = nn.PixelShuffle(config.finest_stride_px)
        self._initialize()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return logits, B x 1 x H x W.

        Raises:
            WrongInputShape: a wrong number of channels, or a side that is not a multiple of the stride.
        """
        self._check_shape(x_BCHW.shape)
        x_BCHW = self.stem((x_BCHW - self.mean) / self.std)
        skips = []
        for encoder in self.encoders[:-1]:
            x_BCHW = encoder(x_BCHW)
            skips.append(x_BCHW)
            x_BCHW = self.pool(x_BCHW)
        x_BCHW = self.encoders[-1](x_BCHW)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x_BCHW = decoder(torch.cat((skips.pop(), up(x_BCHW)), dim=1))
        logits_B1HW: Tensor = self.unstem(self.head(x_BCHW))
        return logits_B1HW

    def _check_shape(self, shape: Sequence[int]) -> None:
        channels, stride = self.config.in_channels, self.config.stride_px
        if len(shape) != 4 or shape[1] != channels or shape[2] % stride or shape[3] % stride or 0 in shape[2:]:
            sides = shape[-2:] if len(shape) >= 2 else (stride, stride)
            wanted = tuple(max(stride, -(-int(side) // stride) * stride) for side in sides)
            raise WrongInputShape(
                f"the network got a tensor of shape {tuple(map(int, shape))}; it takes "
                f"(batch, {channels}, height, width) with height and width multiples of {stride}, for example "
                f"(1, {channels}, {wanted[0]}, {wanted[1]})"
            )

    def _initialize(self) -> None:
        """Draw weights with variance 2 / fan-in (Ronneberger 2015, section 3, after He et al. 2015)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.ConvTranspose2d):
                # Each output pixel of a stride-2 transposed convolution receives a quarter of the kernel's taps.
                fan_in = module.in_channels * module.kernel_size[0] * module.kernel_size[1] / 4
                nn.init.normal_(module.weight, std=fan_in**-0.5)
            else:
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class DoubleConv(nn.Sequential):
    """Two 3 x 3 convolutions, each followed by normalization (if any) and ReLU; height and width stay."""

    def __init__(self, in_channels: int, out_channels: int, norm: Literal["batch", "none"]) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            # BatchNorm subtracts the mean, a bias before it would be learned for nothing.
            layers.append(nn.Conv2d(channels, out_channels, 3, padding=1, bias=norm == "none"))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(out_channels))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class UpConv(nn.ConvTranspose2d):
    """Transposed convolution with stride 2: twice the height and width, `out_channels` features."""

    def __init__(self, in_channels: int, out_channels: int, kernel: Literal[2, 3]) -> None:
        padding = kernel - 2
        super().__init__(in_channels, out_channels, kernel, stride=2, padding=padding, output_padding=padding)
