"""Static quantization to 8-bit integers, with ranges measured on photos.

The file holds pairs of QuantizeLinear and DequantizeLinear around the operators (QDQ), which OpenVINO and onnxruntime
both turn into integer arithmetic. Chosen by the Dice of `fast` and `small` on held-out Carvana photos:

- Activations are uint8 with a zero point, weights int8 for each channel. With int8 activations OpenVINO lost 0.0014 of
  Dice, with uint8 weights all of it.
- Each activation's range is the mean over the photos of their least and greatest values. The least and the greatest of
  all 64 photos lost four times as much.
- ReLU is one of the quantized operators: otherwise ranges include the negative values before it, and twice as many
  pixels change sides. So is Clip, which is ReLU6: without it int8 is no faster than bf16.
- The first and the last convolution stay float: `small` loses 0.00004 less Dice, `fast` takes 5 % longer. Besides,
  OpenVINO cannot compile a quantized convolution of one channel next to bf16.

Older processors (without VNNI) add products in pairs of 16 bits. In `fast` one pair in a million is too large for that,
which changed no Dice (emulated), so the weights keep all their bits.
"""

import copy
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from carmask.exporting.graph import IMAGE, cleaned, log_level


def quantize(model: onnx.ModelProto, canvases: Iterable[NDArray[np.uint8]]) -> onnx.ModelProto:
    """Quantize a graph of `build_graph`.

    Args:
        model: The graph, its weights float32.
        canvases: Fitted photos (uint8, H x W x C) to measure the ranges of the activations on.
    """
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    # onnxruntime recommends, on the root logger, a preparation that the exporter has already done.
    with log_level(None, logging.ERROR), tempfile.TemporaryDirectory(prefix="carmask-") as folder:
        quantized = Path(folder, "int8.onnx")
        quantize_static(
            copy.deepcopy(model),
            quantized,
            _Reader(canvases),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "ConvTranspose", "Relu", "Clip", "MaxPool", "Concat"],
            nodes_to_exclude=[convolutions[0], convolutions[-1]],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True},
        )
        return cleaned(onnx.load(quantized))


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Fitted photos one by one, as onnxruntime asks for them."""

    def __init__(self, canvases: Iterable[NDArray[np.uint8]]) -> None:
        self._canvases = iter(canvases)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """See `CalibrationDataReader`."""
        canvas_HWC = next(self._canvases, None)
        return None if canvas_HWC is None else {IMAGE: canvas_HWC[None]}
