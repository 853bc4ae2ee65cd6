"""`carmask model`."""

from pathlib import Path
from typing import get_args

from carmask.errors import CarmaskError
from carmask.models.presets import PRESETS, PresetName


def model(name: str = "small") -> int:
    """Show levels, shapes, parameters, multiply-adds and receptive field of a network.

    Args:
        name: A preset (small, classic, deep, fast), or the folder of a run or of weights.

    """
    from carmask.models.network import Network, NetworkConfig

    if name in PRESETS:
        preset = PRESETS[name]
        print(f"{name}: {preset.summary}")
        print(Network(NetworkConfig.from_preset(name)).summary())
    elif Path(name).is_dir():
        print(Network.load(Path(name)).summary())
    else:
        presets = ", ".join(get_args(PresetName))
        raise CarmaskError(f"{name}: neither a preset ({presets}) nor a folder of weights")
    return 0
