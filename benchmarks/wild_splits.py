"""Divide the photos from outside the studio into photos to learn from and held-out ones, and write what was decided.

    python benchmarks/wild_splits.py WILD STREET

WILD holds the folders named in `SETS`, STREET the photos that benchmarks/mixed_folder.py divides in the same way.
Writes docs/results/split-<folder>.json. A fifth is held out by group: copies of one photo, photos of one car, cut-outs
of one source and rooms of one studio stay together. Photos that would teach or measure something wrong are on neither
side, and the file's `method` names them. Ends with an error where a held-out photo is all but the same as one to learn
from, also in another folder.
"""

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from carmask.data.duplicates import REDUCED_HW, Signature, near_pictures, signature_of
from carmask.data.layout import index_folder
from carmask.data.split import Split, make_split
from carmask.files import write_bytes_atomically
from carmask.imaging.decode import decode_photo
from record import RESULTS
from wild_photos import HELD_OUT_TOO, KINDS, LEFT_OUT, SAME, VEHICLES_UNLABELED

HELD_OUT = 0.2
SETS = ("backgrounds", "car-parts", "cutouts", "fire-trucks", "no-vehicle", "scenes", "street-small")
# A pixel that is stored as this or more is a vehicle; 128 is one that nobody labeled.
_VEHICLE = 200


def main() -> None:
    """Divide, check and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wild", type=Path)
    parser.add_argument("street", type=Path)
    given = parser.parse_args()
    roots = {name: given.wild / name for name in SETS} | {"street-cars": given.street}
    photos = {name: pictures(root / "images") for name, root in roots.items()}
    signatures = {f"{name}/{id_}": _signature(path) for name, of in photos.items() for id_, path in of.items()}
    splits = {name: _divide(name, roots[name], photos[name], signatures) for name in roots}
    train, held_out = (
        [f"{name}/{id_}" for name, split in splits.items() for id_ in getattr(split, side)]
        for side in ("train", "validation")
    )
    if near := near_pictures(signatures, train, held_out):
        sys.exit(f"held out, and all but the same as a photo to learn from: {near}")
    for name, split in splits.items():
        _write(split, RESULTS / f"split-{name}.json")
        print(f"{name}: {len(split.train)} to learn from, {len(split.validation)} held out")


def pictures(folder: Path) -> dict[str, Path]:
    """The one file of each id in a folder of photos."""
    return {id_: paths[0] for id_, paths in sorted(index_folder(folder).pictures.items())}


def _signature(path: Path) -> Signature:
    return signature_of(decode_photo(path, at_least_HW=REDUCED_HW))


def _divide(name: str, root: Path, photos: Mapping[str, Path], signatures: Mapping[str, Signature]) -> Split:
    group_of = _groups(name, root, photos, {id_: signatures[f"{name}/{id_}"] for id_ in photos})
    if name == "street-cars":
        # Divided before copies were looked for; none of them was torn apart.
        split = make_split({id_: id_ for id_ in photos}, dict.fromkeys(photos, 0.0), fraction=HELD_OUT)
        method = "by photo, as benchmarks/mixed_folder.py divides"
    else:
        split = make_split(group_of, {id_: _stratum(name, root, id_) for id_ in photos}, fraction=HELD_OUT)
        method = "by group, stratified by kind and mean mask area"
    held_out = {*split.validation, *(id_ for id_ in photos if group_of[id_] in HELD_OUT_TOO.get(name, ()))}
    left_out, not_learned = (
        {id_ for ids in reasons.get(name, {}).values() for id_ in ids} for reasons in (LEFT_OUT, VEHICLES_UNLABELED)
    )
    if unknown := (left_out | not_learned) - photos.keys():
        sys.exit(f"{root}: has no {sorted(unknown)}, which benchmarks/wild_photos.py names")
    train = tuple(id_ for id_ in photos if id_ not in held_out | left_out | not_learned)
    validation = tuple(id_ for id_ in photos if id_ in held_out - left_out)
    notes = [f"left out, {reason}: {' '.join(ids)}" for reason, ids in LEFT_OUT.get(name, {}).items()]
    for reason, ids in VEHICLES_UNLABELED.get(name, {}).items():
        notes.append(
            f"not learned from, {reason} labeled as background: {' '.join(id_ for id_ in ids if id_ not in held_out)}"
        )
    return Split(
        method="; ".join([method, *notes]),
        seed=0,
        fraction=HELD_OUT,
        train=train,
        validation=validation,
        group_of={id_: group_of[id_] for id_ in sorted({*train, *validation})},
    )


def _groups(name: str, root: Path, photos: Iterable[str], signatures: Mapping[str, Signature]) -> dict[str, str]:
    """The group of each photo, named after its first photo or its source."""
    group_of = {id_: id_ for id_ in photos}
    if name == "cutouts":
        with (root / "sources.tsv").open() as lines:
            group_of |= {row["stem"]: row["source"] for row in csv.DictReader(lines, delimiter="\t")}
    alike = [list(ids) for ids in SAME.get(name, ())]
    ids = list(group_of)
    for place, id_ in enumerate(ids):
        alike += [[id_, other] for _, other, _ in near_pictures(signatures, ids[:place], [id_])]
    for together in alike:
        names = {group_of[id_] for id_ in together}
        group_of = {id_: min(names) if group in names else group for id_, group in group_of.items()}
    return group_of


def _stratum(name: str, root: Path, id_: str) -> float:
    """The number of the photo's kind, plus the share of it that is a vehicle: both sides get some of each."""
    kind = next((place for place, prefix in enumerate(KINDS.get(name, ()), 1) if id_.startswith(prefix)), 0)
    mask = root / "masks" / f"{id_}.png"
    if not mask.exists():
        return float(kind)
    return kind + float(np.mean(decode_photo(mask).image_HWC[..., 0] >= _VEHICLE))


def _write(split: Split, path: Path) -> None:
    """Write a split with one line for each field: the ids are many."""
    lines = (f" {json.dumps(key)}: {json.dumps(value)}" for key, value in split.model_dump().items())
    write_bytes_atomically(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode(), fsync=False)


if __name__ == "__main__":
    main()
