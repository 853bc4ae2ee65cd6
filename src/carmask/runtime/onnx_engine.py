"""onnxruntime as an engine: everywhere, and on NVIDIA GPUs where its GPU build is installed."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from carmask.errors import first_line
from carmask.limits import usable_cpus
from carmask.models.card import ModelCard, ModelFileError, source_name
from carmask.runtime.engine import EngineError, EngineMissing, Owner, check_images
from carmask.runtime.options import Precision, RunOptions

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


class OnnxEngine:
    """Runs an exported network on the CPU or, by CUDA or TensorRT, on an NVIDIA GPU.

    On the CPU each image is computed by itself: larger batches are no faster there.
    """

    def __init__(self, source: str | Path | bytes, card: ModelCard, options: RunOptions) -> None:
        self._owner = Owner()
        self._card = card
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
        self.precision = _precision_of(card, on_cpu=on_cpu, wanted=options.precision)
        provider = _PROVIDERS["tensorrt" if tensorrt else kind]
        if provider not in ort.get_available_providers():
            raise EngineMissing(
                f"device '{device}' needs onnxruntime's {provider}, which the installed build does not have (it has "
                f"{', '.join(ort.get_available_providers())}); install onnxruntime-gpu in place of onnxruntime, or "
                "choose device cpu"
            )
        provider_options: dict[str, object] = {} if on_cpu else {"device_id": int(index or 0)}
        if provider == _PROVIDERS["cuda"]:
            provider_options["use_tf32"] = int(self.precision == "tf32")
        if not on_cpu:
            # Finds CUDA and cuDNN where pip has put them.
            ort.preload_dlls()
        self._session = _open(source, self._name, _session_options(self.threads), provider, provider_options)
        if self._session.get_providers()[0] != provider:
            raise EngineMissing(
                f"device '{device}': onnxruntime could not start its {provider}; see to CUDA, cuDNN and the driver, or "
                "choose device cpu"
            )

    def run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine.run`."""
        self._owner.check()
        check_images(images_NHWC, self._card.channels)
        if self.steady_batch is None:
            return self._run(images_NHWC)
        return np.concatenate([self._run(images_NHWC[i : i + 1]) for i in range(len(images_NHWC))])

    def _run(self, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        feed = {self._session.get_inputs()[0].name: np.ascontiguousarray(images_NHWC)}
        try:
            probability_NHW: NDArray[np.float32] = self._session.run(None, feed)[0]
        except Exception as error:
            raise EngineError(f"{self._name}: onnxruntime failed: {first_line(error)}") from error
        return probability_NHW


def _session_options(threads: int | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
        # Threads that spin while they wait take the cores away from decoding and encoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open(
    source: str | Path | bytes,
    name: str,
    session_options: ort.SessionOptions,
    provider: str,
    options: dict[str, object],
) -> ort.InferenceSession:
    model = source if isinstance(source, bytes) else str(source)
    try:
        return ort.InferenceSession(model, session_options, providers=[(provider, options)])
    except Exception as error:
        # Its exceptions have no base of their own.
        raise ModelFileError(f"{name}: onnxruntime cannot read it ({first_line(error)}); export it again") from error


def _precision_of(card: ModelCard, *, on_cpu: bool, wanted: Precision) -> str:
    if wanted == "bf16":
        raise EngineMissing(
            "onnxruntime does not compute in bf16; choose engine openvino, or leave the precision at auto"
        )
    if card.precision == "int8":
        return "int8"
    return "float32" if on_cpu or wanted == "float32" else "tf32"
