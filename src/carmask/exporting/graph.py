"""Convert a network to one ONNX graph, from uint8 pixels to probabilities, of any height and width.

PyTorch exports the network itself, for sides that are multiples of its stride. The padding and the cropping around it
are written here in ONNX's text form, because `torch.export` cannot follow the padding's arithmetic for unknown sizes.
All operators are standard ones of opset 18 (onnxruntime 1.14, OpenVINO 2023.0 and later).
"""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, compose, helper, numpy_helper, parser
from torch import Tensor, nn

from carmask.files import write_bytes_atomically
from carmask.imaging.geometry import size_text
from carmask.models.card import CARD_KEY, HeldOut, ModelCard, read_card
from carmask.models.dice_calibration import DiceCalibration
from carmask.models.network import Network

IMAGE, PROBABILITY = "image", "probability"

_OPSET = 18
_IR_VERSION = 8  # the oldest that this opset allows, for older programs

# Shapes: N photos, H x W pixels, C channels; PH x PW padded at bottom and right to multiples of the stride.
_ENTRANCE = """
<ir_version: {ir}, opset_import: ["": {opset}]>
entrance (uint8[N, H, W, {channels}] image) => (float[N, {channels}, PH, PW] pixels, int64[2] size_HW) {{
    size_HW = Shape <start = 1, end = 3> (image)
    stride_HW = Constant <value_ints = [{stride_px}, {stride_px}]> ()
    negative_HW = Neg (size_HW)
    added_HW = Mod (negative_HW, stride_HW)
    before = Constant <value_ints = [0, 0, 0, 0, 0]> ()
    channels_after = Constant <value_ints = [0]> ()
    added_NHWC = Concat <axis = 0> (before, added_HW, channels_after)
    padded_NHWC = Pad <mode = "edge"> (image, added_NHWC)
    padded_NCHW = Transpose <perm = [0, 3, 1, 2]> (padded_NHWC)
    levels = Cast <to = 1> (padded_NCHW)
    white = Constant <value_float = 255.0> ()
    pixels = Div (levels, white)
}}
"""
_EXIT = """
<ir_version: {ir}, opset_import: ["": {opset}]>
exit (float[N, 1, PH, PW] padded_logits, int64[2] photo_HW) => (float[N, H, W] probability) {{
    channel_axis = Constant <value_ints = [1]> ()
    padded_logits_NHW = Squeeze (padded_logits, channel_axis)
    origin = Constant <value_ints = [0, 0]> ()
    axes_HW = Constant <value_ints = [1, 2]> ()
    logits_NHW = Slice (padded_logits_NHW, origin, photo_HW, axes_HW)
    probability = Sigmoid (logits_NHW)
}}
"""


def build_graph(network: Network) -> onnx.ModelProto:
    """Build the graph `image` uint8 N x H x W x C -> `probability` float32 0..1, N x H x W, all but C dynamic.

    Sides that are no multiples of the network's stride are padded by repeating the last row and column, and the
    probability is cropped back. The weights are float32.
    """
    unet = network.card.unet
    values = {"ir": _IR_VERSION, "opset": _OPSET, "channels": unet.in_channels, "stride_px": unet.stride_px}
    entrance, exit_ = (parser.parse_model(text.format_map(values)) for text in (_ENTRANCE, _EXIT))
    # Operators are checked once, in the whole.
    inner = compose.merge_models(entrance, _export(network), [("pixels", "x_BCHW")], outputs=["logits_B1HW", "size_HW"])
    model = compose.merge_models(inner, exit_, [("logits_B1HW", "padded_logits"), ("size_HW", "photo_HW")])
    model.graph.name = "carmask"
    return cleaned(model)


