"""OpenVINO as an engine: the fastest on x86 processors."""

from collections import Counter
from collections.abc import Mapping
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from carmask.errors import first_line
from carmask.limits import cpu_quota
from carmask.models.card import ModelCard, ModelFileError, source_name
from carmask.runtime.engine import Engine, EngineError, EngineMissing
from carmask.runtime.options import RunOptions

# Calls with changing shapes have given wrong outputs, so each size is compiled separately; this many are kept.
_KEPT = 4

_CONVOLUTIONS = frozenset({"Convolution", "Deconvolution"})
_PRECISIONS = {"f32": "float32", "bf16": "bf16", "f16": "float16", "u8": "int8", "i8": "int8"}


class OpenVinoEngine(Engine):
    """Runs an exported network on the CPU. It writes no files: compiling takes a fifth of a second.

    All threads compute a single image together. Several images are computed in parallel, each independently of the
    others, which takes a tenth less work per image.
    """

    name = "openvino"
    device = "cpu"
    steady_batch = 2

    def __init__(self, source: str | Path | bytes, card: ModelCard, options: RunOptions) -> None:
        super().__init__(card)
        self._name = source_name(source)
        self._canvas_HW = card.geometry.canvas_HW(card.stride_px)
        # By default OpenVINO binds its threads to the first processors, in every process to the same ones.
        settings: dict[str, object] = {"ENABLE_CPU_PINNING": False}
        # By default it takes a thread per processor, whatever the container's limit.
        threads = options.threads or cpu_quota()
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        # No other hint: f16 and a forced bf16 were slower than what OpenVINO chooses itself.
        if options.precision == "float32":
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        core = ov.Core()
        try:
            model = core.read_model(source if isinstance(source, bytes) else str(source))
        except RuntimeError as error:
            raise ModelFileError(f"{self._name}: OpenVINO cannot read it; export the network again") from error
        compile_ = lru_cache(_KEPT)(partial(_compile, core, model, settings, card.channels, self._name))
        self._compile = compile_
        # As many requests as OpenVINO finds best for this machine.
        self._queue_of = lru_cache(_KEPT)(lambda size_HW: ov.AsyncInferQueue(compile_(size_HW, "THROUGHPUT")))
        if options.precision not in ("auto", self.precision):
            raise EngineMissing(
                f"{self._name}: OpenVINO computes it in {self.precision} on this processor, not in "
                f"{options.precision}; leave the precision at auto"
            )

    @cached_property
    def precision(self) -> str:  # type: ignore[override]
        """What most convolutions really run in, as the compiled graph says; no hint does."""
        graph = self._compile(self._canvas_HW, "THROUGHPUT").get_runtime_model()
        infos = [node.get_rt_info() for node in graph.get_ops()]
        found = Counter(
            str(info["runtimePrecision"].astype(str))
            for info in infos
            if str(info["layerType"].astype(str)) in _CONVOLUTIONS
        )
        ((precision, _),) = found.most_common(1) or [("f32", 0)]
        return _PRECISIONS.get(precision, precision)

    @cached_property
    def threads(self) -> int | None:  # type: ignore[override]
        """The number given, or OpenVINO's own choice."""
        return int(self._compile(self._canvas_HW, "THROUGHPUT").get_property("INFERENCE_NUM_THREADS"))

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        count, height, width, _ = images_NHWC.shape
        probability_NHW = np.empty((count, height, width), np.float32)

        def take(request: ov.InferRequest, index: int) -> None:
            probability_NHW[index] = request.get_output_tensor(0).data[0]

        try:
            if count == 1:
                compiled = self._compile((height, width), "LATENCY")
                probability_NHW[:] = compiled(images_NHWC, share_outputs=False)[0]
            else:
                queue = self._queue_of((height, width))
                queue.set_callback(take)
                for index in range(count):
                    queue.start_async({0: images_NHWC[index : index + 1]}, index)
                queue.wait_all()
        except RuntimeError as error:
            raise EngineError(f"{self._name}: OpenVINO failed on {height} x {width} px: {first_line(error)}") from error
        return probability_NHW


def _compile(
    core: ov.Core,
    model: ov.Model,
    settings: Mapping[str, object],
    channels: int,
    name: str,
    size_HW: tuple[int, int],
    hint: str,
) -> ov.CompiledModel:
    """Compile a network for single images of one size."""
    resized = model.clone()
    resized.reshape({0: [1, *size_HW, channels]})
    try:
        return core.compile_model(resized, "CPU", {**settings, "PERFORMANCE_HINT": hint})
    except RuntimeError as error:
        height, width = size_HW
        raise EngineError(
            f"{name}: OpenVINO cannot compile it for {height} x {width} px: {first_line(error)}"
        ) from error
