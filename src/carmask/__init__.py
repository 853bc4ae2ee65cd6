"""carmask: cut vehicles out of photographs with U-Net segmentation models.

`Segmenter.load()("car.jpg").mask` is the mask of a photo, bool (height, width).
"""

from importlib import import_module
from typing import TYPE_CHECKING

from carmask.privacy import silence_packages

if TYPE_CHECKING:
    from carmask.errors import CarmaskError
    from carmask.evaluation.evaluate import evaluate
    from carmask.exporting.export import export
    from carmask.models.unet import UNet
    from carmask.result import Result
    from carmask.segmenter import Segmenter
    from carmask.training.config import TrainSettings
    from carmask.training.train import train

__version__ = "0.1.0"

silence_packages()

__all__ = ["CarmaskError", "Result", "Segmenter", "TrainSettings", "UNet", "__version__", "evaluate", "export", "train"]

_MODULES = {
    "CarmaskError": "carmask.errors",
    "Result": "carmask.result",
    "Segmenter": "carmask.segmenter",
    "TrainSettings": "carmask.training.config",
    "UNet": "carmask.models.unet",
    "evaluate": "carmask.evaluation.evaluate",
    "export": "carmask.exporting.export",
    "train": "carmask.training.train",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562), so that `import carmask` takes milliseconds."""
    if name not in _MODULES:
        raise AttributeError(f"module 'carmask' has no attribute '{name}'")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
