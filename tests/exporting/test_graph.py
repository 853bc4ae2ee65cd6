"""The graph against PyTorch, at any size, and that nothing but standard ONNX is in the file."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bright_network import bright_is_vehicle
from carmask.exporting.export import make_card
from carmask.exporting.graph import build_graph, store_float16, to_file
from carmask.exporting.parity import ParityError, Reference, check_graph, open_engines
from carmask.exporting.photos import PhotoOptions, chosen_photos
from carmask.exporting.quantize import quantize
from carmask.imaging.geometry import Geometry
from carmask.models.card import ModelCard, read_card
from carmask.models.config import UNetConfig
from carmask.models.network import Network
from carmask.models.onnx_weights import fit_batch_norm
from carmask.runtime.hardware import HardwareSettings, set_up
from carmask.runtime.options import RunOptions
from carmask.runtime.torch_engine import TorchEngine, to_input
from carmask.segmenter import Segmenter

pytestmark = pytest.mark.usefixtures("shallow_encoder")

PLAIN = Path(__file__).with_name("plain_onnxruntime.py")
SHAPES = {
    "like fast": UNetConfig(in_channels=3, widths=(4, 6, 8), stem=2, head_kernel=3),
    "like small": UNetConfig(in_channels=1, widths=(4, 6), norm="none", up_kernel=3),
    "stem of 4": UNetConfig(in_channels=3, widths=(4, 6), stem=4),
    "like general": UNetConfig(in_channels=3, widths=(4, 6, 8, 10), encoder="efficientnet-lite0", head_kernel=3),
}


@dataclass(frozen=True)
class Made:
    """A network with random weights, as PyTorch has it and as it was exported."""

    network: Network
    folder: Path
    graph: onnx.ModelProto
    card: ModelCard
    session: ort.InferenceSession

    def pytorch(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pad by repeating the edge, run, crop: by PyTorch's own means."""
        x_NCHW = torch.from_numpy(images_NHWC).permute(0, 3, 1, 2).float() / 255
        height, width = x_NCHW.shape[2:]
        stride_px = self.card.stride_px
        added = (0, -width % stride_px, 0, -height % stride_px)
        with torch.inference_mode():
            logits_N1HW = self.network(torch.nn.functional.pad(x_NCHW, added, mode="replicate"))
        return torch.sigmoid(logits_N1HW[:, 0, :height, :width]).numpy()


