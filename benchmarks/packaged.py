"""Dice of the weights inside the package on photos that they were not trained on, each at its own size.

    python benchmarks/packaged.py CARVANA STREET [--twin NAME=MODEL ...]

The same as `carmask evaluate DATA --model NAME`, for every packaged network and both data sets, but for `general`, of
which benchmarks/any_vehicle.py measures more. A network that learned
from every car of a data set has nothing held out there: its twin is measured instead, trained in the same way without
the held-out cars. Writes docs/results/packaged.json, and the figures into the networks' own files, for their cards
(`carmask model NAME --card`).
"""

import argparse
from pathlib import Path

from carmask.exporting.graph import note_held_out
from carmask.models.card import HeldOut
from carmask.runtime.locate import packaged_models
from carmask.segmenter import Segmenter
from held_out import HasNone, figures_on
from record import record


def main() -> None:
    """Measure, note and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--twin", action="append", default=[], metavar="NAME=MODEL")
    given = parser.parse_args()
    twins = dict(twin.split("=", 1) for twin in given.twin)
    figures = {}
    for name, place in packaged_models().items():
        if name.startswith("general"):
            continue
        noted = []
        for data in (folder.resolve() for folder in given.data):
            title, of_twin = f"{name} on {data.name}", False
            try:
                found = figures_on(Segmenter.load(name), data)
            except HasNone:
                if name not in twins:
                    raise
                title, of_twin = f"{name}'s twin on {data.name}", True
                found = figures_on(Segmenter.load(twins[name]), data)
            print(title, found)
            figures[title] = {"file_mb": round(place.stat().st_size / 1e6, 1), **found}
            noted.append(HeldOut(data=data.name, of_twin=of_twin, **found))
        note_held_out(place, noted)
    record("packaged", figures)


if __name__ == "__main__":
    main()
