"""Write composites as a data set to train on: vehicles and grounds of the parts that networks learn from.

    python benchmarks/train_composites.py SHARED OUT [--count 240]

SHARED is as in benchmarks/any_vehicle.py, whose held-out composites are made in the same way of other photos. Writes
OUT/images and OUT/masks as PNG; the same folders and count give the same pictures. `carmask crops OUT crops/composites`
cuts them for `sharp`, which has no composites of its own, since it learns from crops.
"""

import argparse
from pathlib import Path

from any_vehicle import MATERIAL, STREET, STUDIO, composites_of, parts_of
from carmask.files import write_bytes_atomically
from carmask.imaging.encode import encode_mask, encode_png


def main() -> None:
    """Make and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=240)
    given = parser.parse_args()
    folders = [STUDIO, STREET, "wild/no-vehicle", *MATERIAL]
    pairs = {Path(folder).name: parts_of(given.shared / folder)[0] for folder in folders}
    for folder in ("images", "masks"):
        (given.out / folder).mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(composites_of(pairs, given.count)):
        write_bytes_atomically(given.out / "images" / f"{number:04}.png", encode_png(one.image_HWC))
        write_bytes_atomically(given.out / "masks" / f"{number:04}.png", encode_mask(one.truth_HW))
    print(f"{given.count} composites written to {given.out}")


if __name__ == "__main__":
    main()
