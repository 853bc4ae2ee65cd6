"""onnxruntime as an engine: on every CPU, and on NVIDIA GPUs where its GPU build is installed."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from carmask.errors import first_line
from carmask.limits import usable_cpus
from carmask.models.card import ModelCard, ModelFileError, source_name
from carmask.runtime.engine import Engine, EngineError, EngineMissing
from carmask.runtime.options import RunOptions

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


class OnnxEngine(Engine):
    """Runs an exported network on the CPU or, with CUDA or TensorRT, on an NVIDIA GPU.

    On the CPU it computes one image at a time: larger batches are no faster there.
    """

    def __init__(self, source: str | Path | bytes, card: ModelCard, options: RunOptions) -> None:
        super().__init__(card)
        self._name = source_name(source)
        tensorrt = options.engine == "tensorrt"
        device = options.device
        if device == "auto":
            device = "cuda" if tensorrt else "cpu"
        kind, _, index = device.partition(":")
        on_cpu = kind == "cpu"
        self.name = "tensorrt" if tensorrt else "onnxruntime"
        self.device = "cpu" if on_cpu else f"cuda:{int(index or 0)}"
        self.threads = (options.threads or usable_cpus()) if on_cpu else None
        self.steady_batch = 1 if on_cpu else None
        self.precision = "float32" if on_cpu or options.precision == "float32" else "tf32"
        if card.precision == "int8":
            self.precision = "int8"
        provider = _PROVIDERS["tensorrt" if tensorrt else kind]
        if provider not in ort.get_available_providers():
            raise EngineMissing(
                f"device '{device}' needs onnxruntime's {provider}, which the installed build does not have (it has "
                f"{', '.join(ort.get_available_providers())}); install onnxruntime-gpu instead of onnxruntime, or "
                "choose device cpu"
            )
        session_options = ort.SessionOptions()
        session_options.log_severity_level = 3
        provider_options: dict[str, object] = {}
        if self.threads is not None:
            session_options.intra_op_num_threads = self.threads
            # Threads that spin while they wait take the cores away from decoding and encoding.
            session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        else:
            provider_options["device_id"] = int(index or 0)
            # Finds CUDA and cuDNN where pip has put them.
            ort.preload_dlls()
        if provider == _PROVIDERS["cuda"]:
            provider_options["use_tf32"] = int(self.precision == "tf32")
        model = source if isinstance(source, bytes) else str(source)
        try:
            self._session = ort.InferenceSession(model, session_options, providers=[(provider, provider_options)])
        except Exception as error:
            # Its exceptions have no common base class.
            raise ModelFileError(
                f"{self._name}: onnxruntime cannot read it ({first_line(error)}); export it again"
            ) from error
        if self._session.get_providers()[0] != provider:
            raise EngineMissing(
                f"device '{device}': onnxruntime could not start its {provider}; check CUDA, cuDNN and the driver, or "
                "choose device cpu"
            )

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        images_NHWC = np.ascontiguousarray(images_NHWC)
        batches = [images_NHWC] if self.steady_batch is None else np.split(images_NHWC, len(images_NHWC))
        try:
            found = [self._session.run(None, {self._session.get_inputs()[0].name: batch})[0] for batch in batches]
        except Exception as error:
            raise EngineError(f"{self._name}: onnxruntime failed: {first_line(error)}") from error
        return found[0] if len(found) == 1 else np.concatenate(found)
