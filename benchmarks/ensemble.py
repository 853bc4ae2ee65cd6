"""Dice of several networks together, with and without mirror images, on photos that none of them was trained on.

    python benchmarks/ensemble.py CARVANA ROW [ROW ...] --name NAME

A ROW is a run or a packaged network, or several joined by commas, with `:flip` at the end for mirror images too. It is
measured as by `carmask evaluate CARVANA --model A --model B --tta flip`. A packaged network that refines masks refines
those of the others. Writes docs/results/ensemble-NAME.json.
"""

import argparse
from pathlib import Path

from carmask.runtime.locate import packaged_models
from carmask.segmenter import Segmenter, Tta
from held_out import figures_on
from record import record


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("rows", nargs="+")
    parser.add_argument("--name", required=True)
    given = parser.parse_args()
    rows = []
    for row in given.rows:
        names = row.removesuffix(":flip").split(",")
        tta: Tta = "flip" if row.endswith(":flip") else "none"
        models = [name if name in packaged_models() else Path(name) for name in names]
        figures = figures_on(Segmenter.load(models, tta=tta), given.data)
        rows.append({"runs": [Path(name).name for name in names], "tta": tta, **figures})
        print(rows[-1])
    record(f"ensemble-{given.name}", {"data": given.data.resolve().name, "rows": rows})


if __name__ == "__main__":
    main()
