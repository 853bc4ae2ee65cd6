"""carmask: cut vehicles out of photographs with U-Net segmentation models."""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from carmask.errors import CarmaskError
    from carmask.segmenter import Result, Segmenter

__version__ = "0.1.0"

# onnxruntime's builds tell their maker about models and machines, and keep files for that, unless this is set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["CarmaskError", "Result", "Segmenter", "__version__"]

_HOMES = {"CarmaskError": "carmask.errors", "Result": "carmask.segmenter", "Segmenter": "carmask.segmenter"}


def __getattr__(name: str) -> object:
    """Import what is asked for only then (PEP 562): the command line's help waits for neither NumPy nor OpenCV."""
    if name not in _HOMES:
        raise AttributeError(f"module 'carmask' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
