"""Measure how many photos a second become pictures of a look: docs/results/looks.json.

python benchmarks/looks.py PHOTOS [--look showroom] [--threads 2] [--runs 3]

PHOTOS: a folder, read from the disk's cache; each run makes all of them again in a new folder, and the median counts.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from carmask.imaging.look import load_look
from carmask.pipeline.outputs import plan_outputs
from carmask.pipeline.predict import predict_photos
from carmask.pipeline.sources import find_photos
from carmask.runtime.options import RunOptions
from carmask.segmenter import Segmenter
from record import record

MODELS = ("general", "general-int8", "fast")


def measure(model: str, photos: Path, look: str, threads: int, runs: int) -> float:
    """Photos a second, from files to files, the median of the runs; one more run before them is not counted."""
    segmenter = Segmenter.load(model, RunOptions(threads=threads))
    rates = []
    for _ in range(runs + 1):
        with tempfile.TemporaryDirectory() as folder:
            plan = plan_outputs(find_photos(photos, results=None), Path(folder), "cutout", look=load_look(look))
            started_s = time.perf_counter()
            done = predict_photos(plan, segmenter).done
            rates.append(done / (time.perf_counter() - started_s))
    return statistics.median(rates[1:])


def main() -> None:
    """Measure, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--look", default="showroom")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    rates = {model: round(measure(model, given.photos, given.look, given.threads, given.runs), 2) for model in MODELS}
    for model, rate in rates.items():
        print(f"{model}: {rate:.1f} photos/s")
    record("looks", {"look": load_look(given.look).model_dump(), "threads": given.threads, "photos_per_s": rates})


if __name__ == "__main__":
    main()
