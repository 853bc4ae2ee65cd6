import math
import re
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from carmask.models import efficientnet
from carmask.models.config import PRESETS, PresetName, UNetConfig
from carmask.models.summary import receptive_field_px, summarize
from carmask.models.unet import UNet, WrongInputShape

SHAPES_OF_NETS = [
    UNetConfig(in_channels=in_channels, widths=widths, norm=norm, up_kernel=up_kernel, stem=stem, head_kernel=head)
    for in_channels, widths, norm, up_kernel, stem, head in [
        (1, (3, 5), "none", 3, 1, 1),
        (3, (4, 6, 8), "batch", 2, 1, 1),
        (3, (4, 6, 8), "batch", 3, 2, 3),
        (1, (2, 3, 4, 5), "none", 2, 4, 3),
        (3, (2, 2, 3, 3), "batch", 3, 1, 3),
    ]
] + [UNetConfig(in_channels=3, widths=(3, 4, 5, 6), encoder="efficientnet-lite0", up_kernel=3, head_kernel=3)]
each_shape = pytest.mark.parametrize("config", SHAPES_OF_NETS, ids=str)


def small_input(config: UNetConfig, *, batch: int = 2) -> Tensor:
    size = (2 * config.stride_px, 3 * config.stride_px)
    return torch.rand(batch, config.in_channels, *size, generator=torch.Generator().manual_seed(0))


def parameters_by_hand(config: UNetConfig) -> int:
    """Weights and biases of every layer, from the drawing of a U-Net."""

    def double(before: int, after: int) -> int:
        kernels = 9 * before * after + 9 * after * after
        # A bias for each of the two convolutions, or scale and shift for each of the two BatchNorms.
        return kernels + 2 * after * (1 if config.norm == "none" else 2)

    widths = config.widths
    total = double(config.in_channels * config.stem**2, widths[0])
    for here, below in pairwise(widths):
        total += double(here, below)
        total += config.up_kernel**2 * below * here + here
        total += double(2 * here, here)
    return total + config.head_kernel**2 * widths[0] * config.stem**2 + config.stem**2


@pytest.mark.parametrize(
    ("preset", "parameters"), [("small", 2_066_497), ("classic", 31_037_633), ("deep", None), ("fast", None)]
)
def test_parameters_of_the_presets(preset: PresetName, parameters: int | None) -> None:
    with torch.device("meta"):
        net = UNet(PRESETS[preset].unet)
    counted = sum(parameter.numel() for parameter in net.parameters())
    assert counted == parameters_by_hand(PRESETS[preset].unet)
    assert counted == (parameters or counted)
    if preset == "fast":
        assert counted < 6_000_000


def test_parameters_with_an_efficientnet_encoder() -> None:
    config = PRESETS["general"].unet
    with torch.device("meta"):
        net = UNet(config)
    # EfficientNet-Lite0 has 4,652,008 parameters, with a classifier of 1,280 channels with BatchNorm and 1,000 classes.
    encoder = 4_652_008 - (320 * 1280 + 2 * 1280) - (1280 * 1000 + 1000)
    decoder, below = 0, 320
    for skip, here in zip((112, 40, 24, 16), reversed(config.widths), strict=True):
        decoder += 4 * below * here + here
        decoder += 9 * (skip + here) * here + 2 * here + 9 * here * here + 2 * here
        below = here
    assert sum(parameter.numel() for parameter in net.parameters()) == encoder + decoder + 9 * 32 * 4 + 4


def test_every_preset_fits_its_own_geometry() -> None:
    for preset in PRESETS.values():
        for side_px in preset.geometry.size_HW:
            assert side_px % preset.unet.stride_px == 0, preset.name


def test_classic_is_the_paper_s() -> None:
    with torch.device("meta"):
        net = UNet(PRESETS["classic"].unet)
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    # Ronneberger 2015, figure 1, with three input channels and one output channel.
    assert [(one.in_channels, one.out_channels) for one in convolutions] == [
        (3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512),
        (512, 1024), (1024, 1024),
        (1024, 512), (512, 512), (512, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64),
        (64, 1),
    ]  # fmt: skip
    assert {one.kernel_size for one in convolutions[:-1]} == {(3, 3)}
    assert convolutions[-1].kernel_size == (1, 1)
    ups = [module for module in net.modules() if isinstance(module, nn.ConvTranspose2d)]
    assert [(one.in_channels, one.out_channels) for one in ups] == [(1024, 512), (512, 256), (256, 128), (128, 64)]
    assert {(one.kernel_size, one.stride) for one in ups} == {((2, 2), (2, 2))}
    assert sum(isinstance(module, nn.BatchNorm2d) for module in net.modules()) == 18
    assert sum(isinstance(module, nn.ReLU) for module in net.modules()) == 18


