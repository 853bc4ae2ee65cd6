"""Files of one size, in programs that know nothing of carmask, against PyTorch."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from PIL import Image
from test_graph import SHAPES, noise

from bright_network import bright_is_vehicle
from carmask.errors import CarmaskError
from carmask.evaluation.metrics import dice
from carmask.exporting.export import export
from carmask.exporting.fixed import FixedSize, PlainEngine, build_fixed_graph, plain_engines, to_fixed_file
from carmask.exporting.graph import store_float16
from carmask.exporting.photos import PhotoOptions
from carmask.imaging.geometry import Geometry
from carmask.models.card import ModelCard, ModelFileError, read_card
from carmask.models.network import Network
from carmask.runtime.engine import EngineError
from carmask.segmenter import Segmenter
from noise_pairs import run

SHAPES_OF_VALUES = {"Shape", "Mod", "Pad", "Neg", "Slice", "Gather", "Loop", "If"}


@pytest.mark.usefixtures("shallow_encoder")
@pytest.mark.parametrize(("shape", "batch"), [("like fast", 2), ("like small", 1), ("like general", 1)])
def test_plain_programs_compute_what_pytorch_does(shape: str, batch: int) -> None:
    torch.manual_seed(0)
    card = ModelCard(name="random", unet=SHAPES[shape], geometry=Geometry(height_px=64, width_px=96))
    network = Network(card).eval()
    graph = build_fixed_graph(network, batch)
    assert not SHAPES_OF_VALUES & {node.op_type for node in graph.graph.node}
    for info, channels in ((graph.graph.input[0], card.channels), (graph.graph.output[0], 1)):
        sides = [side.dim_value for side in info.type.tensor_type.shape.dim]
        assert sides == [batch, channels, *card.geometry.canvas_HW(card.stride_px)]
    images_NHWC = noise((3, *card.geometry.canvas_HW(card.stride_px), card.channels), 0)
    with torch.inference_mode():
        wanted_NHW = network(torch.from_numpy(images_NHWC).permute(0, 3, 1, 2) / 255).sigmoid()[:, 0].numpy()
    for model, atol in ((graph, 2e-5), (store_float16(graph), 0.02)):
        engines = list(plain_engines(to_fixed_file(model, card, batch), card, batch))
        assert {engine.name for engine in engines} >= {"onnxruntime", "opencv"}
        for engine in engines:
            np.testing.assert_allclose(engine.run(images_NHWC), wanted_NHW, atol=atol, err_msg=engine.name)
    assert wanted_NHW.std() > 0.01


def test_a_program_that_fails_is_named() -> None:
    def fail(_: np.ndarray) -> None:
        raise cv2.error("layer of unknown type")

    card = ModelCard(name="random", unet=SHAPES["like small"], geometry=Geometry(height_px=64, width_px=96))
    engine = PlainEngine(card, "opencv", 1, fail)
    with pytest.raises(EngineError, match="opencv"):
        engine.run(np.zeros((1, 64, 96, card.channels), np.uint8))
    with pytest.raises(EngineError, match="onnxruntime"):
        next(plain_engines(b"no model", card, 1))


def test_opencv_finds_the_masks_of_carmask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its own functions, and with a size of its own."""
    folder = bright_is_vehicle(tmp_path / "bright", channels=3, keep_aspect=False)
    photos = tmp_path / "photos"
    for kind in ("images", "masks"):
        (photos / kind).mkdir(parents=True)
    for number in range(3):
        mask_HW = np.zeros((128, 192), bool)
        mask_HW[20 + number : 90, 30 : 120 + number] = True
        image_HWC = np.where(mask_HW, 220, 30)[..., None].repeat(3, axis=2).astype(np.uint8)
        Image.fromarray(image_HWC).save(photos / "images" / f"{number}.png")
        Image.fromarray(mask_HW).save(photos / "masks" / f"{number}.png")
    status, out, _ = run(
        capsys, "export", str(folder), "--size", "64x96", "--batch", "1", "--data", str(photos), "--out", str(tmp_path)
    )
    assert status == 0
    assert "opencv" in out
    file = tmp_path / "bright-64x96.onnx"
    image_HWC = cv2.imread(str(photos / "images" / "0.png"))
    net = cv2.dnn.readNetFromONNX(str(file))
    net.setInput(cv2.dnn.blobFromImage(image_HWC, size=(96, 64), swapRB=True))
    probability_HW = cv2.resize(net.forward()[0, 0], (192, 128))
    assert dice(probability_HW >= 0.5, Segmenter.load(folder)(photos / "images" / "0.png").mask) > 0.98
    (info,) = ort.InferenceSession(str(file)).get_inputs()
    assert (info.shape, info.type) == ([1, 3, 64, 96], "tensor(float)")
    with pytest.raises(ModelFileError, match="fixed size"):
        read_card(file)


@pytest.mark.parametrize(
    "fixed", [FixedSize((64, 97)), FixedSize((0, 0)), FixedSize((64, 96), batch=0)], ids=["odd", "none", "no batch"]
)
def test_sizes_that_the_network_cannot_take_are_refused(fixed: FixedSize, tmp_path: Path) -> None:
    with pytest.raises(CarmaskError, match="multiples of"):
        export(bright_is_vehicle(tmp_path), fixed=fixed)
    assert not list(tmp_path.glob("*.onnx"))


def test_packaged_weights_can_be_exported_for_other_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "photos"
    for kind in ("images", "masks"):
        (photos / kind).mkdir(parents=True)
        Image.fromarray(noise((40, 60), 0) // 128 * 255).save(photos / kind / "0.png")
    (written,) = export("small", fixed=FixedSize(), photos=PhotoOptions(photos))
    assert written.path == Path("small-128x128.onnx")
    assert written.card.train_groups
    assert not SHAPES_OF_VALUES & {node.op_type for node in onnx.load(written.path).graph.node}