def store_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store weights as float16 and cast each to float32: half the file, still computed in float32.

    Biases, and weights that float16 cannot hold, stay float32.
    """
    model = copy.deepcopy(model)
    casts, kept = [], []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim > 1 and np.abs(values).max() <= np.finfo(np.float16).max:
            stored = f"{tensor.name}.float16"
            casts.append(helper.make_node("Cast", [stored], [tensor.name], f"{tensor.name}.cast", to=TensorProto.FLOAT))
            kept.append(numpy_helper.from_array(values.astype(np.float16), stored))
        else:
            kept.append(tensor)
    nodes = [*casts, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)
    return cleaned(model)


def cleaned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the traces of tools (paths of this machine, unused domains) from a graph, and check it."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.ClearField("doc_string")
    del model.graph.value_info[:], model.metadata_props[:], model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", _OPSET))
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


def to_file(model: onnx.ModelProto, card: ModelCard) -> bytes:
    """Return the `.onnx` file, with the card in its metadata."""
    return serialize(
        model,
        card,
        CARD_KEY,
        f"{card.name}: {IMAGE} (uint8, N x H x W x {card.channels}, {card.colors}) -> "
        f"{PROBABILITY} (float32 0..1, N x H x W). Made for photos fitted to {size_text(card.geometry.size_HW)} "
        f"(height x width); the card under '{CARD_KEY}' in the metadata says more.",
    )


def serialize(model: onnx.ModelProto, card: ModelCard, card_key: str, description: str) -> bytes:
    """Return a model as bytes, with its card under a key of the metadata."""
    model = copy.deepcopy(model)
    model.producer_name, model.producer_version = "carmask", card.version
    model.doc_string = description
    helper.set_model_props(model, {card_key: card.to_json()})
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def note_held_out(path: Path, figures: Sequence[HeldOut]) -> None:
    """Replace the held-out figures in the card of an exported network, and nothing else.

    Raises:
        ModelFileError: there is no such file, or carmask has not exported it.
        UnwritableFile: it cannot be written.
    """
    _replace_in_card(path, measured=read_card(path).measured.model_copy(update={"held_out": tuple(figures)}))


def note_dice_calibration(path: Path, calibration: DiceCalibration) -> None:
    """Replace the calibration of expected Dice in the card of an exported network, and nothing else.

    Raises what `note_held_out` raises.
    """
    _replace_in_card(path, dice_calibration=calibration)


def _replace_in_card(path: Path, **fields: Any) -> None:
    write_bytes_atomically(path, to_file(onnx.load(path), read_card(path).model_copy(update=fields)))


@contextlib.contextmanager
def log_level(name: str | None, level: int) -> Iterator[None]:
    """Set the level of a logger, of the root logger for None, and restore it afterwards."""
    log = logging.getLogger(name)
    before = log.level
    log.setLevel(level)
    try:
        yield
    finally:
        log.setLevel(before)


def _export(network: Network) -> onnx.ModelProto:
    """Export the network itself: `x_BCHW` float 0..1 -> `logits_B1HW`, sides multiples of the stride."""
    unet = network.card.unet
    # The exporter would treat a batch of one, or sides of one stride, as constants.
    example_BCHW = torch.zeros(2, unet.in_channels, 2 * unet.stride_px, 3 * unet.stride_px)
    sides = {axis: unet.stride_px * torch.export.Dim(name) for axis, name in ((2, "rows"), (3, "columns"))}
    dynamic = {"x_BCHW": {0: torch.export.Dim("batch"), **sides}}
    return export_onnx(network, example_BCHW, "x_BCHW", "logits_B1HW", dynamic)


def export_onnx(
    module: nn.Module, example: Tensor, input_name: str, output_name: str, dynamic_shapes: dict[str, Any] | None = None
) -> onnx.ModelProto:
    """Export a module in evaluation mode, with the shapes of an example unless some are dynamic."""
    # The exporter prints its steps, logs them, and warns that torchvision is missing.
    quiet = log_level("torch.onnx", logging.ERROR), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings()
    with quiet[0], quiet[1], quiet[2]:
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            copy.deepcopy(module).cpu().float().eval(),
            (example,),
            dynamo=True,
            external_data=False,
            opset_version=_OPSET,
            dynamic_shapes=dynamic_shapes,
            input_names=[input_name],
            output_names=[output_name],
        )
    assert program is not None
    model = program.model_proto
    model.ir_version = _IR_VERSION
    return model
