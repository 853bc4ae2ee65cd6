"""Load a network and start its engine."""

import os
import platform
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from carmask.errors import CarmaskError
from carmask.models.card import ModelCard, read_card, source_name
from carmask.runtime.engine import Engine, EngineMissing
from carmask.runtime.options import EngineName, RunOptions

_PACKAGES = {"openvino": "openvino", "onnxruntime": "onnxruntime", "tensorrt": "onnxruntime-gpu"}


@dataclass(frozen=True)
class Member:
    """The network of a file or folder. In another process, forked or unpickled, it is loaded again when it is used."""

    place: Path
    options: RunOptions = RunOptions()
    engines: dict[int, Engine] = field(default_factory=dict, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it takes to load the network again."""
        return Member, (self.place.absolute(), self.options)

    @property
    def engine(self) -> Engine:
        """The engine of this process. Raises what `load_engine` raises."""
        process = os.getpid()
        return self.engines.get(process) or self.engines.setdefault(process, load_engine(self.place, self.options))

    @property
    def card(self) -> ModelCard:
        """The network's metadata."""
        return self.engine.card

    def describe(self) -> dict[str, Any]:
        """Name, input, threshold, and where and how it runs, as JSON can hold them."""
        card, engine = self.card, self.engine
        return {
            "name": card.name,
            "input": {**card.geometry.model_dump(), "channels": card.channels},
            "threshold": card.threshold,
            "engine": engine.name,
            "device": engine.device,
            "precision": engine.precision,
            **({"threads": engine.threads} if engine.threads else {}),
        }

    def describe_engine(self) -> str:
        """Engine, device, precision and threads in a few words."""
        engine = self.engine
        threads = f", {engine.threads} thread{'s' * (engine.threads > 1)}" if engine.threads else ""
        return f"{engine.name} on {engine.device}, {engine.precision}{threads}"


def load_engine(place: Path, options: RunOptions = RunOptions()) -> Engine:
    """Load the network of a place (see `locate`) into an engine: torch for folders of weights, else any other.

    Raises:
        CarmaskError: the network is damaged, or cannot run here with these options.
    """
    if place.is_dir():
        return _load_weights(place, options)
    if place.suffix.lower() != ".onnx":
        raise CarmaskError(f"{place}: not a model; name an .onnx file, or the folder of a run or of weights")
    return open_onnx(place, options)


def open_onnx(source: str | Path | bytes, options: RunOptions = RunOptions()) -> Engine:
    """Open a network that `carmask export` wrote: a file's path, or its bytes.

    The engine `auto` is the fastest that is installed: onnxruntime on a GPU that it can use, OpenVINO on x86
    processors, onnxruntime elsewhere. `tensorrt` is onnxruntime with TensorRT.

    Raises:
        ModelFileError: the file is missing or damaged, or carmask has not exported it.
        EngineMissing: this machine cannot run this file with these options.
    """
    card = read_card(source)
    if card.precision == "int8" and options.precision != "auto":
        raise EngineMissing(
            f"{source_name(source)}: is int8 and cannot run in {options.precision}; export it in float32"
        )
    if options.engine != "auto":
        return _start(source, card, options)
    if options.device.startswith("cuda"):
        return _start(source, card, replace(options, engine="onnxruntime"))
    if options.device == "auto" and options.precision != "bf16" and _has_cuda_build():
        try:
            return _start(source, card, replace(options, engine="onnxruntime", device="cuda"))
        except EngineMissing:
            # onnxruntime is built for a GPU that this machine does not have: use the CPU.
            pass
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    order: tuple[EngineName, ...] = ("openvino", "onnxruntime") if is_x86 else ("onnxruntime", "openvino")
    fastest = next((engine for engine in order if find_spec(_PACKAGES[engine])), order[0])
    return _start(source, card, replace(options, engine=fastest))


def _load_weights(folder: Path, options: RunOptions) -> Engine:
    if options.engine not in ("auto", "torch"):
        raise EngineMissing(
            f"{folder}: holds PyTorch weights, which {options.engine} does not run; export them with "
            f"`carmask export {folder}`"
        )
    try:
        from carmask.models.network import Network
        from carmask.runtime.hardware import HardwareSettings, set_up
        from carmask.runtime.torch_engine import TorchEngine
    except ImportError as error:
        raise EngineMissing(
            f"{folder}: holds PyTorch weights, and PyTorch is not installed ({error}); install it with `pip install "
            "'carmask[train]'`, or export them with `carmask export` where it is installed"
        ) from error
    if TorchEngine.process not in (None, os.getpid()):
        raise EngineMissing(
            f"{folder}: PyTorch has run in the process that this one was forked from, and would wait for its threads; "
            "start processes with multiprocessing's 'spawn', or export the network with `carmask export`"
        )
    network = Network.load(folder)
    hardware = set_up(HardwareSettings(device=options.device, precision=options.precision, threads=options.threads))
    return TorchEngine(network, hardware)


def _start(source: str | Path | bytes, card: ModelCard, options: RunOptions) -> Engine:
    engine, device, precision = options.engine, options.device, options.precision
    if engine == "torch":
        raise EngineMissing(
            f"{source_name(source)}: PyTorch runs folders of weights, not .onnx files; name the run's folder, or "
            "choose another engine"
        )
    unusable = {"openvino": device.startswith("cuda"), "tensorrt": device == "cpu"}
    if device == "mps" or unusable.get(engine):
        raise EngineMissing(
            f"device '{device}': {engine} cannot use it; choose another engine, or leave the device at auto"
        )
    # TensorRT computes convolutions in TF32, which onnxruntime has no option to switch off.
    if (engine != "openvino" and precision == "bf16") or (engine == "tensorrt" and precision == "float32"):
        raise EngineMissing(
            f"precision '{precision}': {engine} does not compute in it; choose another engine, or leave the precision "
            "at auto"
        )
    try:
        if engine == "openvino":
            from carmask.runtime.openvino_engine import OpenVinoEngine

            return OpenVinoEngine(source, card, options)
        from carmask.runtime.onnx_engine import OnnxEngine

        return OnnxEngine(source, card, options)
    except ImportError as error:
        package = _PACKAGES[engine]
        raise EngineMissing(
            f"engine '{engine}' needs {package}, which is not installed ({error}); run `pip install {package}`"
        ) from error


def _has_cuda_build() -> bool:
    """Whether onnxruntime is installed in its build for NVIDIA GPUs. Looking is cheaper than importing it."""
    spec = find_spec("onnxruntime")
    folders = spec.submodule_search_locations if spec else None
    return any(list(Path(folder, "capi").glob("*onnxruntime_providers_cuda.*")) for folder in folders or ())
