"""Average the weights of one network before and after a part of its training.

    python benchmarks/average_weights.py BEFORE AFTER OUT

BEFORE and AFTER are folders of weights (`runs/NAME/weights/best`). OUT gets the mean of all weights and of BatchNorm's
statistics, and the notes of AFTER. Weights that training has not led far apart have a mean that is often better than
either (Wortsman et al., "Model soups", 2022).
"""

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

FILE = "model.safetensors"


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("before", "after", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    before, after = load_file(given.before / FILE), load_file(given.after / FILE)
    shutil.copytree(given.after, given.out)
    # In float64: the mean of two float32 is then exact but for the last rounding. Counts of batches are not averaged.
    mean = {
        name: (before[name].double() + weight.double()).div(2).to(weight.dtype)
        if weight.is_floating_point()
        else weight
        for name, weight in after.items()
    }
    save_file(mean, given.out / FILE, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
