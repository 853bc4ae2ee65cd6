"""Run `carmask benchmark` for docs/performance.md, and draw its tables there.

    python benchmarks/performance.py ../shared/carvana/train --preset fast --preset classic --seconds 1

The arguments are those of `carmask benchmark`; without any, the tables are drawn from what was recorded.
"""

import json
import subprocess
import sys
from typing import Any

from carmask.benchmark.tables import FigureTable, make_tables
from documents import fill
from record import RESULTS

SPEED = RESULTS / "speed.json"


def machine_line(record: dict[str, Any]) -> str:
    """Where, when and from which commit a record is."""
    machine = record["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores; commit `{record['commit']}`, {record['date'][:10]}"


def markdown(table: FigureTable) -> str:
    """A table of `carmask benchmark` in Markdown."""
    marks = ["---"] * len(table.words) + ["--:"] * len(table.numbers)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in ([*table.words, *table.numbers], marks, *table.rows))


def main() -> None:
    """Measure if there are arguments, and fill the tables."""
    if sys.argv[1:]:
        subprocess.run([sys.executable, "-m", "carmask", "benchmark", *sys.argv[1:], "--out", str(SPEED)], check=True)
    speed = json.loads(SPEED.read_text())
    tables = dict(zip(("networks", "stages", "whole"), map(markdown, make_tables(speed["figures"])), strict=True))
    fill({"machine": machine_line(speed), **tables}, RESULTS.parent / "performance.md")


if __name__ == "__main__":
    main()