@each_shape
def test_the_output_has_the_size_of_the_input(config: UNetConfig) -> None:
    net = UNet(config)
    for height, width in ((1, 1), (1, 3), (4, 2)):
        size_HW = (height * config.stride_px, width * config.stride_px)
        assert net(torch.rand(2, config.in_channels, *size_HW)).shape == (2, 1, *size_HW)


@each_shape
def test_a_wrong_shape_is_answered_with_one_that_works(config: UNetConfig) -> None:
    net = UNet(config).eval()
    channels, stride = config.in_channels, config.stride_px
    wrong_shapes = [
        (1, channels, stride + 1, stride),
        (1, channels, stride, 3 * stride - 1),
        (1, 4 - channels, stride, stride),
        (1, stride, stride, channels),
        (channels, stride, stride),
        (stride,),
        (),
        (1, channels, 0, stride),
    ]
    for shape in wrong_shapes:
        with pytest.raises(WrongInputShape) as caught:
            net(torch.zeros(shape))
        message = str(caught.value)
        assert str(tuple(shape)) in message
        example = re.search(r"for example \((\d+), (\d+), (\d+), (\d+)\)", message)
        assert example is not None, message
        suggested = tuple(map(int, example.groups()))
        assert net(torch.zeros(suggested)).shape == (1, 1, *suggested[2:])
        if len(shape) == 4 and shape[1] == channels and min(shape) > 0:
            assert all(0 <= new - old < stride for new, old in zip(suggested[2:], shape[2:], strict=True))


THIN_NETS = [
    UNetConfig(in_channels=1, widths=widths, norm="none", up_kernel=up_kernel, stem=stem, head_kernel=head_kernel)
    for widths in ((1, 1), (1, 1, 1), (1, 1, 1, 1))
    for up_kernel, stem, head_kernel in ((2, 1, 1), (3, 1, 1), (2, 2, 3), (3, 4, 3), (3, 2, 1))
]


@pytest.mark.parametrize("config", THIN_NETS, ids=str)
def test_the_receptive_field_is_the_one_that_gradients_measure(config: UNetConfig) -> None:
    net = UNet(config).double()
    # Averages, positive weights and positive input let every path pass; a maximum would hide all but one.
    net.pool = nn.AvgPool2d(2)
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.1)
    check_receptive_field(net)


def test_the_receptive_field_with_an_efficientnet_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    # A thin one, for the time it takes.
    thin = tuple(stage._replace(expansion=1, channels=8) for stage in efficientnet._STAGES)
    monkeypatch.setattr(efficientnet, "_STAGES", thin)
    config = UNetConfig(in_channels=3, widths=(1, 1, 1, 1), encoder="efficientnet-lite0", up_kernel=3, head_kernel=3)
    net = UNet(config).double().eval()
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.1)
    for module in net.modules():
        if isinstance(module, nn.ReLU6):
            # It has no gradient from 6 on.
            module.max_val = math.inf
    check_receptive_field(net)


