"""Held-out masks to every label format and back, as files: `python benchmarks/label_round_trips.py`.

The Dice of what comes back, for the true masks of 50 photos, and the size of the files.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from carmask.data.pairs import find_pairs, load_soft_mask, spread
from carmask.data.split import Split
from carmask.evaluation.metrics import dice
from carmask.pipeline.convert import convert_masks
from carmask.pipeline.kinds import Kind
from carmask.pipeline.masks import find_masks
from carmask.pipeline.outputs import plan_outputs
from record import CARVANA, RESULTS, record

# Where each kind is written; photos are in images/ beside it.
DESTINATIONS: dict[Kind, str] = {
    "coco": "cars.json",
    "label-studio": "cars.json",
    "cvat": "cars.xml",
    "yolo": ".",
    "labelme": "images",
}


def main() -> None:
    """Write each format, read it as a data set, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--carvana", type=Path, default=CARVANA)
    parser.add_argument("--count", type=int, default=50)
    options = parser.parse_args()
    _, held_out = Split.load(RESULTS / "split-carvana-fold0of5.json").select(find_pairs(options.carvana).pairs)
    pairs = spread(sorted(held_out, key=lambda pair: pair.id), options.count)
    truth = {pair.id: load_soft_mask(pair).mask_HW for pair in pairs}
    figures: dict[str, Any] = {}
    for kind, name in DESTINATIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder, "cars")
            (root / "images").mkdir(parents=True)
            masks = Path(folder, "masks.txt")
            masks.write_text("".join(f"{pair.mask}\n" for pair in pairs))
            for pair in pairs:
                (root / "images" / pair.image.name).symlink_to(pair.image.absolute())
            found = find_masks(masks.absolute(), photos=root / "images", foreground=None, results=None)
            convert_masks(found, plan_outputs(found.photos, root / name, kind))
            written = [path for path in root.rglob("*") if path.suffix in (".json", ".xml", ".txt", ".yaml")]
            size_bytes = sum(path.stat().st_size for path in written)
            back = find_pairs(root).pairs
            scores = [dice(truth[pair.id], load_soft_mask(pair).mask_HW) for pair in back]
        figures[kind] = {
            "photos": len(scores),
            "mean_dice": round(fmean(scores), 6),
            "least_dice": round(min(scores), 6),
            "kib_a_photo": round(size_bytes / len(scores) / 1024, 1),
        }
        print(kind, figures[kind])
    record("label_round_trips", figures)


if __name__ == "__main__":
    main()