@pytest.fixture(scope="module")
def made_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Each shape is built once."""
    return cache(lambda shape: make(SHAPES[shape], tmp_path_factory.mktemp("made")))


@pytest.fixture(scope="module", params=SHAPES)
def made(request: pytest.FixtureRequest, made_of: Callable[[str], Made]) -> Made:
    return made_of(request.param)


@pytest.fixture(scope="module")
def rgb(made_of: Callable[[str], Made]) -> Made:
    return made_of("like fast")


def make(unet: UNetConfig, folder: Path) -> Made:
    torch.manual_seed(0)
    config = ModelCard(name="random", unet=unet, geometry=Geometry(height_px=50, width_px=70, keep_aspect=True))
    network = Network(config)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # As training leaves it, and not as it begins, when it changes nothing.
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
    network.eval().save_pretrained(folder)
    graph = build_graph(network)
    card = make_card(folder, network)
    return Made(network, folder, graph, card, session_of(to_file(graph, card)))


def session_of(file: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # Its threads and PyTorch's would wait for each other.
    options.intra_op_num_threads = 1
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def noise(shape: tuple[int, ...], seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@settings(max_examples=15)
@given(st.integers(1, 4), st.integers(1, 70), st.integers(1, 70), st.integers(0, 1000))
def test_any_size_and_batch_gives_what_pytorch_gives(
    made: Made, count: int, height: int, width: int, seed: int
) -> None:
    images_NHWC = noise((count, height, width, made.card.channels), seed)
    wanted_NHW = made.pytorch(images_NHWC)
    (found_NHW,) = made.session.run(["probability"], {"image": images_NHWC})
    assert found_NHW.dtype == np.float32
    assert found_NHW.shape == (count, height, width)
    np.testing.assert_allclose(found_NHW, wanted_NHW, atol=1e-5)


def test_the_random_networks_tell_pictures_apart(made: Made) -> None:
    """Without this the comparisons above would say little."""
    (found_HW,) = made.session.run(None, {"image": noise((1, 64, 64, made.card.channels), 0)})[0]
    assert np.ptp(found_HW) > 0.2


@torch.no_grad()
def test_its_weights_can_be_trained_further(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "network.onnx"
    file.write_bytes(to_file(made.graph, made.card))
    x_BCHW = to_input(noise((4, 64, 64, made.card.channels), 0), torch.device("cpu"))
    wanted_B1HW = made.network(x_BCHW)
    again = Network.load(file)
    torch.testing.assert_close(again(x_BCHW), wanted_B1HW, atol=1e-4, rtol=0)
    fit_batch_norm(again, x_BCHW[:, None])
    torch.testing.assert_close(again(x_BCHW), wanted_B1HW, atol=1e-4, rtol=0)
    # In training BatchNorm uses the statistics of the batch, which are those that it was given.
    torch.testing.assert_close(again.train()(x_BCHW), wanted_B1HW, atol=1e-3, rtol=0)


def test_openvino_takes_any_size_from_the_one_file(made: Made) -> None:
    file = to_file(store_float16(made.graph), made.card)
    core = ov.Core()
    compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session = session_of(file)
    for seed, shape in enumerate([(1, 48, 64), (3, 31, 17), (2, 50, 70), (1, 1, 1), (1, 48, 64)]):
        images_NHWC = noise((*shape, made.card.channels), seed)
        (wanted_NHW,) = session.run(None, {"image": images_NHWC})
        found_NHW = compiled(images_NHWC, share_outputs=False)[0]
        np.testing.assert_allclose(found_NHW, wanted_NHW, atol=2e-5)


def test_nothing_but_standard_operators(made: Made) -> None:
    canvases = [noise((48, 64, made.card.channels), seed) for seed in range(2)]
    for graph in (made.graph, store_float16(made.graph), quantize(made.graph, canvases)):
        model = onnx.load_from_string(to_file(graph, made.card))
        onnx.checker.check_model(model, full_check=True)
        ((domain, version),) = [(entry.domain, entry.version) for entry in model.opset_import]
        assert (domain, version) == ("", 18)
        assert not model.functions
        # That of the photo to multiples of the stride; convolutions have their own.
        assert [node.op_type for node in model.graph.node].count("Pad") == 1
        for node in model.graph.node:
            assert node.domain == ""
            assert onnx.defs.has(node.op_type, version)
            assert node.op_type != "BatchNormalization"
            assert all(attribute.i == 0 for attribute in node.attribute if attribute.name == "ceil_mode")
            assert all(attribute.type != onnx.AttributeProto.GRAPH for attribute in node.attribute)
        assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)


def test_nothing_of_this_machine_is_in_the_file(rgb: Made) -> None:
    for graph in (rgb.graph, quantize(rgb.graph, [noise((48, 64, 3), 0)])):
        file = to_file(graph, rgb.card)
        for trace in (b".py", b"site-packages", str(Path(torch.__file__).parents[2]).encode(), b"stack_trace"):
            assert trace not in file


def test_half_the_size_with_float16_weights_and_nearly_the_same_probability(rgb: Made) -> None:
    images_NHWC = noise((2, 48, 64, 3), 3)
    halved = store_float16(rgb.graph)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in halved.graph.initializer}
    stored = sum(values.nbytes for values in weights.values())
    before = sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in rgb.graph.graph.initializer)
    assert stored < 0.6 * before
    # A convolution's weights are scaled by BatchNorm once they are folded: every one has its rounding error.
    (found_NHW,) = session_of(to_file(halved, rgb.card)).run(None, {"image": images_NHWC})
    difference = np.abs(found_NHW - rgb.pytorch(images_NHWC)).max()
    assert 0 < difference < 0.01


def test_weights_that_float16_cannot_hold_stay_float32(rgb: Made) -> None:
    graph = onnx.ModelProto.FromString(rgb.graph.SerializeToString())
    tensor = next(tensor for tensor in graph.graph.initializer if len(tensor.dims) == 4)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[0] = 1e5
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    stored = {kept.name: kept for kept in store_float16(graph).graph.initializer if len(kept.dims) == 4}
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(stored.pop(tensor.name)), values)
    assert {kept.data_type for kept in stored.values()} == {onnx.TensorProto.FLOAT16}


def test_photos_of_odd_sizes_come_back_as_from_pytorch(rgb: Made, tmp_path: Path) -> None:
    path = tmp_path / "random.onnx"
    path.write_bytes(to_file(rgb.graph, rgb.card))
    pytorch = Segmenter.load(rgb.folder, RunOptions("torch", "cpu", "float32"))
    for engine in ("onnxruntime", "openvino"):
        exported = Segmenter.load(path, RunOptions(engine, "cpu", "float32"))
        for seed, size_HW in enumerate([(1, 1), (37, 91), (201, 83), (50, 70)]):
            image_HWC = noise((*size_HW, 3), seed)
            found, wanted = exported(image_HWC), pytorch(image_HWC)
            assert found.probability.shape == size_HW
            np.testing.assert_allclose(found.probability, wanted.probability, atol=1e-4)


def test_another_networks_graph_is_refused(rgb: Made, tiny: Path) -> None:
    """Each of these is what a fault in the exporter would look like."""
    pytorch = TorchEngine(rgb.network, set_up(HardwareSettings(device="cpu", precision="float32")))
    with chosen_photos(rgb.folder, PhotoOptions(tiny, photos=2), channels=3) as photos:
        reference = Reference(pytorch, photos, lambda *_: None)

    def differences(graph: onnx.ModelProto) -> dict[str, float]:
        return {engine.name: reference.probe(engine) for engine in open_engines(to_file(graph, rgb.card), ("float32",))}

    right = differences(rgb.graph)
    assert right.keys() == {"openvino", "onnxruntime"}
    check_graph(right)
    for changed in (other_padding, other_scale, other_weight):
        graph = onnx.ModelProto.FromString(rgb.graph.SerializeToString())
        changed(graph)
        with pytest.raises(ParityError, match=r"openvino.*onnxruntime"):
            check_graph(differences(graph))
    with pytest.raises(ParityError):
        check_graph({"some": float("nan")})


def other_padding(graph: onnx.ModelProto) -> None:
    (pad,) = [node for node in graph.graph.node if node.op_type == "Pad"]
    pad.attribute[0].s = b"reflect"


def other_scale(graph: onnx.ModelProto) -> None:
    (white,) = [node for node in graph.graph.node if list(node.output) == ["white"]]
    white.attribute[0].f = 250.0


def other_weight(graph: onnx.ModelProto) -> None:
    tensor = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    values = onnx.numpy_helper.to_array(tensor).copy()
    values *= 1.05
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def test_the_card_travels_in_the_file(rgb: Made) -> None:
    file = to_file(rgb.graph, rgb.card)
    assert read_card(file) == rgb.card
    assert ModelCard.model_validate_json(session_of(file).get_modelmeta().custom_metadata_map["carmask"]) == rgb.card
    assert rgb.card.geometry == rgb.network.card.geometry
    assert (rgb.card.channels, rgb.card.stride_px, rgb.card.weights) == (3, 8, "float16")


def test_plain_onnxruntime_in_ten_lines(tmp_path: Path) -> None:
    """The script that stands in the guide to exporting runs as it is, in a process that knows nothing of carmask."""
    assert len([line for line in PLAIN.read_text().splitlines() if line]) == 10
    assert PLAIN.read_text() in (Path(__file__).parents[2] / "docs" / "guides" / "export.md").read_text()
    network = Network.load(bright_is_vehicle(tmp_path, channels=3))
    file = to_file(store_float16(build_graph(network)), make_card(tmp_path, network))
    (tmp_path / "fast.onnx").write_bytes(file)
    truth_HW = np.zeros((123, 201), bool)
    truth_HW[30:80, 50:150] = True
    picture = Image.fromarray(np.where(truth_HW, 220, 40).astype(np.uint8)).convert("RGB")
    picture.save(tmp_path / "car.jpg", quality=95)
    subprocess.run([sys.executable, "-I", str(PLAIN)], check=True, cwd=tmp_path)
    found_HW = np.asarray(Image.open(tmp_path / "mask.png")) > 0
    assert found_HW.shape == truth_HW.shape
    assert (found_HW & truth_HW).sum() / (found_HW | truth_HW).sum() > 0.96
