"""Where and how networks run. Light to import: the command line's help reads it."""

from dataclasses import dataclass
from typing import Literal, get_args

from carmask.errors import CarmaskError

EngineName = Literal["auto", "openvino", "onnxruntime", "tensorrt", "torch"]
Precision = Literal["auto", "float32", "bf16"]


@dataclass(frozen=True)
class RunOptions:
    """Where and how networks run. Raises `CarmaskError` for values that no engine knows.

    Attributes:
        engine: auto takes the fastest engine that is installed.
        device: auto, cpu, cuda, cuda:1 or mps.
        precision: auto takes the fastest precision of the engine. bf16 needs hardware that has it.
        threads: CPU threads of the network. Default: the engine's own choice.
    """

    engine: EngineName = "auto"
    device: str = "auto"
    precision: Precision = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        for option, value, known in (
            ("engine", self.engine, get_args(EngineName)),
            ("precision", self.precision, get_args(Precision)),
        ):
            if value not in known:
                raise CarmaskError(f"{option} '{value}' is not known; choose one of {', '.join(known)}")
        kind, colon, index = self.device.partition(":")
        if kind not in ("auto", "cpu", "cuda", "mps") or (colon and (kind != "cuda" or not index.isdecimal())):
            raise CarmaskError(f"device '{self.device}' is not known; choose one of auto, cpu, cuda, cuda:1, mps")
        if self.threads is not None and self.threads < 1:
            raise CarmaskError(f"{self.threads} threads: give 1 or more")