def check_receptive_field(net: UNet) -> None:
    claimed_px, stride = receptive_field_px(net), net.config.stride_px
    middle = (claimed_px // stride + 1) * stride
    x_1CHW = torch.full(
        (1, net.config.in_channels, stride, 2 * middle + stride), 0.9, dtype=torch.double, requires_grad=True
    )
    logits_11HW = net(x_1CHW)
    widest_px = 0
    for column in range(middle, middle + stride):
        (gradient_1CHW,) = torch.autograd.grad(logits_11HW[0, 0, :, column].sum(), x_1CHW, retain_graph=True)
        reached = gradient_1CHW.ne(0).any(dim=(0, 1, 2)).nonzero()
        widest_px = max(widest_px, int(reached.max() - reached.min()) + 1)
    assert widest_px == claimed_px


def test_multiply_adds_by_hand() -> None:
    config = UNetConfig(in_channels=1, widths=(2, 3), up_kernel=2)
    summary = summarize(UNet(config), (8, 12))
    fine, coarse = 8 * 12, 4 * 6
    wanted = {
        "encoder 1": 9 * (1 * 2 + 2 * 2) * fine,
        "encoder 2": 9 * (2 * 3 + 3 * 3) * coarse,
        "up 1": 4 * 3 * 2 * coarse,
        "decoder 1": 9 * (4 * 2 + 2 * 2) * fine,
        "head": 2 * 1 * fine,
    }
    assert {level.name: level.multiply_adds for level in summary.levels} == wanted
    assert summary.multiply_adds == sum(wanted.values())


@each_shape
def test_the_summary_agrees_with_counting_flops(config: UNetConfig) -> None:
    net = UNet(config)
    x_BCHW = small_input(config, batch=1)
    summary = summarize(net, x_BCHW.shape[2:])
    assert net.training
    encoders = [captured(encoder) for encoder in net.encoders]
    with FlopCounterMode(display=False) as counter:
        net(x_BCHW)
    assert 2 * summary.multiply_adds == counter.get_total_flops()
    assert summary.parameters == sum(parameter.numel() for parameter in net.parameters())
    assert summary.input_CHW == tuple(x_BCHW.shape[1:])
    levels = [level for level in summary.levels if level.name.startswith("encoder")]
    assert [(level.channels, *level.size_HW) for level in levels] == [seen["out"].shape[1:] for seen in encoders]
    assert summary.levels[-1].size_HW == tuple(side // config.finest_stride_px for side in x_BCHW.shape[2:])
    text = str(summary)
    for level in summary.levels:
        assert level.name in text
    assert f"{summary.parameters:,} parameters" in text
    assert f"receptive field {receptive_field_px(net)} px" in text


def captured(module: nn.Module) -> dict[str, Tensor]:
    """What enters and leaves a module, filled in when it runs."""
    seen: dict[str, Tensor] = {}

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen["in"], seen["out"] = inputs[0].clone(), output.clone()

    module.register_forward_hook(keep)
    return seen


@pytest.mark.parametrize("stem", [1, 2, 4])
def test_the_stem_packs_squares_of_pixels_into_channels_and_back(stem: int) -> None:
    config = UNetConfig(in_channels=3, widths=(4, 4), stem=stem)
    net = UNet(config).eval()
    entrance, exit_ = captured(net.encoders[0]), captured(net.head)
    x_BCHW = small_input(config)
    logits_B1HW = net(x_BCHW)
    normalized_BCHW = (x_BCHW - 0.5) / 0.25
    for down in range(stem):
        for right in range(stem):
            place = stem * down + right
            every = (..., slice(down, None, stem), slice(right, None, stem))
            torch.testing.assert_close(entrance["in"][:, place :: stem**2], normalized_BCHW[every])
            torch.testing.assert_close(exit_["out"][:, place : place + 1], logits_B1HW[every])


@each_shape
def test_each_decoder_gets_the_skip_of_its_level_and_what_comes_from_below(config: UNetConfig) -> None:
    net = UNet(config).eval()
    encoders, ups, decoders = ([captured(one) for one in blocks] for blocks in (net.encoders, net.ups, net.decoders))
    net(small_input(config))
    for place, width in enumerate(reversed(config.decoder_widths)):
        skip, below = decoders[place]["in"].tensor_split([-width], dim=1)
        assert torch.equal(skip, encoders[-2 - place]["out"])
        assert torch.equal(below, ups[place]["out"])
        before = decoders[place - 1] if place else encoders[-1]
        assert torch.equal(ups[place]["in"], before["out"])
    for upper, lower in pairwise(encoders):
        pooled = nn.functional.max_pool2d(upper["out"], 2) if config.encoder == "plain" else upper["out"]
        assert torch.equal(lower["in"], pooled)


@each_shape
def test_every_skip_matters(config: UNetConfig) -> None:
    torch.manual_seed(0)
    net = UNet(config).eval()
    x_BCHW = small_input(config)
    whole_B1HW = net(x_BCHW)
    for decoder, width in zip(net.decoders, reversed(config.decoder_widths), strict=True):

        def without_skip(_module: nn.Module, inputs: tuple[Tensor], width: int = width) -> tuple[Tensor]:
            skip, below = inputs[0].tensor_split([-width], dim=1)
            return (torch.cat((torch.zeros_like(skip), below), dim=1),)

        handle = decoder.register_forward_pre_hook(without_skip)
        assert not torch.allclose(net(x_BCHW), whole_B1HW)
        handle.remove()
    assert torch.equal(net(x_BCHW), whole_B1HW)


@pytest.mark.parametrize("up_kernel", [2, 3])
def test_signals_neither_die_nor_explode_at_the_start(up_kernel: int) -> None:
    torch.manual_seed(0)
    config = UNetConfig(in_channels=3, widths=(24,) * 7, norm="none", up_kernel=up_kernel)
    logits_B1HW = UNet(config)(torch.rand(1, 3, 128, 128))
    assert 0.05 < logits_B1HW.std() < 20


@pytest.mark.parametrize(
    ("widths", "message"), [((8,), "two levels"), ((), "two levels"), ((8, 0), "at least one channel")]
)
def test_impossible_networks_are_refused(widths: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNetConfig(in_channels=1, widths=widths)


@pytest.mark.parametrize("change", [{"in_channels": 1}, {"widths": (8, 8, 8)}, {"stem": 2}, {"norm": "none"}], ids=str)
def test_what_an_efficientnet_encoder_cannot_have_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="efficientnet-lite1"):
        UNetConfig.model_validate({"in_channels": 3, "widths": (8, 8, 8, 8), "encoder": "efficientnet-lite1", **change})


def test_a_network_without_the_field_has_a_plain_encoder() -> None:
    old = PRESETS["fast"].unet.model_dump(exclude={"encoder"})
    assert UNetConfig.model_validate(old) == PRESETS["fast"].unet
