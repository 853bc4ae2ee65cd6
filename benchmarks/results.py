"""Draw the documents' tables and pictures from the figures that were kept.

    python benchmarks/results.py add RUN [RUN ...]   figures of runs and their evaluations -> docs/results/runs/*.json
    python benchmarks/results.py draw                the tables of README and docs, and the curves

`add` expects that `carmask evaluate DATA --model RUN` was run, and takes its summary. No photo is copied anywhere.
"""

import sys
from pathlib import Path

from benchmark_tables import (
    ablation_table,
    any_vehicle_table,
    benchmark_tables,
    cars_table,
    expected_dice_table,
    mixed_table,
    packaged_table,
    summary_table,
)
from documents import fill
from record import RESULTS
from run_tables import (
    bars_table,
    by_view_table,
    draw_curves,
    ensemble_table,
    load_runs,
    provenance_table,
    results_table,
)
from runs import RUNS, add

ROOT = RESULTS.parent.parent
PICTURES = RESULTS.parent / "pictures"


def draw() -> None:
    """Make every table and picture anew from the committed JSON."""
    runs = load_runs()
    if not runs:
        sys.exit(f"{RUNS}: no runs added yet")
    tables = {
        "summary": summary_table(),
        "results": results_table(runs),
        "bars": bars_table(runs),
        "ensemble": ensemble_table(),
        "provenance": provenance_table(runs),
        "by-view": by_view_table(runs),
        "packaged": packaged_table(),
        "mixed": mixed_table(),
        "any-vehicle": any_vehicle_table(),
        "expected-dice": expected_dice_table(),
        "ablation": ablation_table(),
        "cars": cars_table(),
        "benchmarks": benchmark_tables(),
    }
    fill(tables, ROOT / "README.md", RESULTS.parent / "results.md", RESULTS.parent / "experiments.md")
    draw_curves(runs, PICTURES / "curves.png")


def main() -> None:
    """Dispatch."""
    if sys.argv[1:2] == ["add"] and len(sys.argv) > 2:
        for run in sys.argv[2:]:
            add(Path(run))
    elif sys.argv[1:] == ["draw"]:
        draw()
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
