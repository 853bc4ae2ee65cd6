"""Write results to an S3 server on this machine: the speed, and the bytes after kills.

    python benchmarks/stores.py PHOTOS [--photos 2000] [--kills 10] [--delay-s 0.02] [--only speed kills]

The server adds `--delay-s` to each request. Speed: the same photos into a folder and into the store in turn, the median
of each. Kills: a run is killed at random moments and continued, and every object compared with the files of a folder.
Writes docs/results/stores.json, and ends with status 1 where a byte differs.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from record import CARVANA, link_photos, record, seconds_of_predict

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from s3_server import BUCKET, environment_of, serving


def command_for(photos: Path, destination: str, kind: str, model: str) -> list[str]:
    """Return the command that predicts these photos."""
    return [sys.executable, "-m", "carmask", "predict", str(photos), destination, "-k", kind, "-m", model]


def stored(folder: str) -> dict[str, bytes]:
    """Return every object below a folder of the bucket."""
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    return {path.removeprefix(f"{folder}/"): system.cat_file(path) for path in system.find(folder)}


def written(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def measure_speed(photos: Path, place: Path, count: int, kinds: list[str], model: str, turns: int) -> dict[str, Any]:
    """Predict into a folder and into the store in turn; photos per second of each."""
    figures: dict[str, Any] = {}
    for kind in kinds:
        rates: dict[str, list[float]] = {"folder": [], "store": []}
        for turn in range(turns):
            for name, destination in (
                ("folder", str(place / f"{kind}-{turn}")),
                ("store", f"s3://{BUCKET}/{kind}-{turn}"),
            ):
                done = subprocess.run(
                    command_for(photos, destination, kind, model), capture_output=True, text=True, check=True
                )
                rates[name].append(round(count / seconds_of_predict(done.stdout), 2))
        medians = {name: statistics.median(found) for name, found in rates.items()}
        figures[kind] = {"photos/s": rates, "share of the local rate": round(medians["store"] / medians["folder"], 3)}
        print(kind, figures[kind])
    return figures


def kill_and_compare(photos: Path, place: Path, count: int, kills: int, model: str, seed: int) -> dict[str, Any]:
    """Kill runs once so many objects are there, continue, and compare with an undisturbed run into a folder."""
    draw = np.random.default_rng(seed)
    subprocess.run(command_for(photos, str(place / "whole"), "mask", model), stdout=subprocess.DEVNULL, check=True)
    folder = f"{BUCKET}/killed"
    command = command_for(photos, f"s3://{folder}", "mask", model)
    system = fsspec.filesystem("s3", use_listings_cache=False)
    moments = []
    for kill_after in sorted(draw.integers(count, size=kills).tolist()):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(system.find(folder)) < kill_after:
            time.sleep(0.2)
        time.sleep(draw.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        moments.append({"killed": process.wait() == -signal.SIGKILL, "objects": len(system.find(folder))})
        print(moments[-1], flush=True)
    status = subprocess.run(command, check=False).returncode
    wanted, found = written(place / "whole"), stored(folder)
    different = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    print(f"{len(wanted)} files, {len(different)} differ {different[:3] or ''}")
    return {"kills": moments, "status": status, "files": len(wanted), "files that differ": different}


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?", default=CARVANA / "train")
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--delay-s", type=float, default=0.02)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=["mask", "cutout", "carvana-csv"])
    parser.add_argument("--model", default="fast")
    parser.add_argument("--only", nargs="+", choices=["speed", "kills"], default=["speed", "kills"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    figures: dict[str, Any] = {"photos": given.photos, "delay, s": given.delay_s, "model": given.model}
    with tempfile.TemporaryDirectory() as folder, serving("--delay-s", given.delay_s) as address:
        os.environ |= environment_of(address)
        place = Path(folder)
        link_photos(given.source, place / "photos", given.photos)
        common = (place / "photos", place, given.photos)
        if "speed" in given.only:
            figures["speed"] = measure_speed(*common, given.kinds, given.model, given.turns)
        if "kills" in given.only:
            figures["kills"] = kill_and_compare(*common, given.kills, given.model, given.seed)
    record("stores", figures)
    sys.exit(bool(figures.get("kills", {}).get("files that differ")))


if __name__ == "__main__":
    main()
