"""Dice of several networks together, with and without mirror images, on photos that none of them was trained on.

    python benchmarks/ensemble.py CARVANA RUN [RUN ...]

Measures each run with mirror images, all together without, and all together with them; the same as
`carmask evaluate CARVANA --model RUN --model RUN --tta flip`. Writes docs/results/ensemble.json.
"""

import argparse
from pathlib import Path

from carmask.segmenter import Segmenter, Tta
from held_out import figures_on
from record import record


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    planned: list[tuple[list[Path], Tta]] = [([run], "flip") for run in given.runs]
    if len(given.runs) > 1:
        planned += [(given.runs, "none"), (given.runs, "flip")]
    rows = []
    for runs, tta in planned:
        figures = figures_on(Segmenter.load(runs, tta=tta), given.data)
        rows.append({"runs": [run.name for run in runs], "tta": tta, **figures})
        print(rows[-1])
    record("ensemble", {"data": given.data.resolve().name, "rows": rows})


if __name__ == "__main__":
    main()
