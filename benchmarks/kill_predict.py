"""Kill `carmask predict` at random moments, resume it each time, and compare every byte with an undisturbed run.

    python benchmarks/kill_predict.py PHOTOS [--photos 500] [--kills 10] [--model MODEL]

For a folder of masks, a folder of cut-outs and a table of run lengths. Writes docs/results/kill_predict.json, and ends
with status 1 where a byte differs.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from record import CARVANA, link_photos, record

# What is made, where, and the file that grows by a line with each result.
CASES = {
    "mask": ("out", "out/.carmask-results.jsonl"),
    "cutout": ("out", "out/.carmask-results.jsonl"),
    "carvana-csv": ("out.csv.gz", "out.csv.gz.part"),
}


def contents(folder: Path) -> dict[str, bytes]:
    """Every byte of every file, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(command: list[str], journal: Path, kill_after: int | None, draw: np.random.Generator) -> tuple[int, int]:
    """Run to the end, or kill as soon as so many results are noted and a moment more; status and results noted."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    if kill_after is not None:
        while process.poll() is None and results_in(journal) < kill_after:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
    return process.wait(), results_in(journal)


def results_in(journal: Path) -> int:
    """Lines below the first."""
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


def try_kind(
    kind: str, photos: Path, count: int, kills: int, model: list[str], draw: np.random.Generator
) -> dict[str, Any]:
    """One kind, in a folder of its own that is removed afterwards."""
    name, journal = CASES[kind]
    with tempfile.TemporaryDirectory() as place:
        whole, killed = Path(place, "whole"), Path(place, "killed")
        for folder in (whole, killed):
            folder.mkdir()
        commands = {
            folder: [sys.executable, "-m", "carmask", "predict", str(photos), str(folder / name), "-k", kind, *model]
            for folder in (whole, killed)
        }
        run(commands[whole], whole / journal, None, draw)
        moments = []
        for kill_after in sorted(draw.integers(count, size=kills).tolist()):
            status, done = run(commands[killed], killed / journal, kill_after, draw)
            moments.append({"killed": status == -signal.SIGKILL, "results noted": done})
        status, _ = run(commands[killed], killed / journal, None, draw)
        wanted, found = contents(whole), contents(killed)
        different = sorted(path for path in {*wanted, *found} if wanted.get(path) != found.get(path))
        print(f"{kind}: {len(wanted)} files, {len(different)} differ {different[:3] or ''}")
        return {"kills": moments, "status": status, "files": len(wanted), "files that differ": different}


def main() -> None:
    """Try every kind and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?", default=CARVANA / "train")
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--model")
    parser.add_argument("--kinds", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw = np.random.default_rng(given.seed)
    model = ["-m", given.model] if given.model else []
    with tempfile.TemporaryDirectory() as place:
        photos = Path(place, "photos")
        link_photos(given.source, photos, given.photos)
        figures = {kind: try_kind(kind, photos, given.photos, given.kills, model, draw) for kind in given.kinds}
    record("kill_predict", {"photos": given.photos, "seed": given.seed, "kinds": figures})
    print(json.dumps(figures, indent=1))
    sys.exit(any(figure["files that differ"] or figure["status"] for figure in figures.values()))


if __name__ == "__main__":
    main()
