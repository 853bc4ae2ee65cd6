"""Choose an engine for an exported network, and open it."""

import platform
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from carmask.errors import CarmaskError
from carmask.runtime.card import ModelCard
from carmask.runtime.engine import Engine, EngineMissing, EngineName, Precision
from carmask.runtime.onnx_file import model_name, read_card

_PACKAGES = {"openvino": "openvino", "onnxruntime": "onnxruntime", "tensorrt": "onnxruntime-gpu"}


def open_onnx(
    source: str | Path | bytes,
    *,
    engine: EngineName = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
) -> Engine:
    """Open a network that `carmask export` wrote: a file's path, or its bytes.

    Args:
        source: The `.onnx` file.
        engine: auto is the fastest that is there: onnxruntime on a GPU that it can use, OpenVINO on x86 processors,
            onnxruntime elsewhere. tensorrt is onnxruntime by TensorRT.
        device: auto, cpu, cuda or cuda:1.
        precision: auto is what the engine computes fastest; bf16 only where the processor has it.
        threads: CPU threads; the engine's own choice when not given.

    Raises:
        ModelFileError: the file is missing, damaged, or carmask has not exported it.
        EngineMissing: what was asked for cannot be had here.

    """
    check_wishes(engine, device, precision, threads)
    card = read_card(source)
    if card.precision == "int8" and precision != "auto":
        raise EngineMissing(f"{model_name(source)}: is int8 and cannot run in {precision}; export it in float32")
    if engine != "auto":
        return _start(engine, source, card, device=device, precision=precision, threads=threads)
    if device.startswith("cuda"):
        return _start("onnxruntime", source, card, device=device, precision=precision, threads=threads)
    if device == "auto" and precision != "bf16" and _has_cuda_build():
        try:
            return _start("onnxruntime", source, card, device="cuda", precision=precision, threads=threads)
        except EngineMissing:
            # Built for a GPU that this machine does not have: the fastest that is there is another.
            pass
    chosen = _fastest_on_cpu()
    return _start(chosen, source, card, device=device, precision=precision, threads=threads)


def check_wishes(engine: str, device: str, precision: str, threads: int | None) -> None:
    """Refuse what no engine knows.

    Raises:
        CarmaskError: there is no such engine, device or precision, or the number of threads is none.

    """
    for what, value, known in (
        ("engine", engine, get_args(EngineName)),
        ("precision", precision, get_args(Precision)),
        ("device", device.partition(":")[0], ("auto", "cpu", "cuda", "mps")),
    ):
        if value not in known:
            raise CarmaskError(f"{what} '{value}': is not known; choose one of {', '.join(known)}")
    index = device.partition(":")
    if index[1] and (index[0] != "cuda" or not index[2].isdecimal()):
        raise CarmaskError(f"device '{device}': is not known; choose one of auto, cpu, cuda, cuda:1, mps")
    if threads is not None and threads < 1:
        raise CarmaskError(f"{threads} threads: give 1 or more")


def _start(
    engine: EngineName,
    source: str | Path | bytes,
    card: ModelCard,
    *,
    device: str,
    precision: Precision,
    threads: int | None,
) -> Engine:
    if engine == "torch":
        raise EngineMissing(
            f"{model_name(source)}: PyTorch runs folders of weights, not .onnx files; name the run's folder, or choose "
            "another engine"
        )
    if device == "mps" or (engine == "openvino" and device.startswith("cuda")):
        raise EngineMissing(
            f"device '{device}': {engine} cannot use it; choose another engine, or leave the device at auto"
        )
    if engine == "tensorrt":
        _check_tensorrt(device, precision)
    try:
        if engine == "openvino":
            from carmask.runtime.openvino_engine import OpenVinoEngine

            return OpenVinoEngine(source, card, precision=precision, threads=threads)
        from carmask.runtime.onnx_engine import OnnxEngine

        default = "cuda" if engine == "tensorrt" else "cpu"
        return OnnxEngine(
            source,
            card,
            device=default if device == "auto" else device,
            tensorrt=engine == "tensorrt",
            precision=precision,
            threads=threads,
        )
    except ImportError as error:
        package = _PACKAGES[engine]
        raise EngineMissing(
            f"engine '{engine}' needs {package}, which is not installed ({error}); `pip install {package}` brings it"
        ) from error


def _check_tensorrt(device: str, precision: Precision) -> None:
    if device == "cpu":
        raise EngineMissing(
            "device 'cpu': tensorrt runs on NVIDIA GPUs alone; choose engine onnxruntime, or leave the device at auto"
        )
    if precision == "float32":
        # onnxruntime has no option of it that would keep its convolutions from TF32.
        raise EngineMissing(
            "precision 'float32': tensorrt computes in tf32, and that cannot be switched off; choose engine "
            "onnxruntime, or leave the precision at auto"
        )


def _fastest_on_cpu() -> EngineName:
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    order: tuple[EngineName, ...] = ("openvino", "onnxruntime") if is_x86 else ("onnxruntime", "openvino")
    for engine in order:
        if find_spec(_PACKAGES[engine]):
            return engine
    raise EngineMissing(
        "neither openvino nor onnxruntime is installed, and one is needed to run a network; `pip install carmask` "
        "brings them"
    )


def _has_cuda_build() -> bool:
    """Whether onnxruntime is installed in its build for NVIDIA GPUs. Looking is cheaper than importing it."""
    spec = find_spec("onnxruntime")
    folders = spec.submodule_search_locations if spec else None
    return any(list(Path(folder, "capi").glob("*onnxruntime_providers_cuda.*")) for folder in folders or ())
