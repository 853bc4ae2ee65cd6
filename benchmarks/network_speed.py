"""Time of one forward pass of each preset at its own size, in OpenVINO and in PyTorch, on this CPU.

    python benchmarks/network_speed.py PRESET ...        each is recorded by itself

OpenVINO is left to choose its precision, and what it chose is read from the compiled graph.
"""

import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import openvino
import torch

from carmask.models.network import Network, NetworkConfig
from carmask.models.presets import PresetName
from record import record

SECONDS_EACH = 6.0


def median_ms(run: Callable[[], object]) -> float:
    """Median duration after a warm-up, in milliseconds."""
    for _ in range(2):
        run()
    durations_s: list[float] = []
    while sum(durations_s) < SECONDS_EACH or len(durations_s) < 5:
        began_s = time.perf_counter()
        run()
        durations_s.append(time.perf_counter() - began_s)
    return 1000 * statistics.median(durations_s)


def measure(preset: PresetName) -> dict[str, Any]:
    """Milliseconds for one image of the preset's own size."""
    network = Network(NetworkConfig.from_preset(preset)).eval()
    summary = network.summary()
    x_BCHW = torch.rand(1, *summary.input_CHW)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        torch.onnx.export(network, (x_BCHW,), path, external_data=False, verbose=False)
        compiled = openvino.Core().compile_model(str(path), "CPU")
    precisions = Counter(
        str(op.get_rt_info()["runtimePrecision"].value)
        for op in compiled.get_runtime_model().get_ordered_ops()
        if op.get_rt_info()["layerType"].value == "Convolution"
    )
    image_BCHW = np.ascontiguousarray(x_BCHW.numpy())
    with torch.inference_mode():
        torch_ms = median_ms(lambda: network(x_BCHW))
    return {
        "input": " x ".join(map(str, summary.input_CHW)),
        "parameters": summary.parameters,
        "gmac": round(summary.multiply_adds / 1e9, 2),
        "openvino_ms": round(median_ms(lambda: compiled(image_BCHW, share_outputs=False)), 2),
        "openvino_precision": precisions.most_common(1)[0][0],
        "torch_float32_ms": round(torch_ms, 2),
    }


def main() -> None:
    """Measure the presets that are named, or all."""
    names = [name for name in get_args(PresetName) if name in sys.argv[1:]]
    if not names or len(names) < len(sys.argv) - 1:
        sys.exit(__doc__)
    for name in names:
        figures = measure(name)
        print(name, figures)
        record(f"network_speed_{name}", {"preset": name, "threads": torch.get_num_threads(), **figures})


if __name__ == "__main__":
    main()
