"""An `.onnx` file whose masks are known beforehand, made without PyTorch: what is bright is a vehicle."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from carmask.imaging.geometry import Geometry
from carmask.models.card import CARD_KEY, ModelCard
from carmask.models.config import UNetConfig

SIZE_HW = (64, 96)


def write_bright_onnx(path: Path, *, name: str = "bright", threshold: float = 0.5, slope: float = 4.0) -> Path:
    """Save a network whose probability is sigmoid(slope * (4 * brightness - 2)), brightness 0..1, pixel by pixel."""
    weights = {
        "scale": np.float32(slope * 4 / 255),
        "offset": np.float32(slope * -2),
        "channels": np.array([3], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["levels", "channels"], ["gray"], keepdims=0),
        helper.make_node("Mul", ["gray", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "bright",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", "H", "W"])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    card = ModelCard(
        name=name,
        unet=UNetConfig(in_channels=3, widths=(1, 1)),
        geometry=Geometry(height_px=SIZE_HW[0], width_px=SIZE_HW[1]),
        threshold=threshold,
    )
    helper.set_model_props(model, {CARD_KEY: card.to_json()})
    onnx.save(model, path)
    return path
