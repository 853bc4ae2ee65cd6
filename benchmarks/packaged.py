"""Dice of the weights inside the package on photos that they were not trained on, each at its own size.

    python benchmarks/packaged.py CARVANA STREET

The same as `carmask evaluate DATA --model NAME`, for every packaged network and both data sets, in one JSON.
"""

import sys
from pathlib import Path

from carmask.runtime.locate import packaged_models
from carmask.segmenter import Segmenter
from held_out import figures_on
from record import record


def main() -> None:
    """Measure and record."""
    folders = [Path(argument) for argument in sys.argv[1:]]
    if not folders:
        sys.exit(__doc__)
    figures = {}
    for name, place in packaged_models().items():
        for folder in folders:
            found = figures_on(Segmenter.load(name), folder)
            figures[f"{name} on {folder.resolve().name}"] = {"file_mb": round(place.stat().st_size / 1e6, 1), **found}
    for title, row in figures.items():
        print(title, row)
    record("packaged", figures)


if __name__ == "__main__":
    main()
