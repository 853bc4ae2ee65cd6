"""Weights read out of `.onnx` files, against onnxruntime and the networks that were exported."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from carmask.exporting.graph import build_graph, store_float16, to_file
from carmask.imaging.geometry import Geometry
from carmask.models.card import ModelCard, read_card
from carmask.models.config import UNetConfig
from carmask.models.network import Network, WeightsError
from carmask.models.onnx_weights import fit_batch_norm
from carmask.runtime.locate import packaged_models
from carmask.runtime.torch_engine import to_input

UNET = UNetConfig(in_channels=1, widths=(4, 6), norm="none", up_kernel=3)


def pictures(channels: int, count: int = 4) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (count, 9, 11, channels), np.uint8)
    return np.stack([cv2.resize(one, (128, 64), interpolation=cv2.INTER_CUBIC).reshape(64, 128, -1) for one in coarse])


@pytest.mark.parametrize("name", [name for name, path in packaged_models().items() if "int8" not in name])
def test_packaged_weights_compute_the_same_in_pytorch(name: str) -> None:
    file = packaged_models()[name]
    network = Network.load(file)
    images_NHWC = pictures(network.card.channels)
    wanted_NHW = ort.InferenceSession(str(file)).run(None, {"image": images_NHWC})[0]
    with torch.inference_mode():
        found_NHW = network(to_input(images_NHWC, torch.device("cpu")))[:, 0].sigmoid()
    np.testing.assert_allclose(found_NHW, wanted_NHW, atol=2e-5)
    assert network.card == read_card(file)


def test_half_precision_weights_are_read_as_they_are_stored(tmp_path: Path) -> None:
    card = ModelCard(name="half", unet=UNET, geometry=Geometry(height_px=64, width_px=128))
    network = Network(card).eval()
    file = tmp_path / "half.onnx"
    file.write_bytes(to_file(store_float16(build_graph(network)), card))
    for name, parameter in Network.load(file).named_parameters():
        original = network.get_parameter(name)
        stored = original.half().float() if original.ndim > 1 else original
        assert torch.equal(parameter, stored), name


def test_what_holds_no_float_weights_of_its_structure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="int8"):
        Network.load(packaged_models()["fast-int8"])
    card = ModelCard(name="other", unet=UNET, geometry=Geometry(height_px=64, width_px=128))
    file = tmp_path / "other.onnx"
    wrong = card.model_copy(update={"unet": UNET.model_copy(update={"widths": (4, 8)})})
    file.write_bytes(to_file(build_graph(Network(card)), wrong))
    with pytest.raises(WeightsError, match=r"other\.onnx"):
        Network.load(file)


def test_fitted_weights_are_as_large_as_initial_ones_and_compute_the_same() -> None:
    network = Network.load(packaged_models()["fast"]).eval()
    x_BCHW = to_input(pictures(network.card.channels), torch.device("cpu"))
    pairs = [
        (convolution, norm)
        for convolution, norm in pairwise(network.modules())
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    ]
    initial_norm = nn.Conv2d(64, 64, 3).weight.flatten(1).norm(dim=1).mean().item()
    with torch.inference_mode():
        wanted_BCHW = network(x_BCHW)
        fit_batch_norm(network, [x_BCHW])
        torch.testing.assert_close(network(x_BCHW), wanted_BCHW, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(network.train()(x_BCHW), wanted_BCHW, rtol=1e-2, atol=1e-1)
    smallest = [convolution.weight.flatten(1).norm(dim=1).min().item() for convolution, _ in pairs]
    assert min(smallest) == pytest.approx(initial_norm, rel=0.1)


def test_a_channel_of_zeros_stays_one() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3)).eval()
    nn.init.zeros_(network[0].weight[1])
    x_BCHW = torch.rand(2, 2, 5, 5)
    with torch.inference_mode():
        wanted_BCHW = network(x_BCHW)
        fit_batch_norm(network, [x_BCHW])
        torch.testing.assert_close(network(x_BCHW), wanted_BCHW)
    assert not network[0].weight[1].any()
