"""The U-Net, its presets, and what travels with its weights."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from carmask.models.card import ModelCard
    from carmask.models.config import PRESETS, UNetConfig
    from carmask.models.network import Network
    from carmask.models.unet import UNet

__all__ = ["PRESETS", "ModelCard", "Network", "UNet", "UNetConfig"]

_MODULES = {"PRESETS": "config", "ModelCard": "card", "Network": "network", "UNet": "unet", "UNetConfig": "config"}


def __getattr__(name: str) -> object:
    """Import a class on first use (PEP 562), so that presets and cards do not wait for PyTorch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'carmask.models' has no attribute '{name}'")
    return getattr(import_module(f"carmask.models.{_MODULES[name]}"), name)
