"""OpenVINO as an engine: the fastest on x86 processors."""

from collections import Counter, OrderedDict
from functools import cached_property
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from carmask.errors import first_line
from carmask.limits import cpu_quota
from carmask.models.card import ModelCard, ModelFileError, source_name
from carmask.runtime.engine import EngineError, EngineMissing, Owner, check_images
from carmask.runtime.options import RunOptions

# Each size is compiled for itself, since calls with changing shapes have given wrong outputs; so many are kept.
_KEPT = 4

_CONVOLUTIONS = frozenset({"Convolution", "Deconvolution"})
_PRECISIONS = {"f32": "float32", "bf16": "bf16", "f16": "float16", "u8": "int8", "i8": "int8"}


class _Compiled:
    """A network compiled for images of one size, each by itself."""

    def __init__(self, network: ov.CompiledModel) -> None:
        self.network = network

    @cached_property
    def _queue(self) -> ov.AsyncInferQueue:
        # As many requests as OpenVINO finds best for this machine.
        return ov.AsyncInferQueue(self.network)

    def run_side_by_side(self, images_NHWC: NDArray[np.uint8], into_NHW: NDArray[np.float32]) -> None:
        """Compute several images at once, each by itself."""

        def take(request: ov.InferRequest, index: int) -> None:
            into_NHW[index] = request.get_output_tensor(0).data[0]

        self._queue.set_callback(take)
        for index in range(len(images_NHWC)):
            self._queue.start_async({0: images_NHWC[index : index + 1]}, index)
        self._queue.wait_all()


class OpenVinoEngine:
    """Runs an exported network on the CPU. It writes no files: compiling takes a fifth of a second.

    One image is computed by all threads together. Several are computed side by side, each by itself, which takes a
    tenth less work for each, and nothing of an image's result depends on the others.
    """

    name = "openvino"
    device = "cpu"
    steady_batch = 2

    def __init__(self, source: str | Path | bytes, card: ModelCard, options: RunOptions) -> None:
        self._owner = Owner()
        self._card = card
        self._name = source_name(source)
        self._core = ov.Core()
        # By itself OpenVINO binds its threads to the first processors, in every process to the same ones.
        self._settings: dict[str, object] = {"ENABLE_CPU_PINNING": False}
        # It counts processors, and takes a thread for each.
        threads = options.threads or cpu_quota()
        if threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        # No hint but this one: f16 and a forced bf16 were slower than what OpenVINO chooses by itself.
        if options.precision == "float32":
            self._settings["INFERENCE_PRECISION_HINT"] = "f32"
        try:
            self._model = self._core.read_model(source if isinstance(source, bytes) else str(source))
        except RuntimeError as error:
            raise ModelFileError(f"{self._name}: OpenVINO cannot read it; export the network again") from error
        self._compiled: OrderedDict[tuple[int, int, bool], _Compiled] = OrderedDict()
        if options.precision not in ("auto", self.precision):
            why = "this processor has no bf16 instructions" if options.precision == "bf16" else "the file is stored so"
            raise EngineMissing(
                f"{self._name}: {options.precision} was asked for, but OpenVINO computes it in {self.precision} "
                f"({why}); leave the precision at auto"
            )

    @cached_property
    def precision(self) -> str:
        """See `Engine`; read from what was compiled."""
        return _precision_of(self._any_compiled().network)

    @cached_property
    def threads(self) -> int | None:
        """See `Engine`; what was asked for, or OpenVINO's own choice."""
        return int(self._any_compiled().network.get_property("INFERENCE_NUM_THREADS"))

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine.run`."""
        self._owner.check()
        check_images(images_NHWC, self._card.channels)
        count, height, width, _ = images_NHWC.shape
        probability_NHW = np.empty((count, height, width), np.float32)
        alone = count == 1
        compiled = self._compile(height, width, alone=alone)
        try:
            if alone:
                probability_NHW[:] = compiled.network(images_NHWC, share_outputs=False)[0]
            else:
                compiled.run_side_by_side(images_NHWC, probability_NHW)
        except RuntimeError as error:
            raise EngineError(f"{self._name}: OpenVINO failed on {height} x {width} px: {first_line(error)}") from error
        return probability_NHW

    def _any_compiled(self) -> _Compiled:
        canvas_HW = self._card.geometry.canvas_HW(self._card.stride_px)
        return next(iter(self._compiled.values()), None) or self._compile(*canvas_HW, alone=False)

    def _compile(self, height: int, width: int, *, alone: bool) -> _Compiled:
        key = height, width, alone
        if key not in self._compiled:
            while len(self._compiled) >= _KEPT:
                self._compiled.popitem(last=False)
            model = self._model.clone()
            model.reshape({0: [1, height, width, self._card.channels]})
            settings = {**self._settings, "PERFORMANCE_HINT": "LATENCY" if alone else "THROUGHPUT"}
            try:
                self._compiled[key] = _Compiled(self._core.compile_model(model, "CPU", settings))
            except RuntimeError as error:
                raise EngineError(
                    f"{self._name}: OpenVINO cannot compile it for {height} x {width} px: {first_line(error)}"
                ) from error
        self._compiled.move_to_end(key)
        return self._compiled[key]


def _precision_of(compiled: ov.CompiledModel) -> str:
    """In what most convolutions really run: it stands in the compiled graph, not in any hint."""
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    found = Counter(
        str(fact["runtimePrecision"].astype(str))
        for fact in facts
        if str(fact["layerType"].astype(str)) in _CONVOLUTIONS
    )
    ((precision, _),) = found.most_common(1) or [("f32", 0)]
    return _PRECISIONS.get(precision, precision)
