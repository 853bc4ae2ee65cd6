"""Files of one input size for other programs: plain operators on float N x C x H x W, and no arithmetic on shapes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carmask.errors import first_line
from carmask.exporting.graph import IMAGE, PROBABILITY, cleaned, export_onnx, serialize
from carmask.imaging.geometry import Size
from carmask.models.card import FIXED_CARD_KEY, ModelCard
from carmask.models.network import Network
from carmask.runtime.engine import Engine, EngineError


@dataclass(frozen=True)
class FixedSize:
    """Height and width of the input, the network's own if not given, and the number of images that run at once."""

    size_HW: Size | None = None
    batch: int = 1


class _Plain(nn.Module):
    """`image` float 0..255 -> `probability` float 0..1, B x 1 x H x W."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        probability_B1HW: Tensor = self.network(image / 255).sigmoid()
        return probability_B1HW


def build_fixed_graph(network: Network, batch: int) -> onnx.ModelProto:
    """Build the graph of a network for `batch` images of its card's size."""
    card = network.card
    example_BCHW = torch.zeros(batch, card.channels, *card.geometry.canvas_HW(card.stride_px))
    return cleaned(export_onnx(_Plain(network), example_BCHW, IMAGE, PROBABILITY))


def to_fixed_file(model: onnx.ModelProto, card: ModelCard, batch: int) -> bytes:
    """Return the `.onnx` file, with the card in its metadata under a key of its own: carmask cannot run it."""
    height, width = card.geometry.canvas_HW(card.stride_px)
    return serialize(
        model,
        card,
        FIXED_CARD_KEY,
        f"{card.name}: {IMAGE} (float32 0..255, {batch} x {card.channels} x {height} x {width}, {card.colors}) -> "
        f"{PROBABILITY} (float32 0..1, {batch} x 1 x {height} x {width})",
    )


class PlainEngine(Engine):
    """A file of `to_fixed_file` in a program that knows nothing of carmask, to compare its masks."""

    device, precision, threads, steady_batch = "cpu", "float32", None, None

    def __init__(self, card: ModelCard, name: str, batch: int, run: Callable[[NDArray[np.float32]], Any]) -> None:
        super().__init__(card)
        self.name, self._batch, self._call = name, batch, run

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = []
        for image_HWC in images_NHWC:
            x_NCHW = np.repeat(image_HWC.transpose(2, 0, 1)[None].astype(np.float32), self._batch, axis=0)
            with _failures_named(self.name):
                found.append(np.array(self._call(x_NCHW))[-1, 0])
        return np.stack(found)


@contextmanager
def _failures_named(program: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # their exceptions have no common base class
        raise EngineError(f"{program} cannot run the file: {first_line(error)}; update {program}") from error


def plain_engines(file: bytes, card: ModelCard, batch: int) -> Iterator[Engine]:
    """Open a file in onnxruntime, OpenCV and, if it is installed, OpenVINO.

    Raises:
        EngineError: one of them cannot run it.
    """
    with _failures_named("onnxruntime"):
        session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    yield PlainEngine(card, "onnxruntime", batch, lambda x_NCHW: session.run(None, {IMAGE: x_NCHW})[0])
    with _failures_named("opencv"):
        net = cv2.dnn.readNetFromONNX(np.frombuffer(file, "u1"))
    yield PlainEngine(card, "opencv", batch, partial(_run_opencv, net))
    if find_spec("openvino"):
        import openvino as ov

        with _failures_named("openvino"):
            core = ov.Core()
            compiled = core.compile_model(core.read_model(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        yield PlainEngine(card, "openvino", batch, lambda x_NCHW: compiled(x_NCHW, share_outputs=False)[0])


def _run_opencv(net: Any, x_NCHW: NDArray[np.float32]) -> Any:
    net.setInput(x_NCHW)
    return net.forward()
