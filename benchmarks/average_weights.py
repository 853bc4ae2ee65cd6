"""Average the weights of one network before and after a part of its training.

    python benchmarks/average_weights.py BEFORE AFTER OUT [--share 0.5]

AFTER is a folder of weights (`runs/NAME/weights/best`). BEFORE is another one, or the settings of a run
(`runs/NAME/config.yaml`): then it means the weights that the run started from. OUT gets the mean of all weights and of
BatchNorm's statistics, in which AFTER has the given share, and the notes of AFTER. Weights that training has not led
far apart have a mean that is often better than either (Wortsman et al., "Model soups", 2022; with other shares "Robust
fine-tuning of zero-shot models", 2022).
"""

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

from carmask.training.config import TrainSettings
from carmask.training.distributed import DistributedContext
from carmask.training.loggers import RunLogger
from carmask.training.setup import set_up_training

FILE = "model.safetensors"


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("before", "after", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--share", type=float, default=0.5)
    given = parser.parse_args()
    before, after = load_weights(given.before), load_file(given.after / FILE)
    shutil.copytree(given.after, given.out)
    # In float64: the mean of two float32 is then exact but for the last rounding. Counts of batches are not averaged.
    mean = {
        name: before[name].double().lerp(weight.double(), given.share).to(weight.dtype)
        if weight.is_floating_point()
        else weight
        for name, weight in after.items()
    }
    save_file(mean, given.out / FILE, metadata={"format": "pt"})


def load_weights(place: Path) -> Mapping[str, Tensor]:
    """Load those of a folder, or those that a run with these settings starts from."""
    if place.is_dir():
        return load_file(place / FILE)
    settings = TrainSettings.from_yaml(place)
    _, state = set_up_training(settings, DistributedContext(), RunLogger(Console()))
    return state.network.state_dict()


if __name__ == "__main__":
    main()
