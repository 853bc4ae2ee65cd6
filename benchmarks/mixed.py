"""What networks that learned from studio photos, or from street photos too, reach on held-out photos of both kinds.

    python benchmarks/mixed.py MIXED RUN [RUN ...]

MIXED is a folder of benchmarks/mixed_folder.py; its held-out photos are measured, none of which may be of a car that a
run learned from. Writes docs/results/mixed.json.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from carmask.data.pairs import Pair, find_pairs
from carmask.data.split import Split
from carmask.segmenter import Segmenter
from held_out import figures_of_pairs
from mixed_folder import GROUP_PATTERN
from record import record


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mixed", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args()
    pairs = find_pairs(given.mixed, group_pattern=GROUP_PATTERN).pairs
    _, held_out = Split.load(given.mixed / "split.json").select(pairs)
    kinds = {kind: [pair for pair in held_out if pair.id.startswith(kind)] for kind in ("carvana/", "street/")}
    rows = []
    for run in given.runs:
        refuse_learned(run, held_out)
        segmenter = Segmenter.load(run)
        on = {kind.strip("/"): figures_of_pairs(segmenter, of_kind) for kind, of_kind in kinds.items()}
        rows.append(settings_of(run) | {"on": on})
        print(rows[-1])
    record("mixed", {"rows": rows})


def refuse_learned(run: Path, held_out: Iterable[Pair]) -> None:
    """End where a run learned from a car that is to be measured."""
    split = Split.load(run / "split.json")
    learned = {split.group_of[id_] for id_ in split.train} & {pair.group for pair in held_out}
    if learned:
        sys.exit(f"{run}: learned from {sorted(learned)}")


def settings_of(run: Path) -> dict[str, Any]:
    """In what these runs differ."""
    settings = yaml.safe_load((run / "config.yaml").read_text())
    return {
        "run": run.name,
        "data": Path(settings["data"]).name,
        "started_from": settings["init"] and Path(settings["init"]).name,
        "epochs": settings["epochs"],
        "loss": settings["loss"]["name"],
        "paste": settings["augment"].get("copy_paste", 0.0),
    }


if __name__ == "__main__":
    main()
