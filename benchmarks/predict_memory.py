"""How much memory `carmask predict` takes for few photos and for many: it must not grow with their number.

    python benchmarks/predict_memory.py [--photos 200 2000 20000] [--size-px 320 240]

The photos are made here, small so that 20,000 of them take a minute; each size is run twice, the second time with
everything done before. Writes docs/results/predict_memory.json.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from record import record

DIFFERENT = 20


def make_photos(folder: Path, count: int, size_HW: tuple[int, int]) -> None:
    """A bright box on a dark ground; after the first few they are links to these."""
    height, width = size_HW
    folder.mkdir()
    for number in range(count):
        path = folder / f"photo_with_a_usual_name_{number:06}.jpg"
        if number >= DIFFERENT:
            os.link(folder / f"photo_with_a_usual_name_{number % DIFFERENT:06}.jpg", path)
            continue
        image_HW3 = np.full((height, width, 3), 40, np.uint8)
        image_HW3[height // 4 : height // 2 + number, width // 4 : width // 2 + number] = 215
        Image.fromarray(image_HW3).save(path)


def peak_mb(command: list[str]) -> float:
    """The largest resident memory of a command, in MB."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}: status {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


def main() -> None:
    """Run every number of photos for a folder and for a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, nargs="+", default=[200, 2000, 20_000])
    parser.add_argument("--size-px", type=int, nargs=2, default=[320, 240], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--model")
    given = parser.parse_args()
    width, height = given.size_px
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        for count in given.photos:
            photos = Path(place, f"photos-{count}")
            make_photos(photos, count, (height, width))
            for kind, name in (("mask", f"masks-{count}"), ("carvana-csv", f"{count}.csv"), ("coco", f"{count}.json")):
                model = ["-m", given.model] if given.model else []
                command = [sys.executable, "-m", "carmask", "predict", str(photos), str(Path(place, name)), "-k", kind]
                row = {"photos": count, "kind": kind, "peak_MB": round(peak_mb([*command, *model]), 1)}
                if kind == "mask":
                    row["peak_MB_all_done_before"] = round(peak_mb([*command, *model]), 1)
                print(row, flush=True)
                rows.append(row)
    record("predict_memory", {"size_HW": [height, width], "runs": rows})


if __name__ == "__main__":
    main()
