"""Link studio and street photos into one folder to learn from, with a split in which neither kind leaks.

    python benchmarks/mixed_folder.py CARVANA STREET OUT [--split SPLIT] [--copies 5]

A fifth of the street photos is held out, and with SPLIT, a split of CARVANA, its held-out cars too; without it every
car is learned from. Street photos to learn from are linked `--copies` times, because there are few of them. A held-out
street photo that is all but the same as one to learn from is left out. Prints the command that trains on OUT.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from carmask.data.duplicates import REDUCED_HW, near_pictures, signature_of
from carmask.data.pairs import Pair, find_pairs
from carmask.data.split import Split, make_split
from carmask.imaging.decode import decode_photo

# A Carvana id without its view, or the name of a street photo, the same for all its copies.
GROUP_PATTERN = r"[0-9a-f]{12}(?=_\d\d$)|(?<=street/).+$|(?<=street-\d/).+$"
HELD_OUT = 0.2


def link(out: Path, folder: str, pairs: Iterable[Pair]) -> list[str]:
    """Link photos and masks into OUT/images/`folder` and OUT/masks/`folder`; returns the ids that they have there."""
    ids = []
    for pair in pairs:
        assert isinstance(pair.mask, Path)
        ids.append(f"{folder}/{pair.id}")
        for side, file in (("images", pair.image), ("masks", pair.mask)):
            place = out / side / f"{ids[-1]}{file.suffix}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(file.absolute())
    return ids


def divide(pairs: list[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Street photos to learn from, and held-out ones none of which is also among the first."""
    by_id = {pair.id: pair for pair in pairs}
    split = make_split({id_: id_ for id_ in by_id}, dict.fromkeys(by_id, 0.0), fraction=HELD_OUT)
    signatures = {id_: signature_of(decode_photo(pair.image, at_least_HW=REDUCED_HW)) for id_, pair in by_id.items()}
    seen = {id_ for id_, _, _ in near_pictures(signatures, split.train, split.validation)}
    return [by_id[id_] for id_ in split.train], [by_id[id_] for id_ in split.validation if id_ not in seen]


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("carvana", "street", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--split", type=Path)
    parser.add_argument("--copies", type=int, default=5)
    given = parser.parse_args()
    studio = find_pairs(given.carvana).pairs
    studio_train, studio_held = Split.load(given.split).select(studio) if given.split else (studio, ())
    street_train, street_held = divide(list(find_pairs(given.street).pairs))
    train = link(given.out, "carvana", studio_train)
    validation = link(given.out, "carvana", studio_held) + link(given.out, "street", street_held)
    for copy in range(given.copies):
        train += link(given.out, f"street-{copy}" if copy else "street", street_train)
    pairs = find_pairs(given.out, group_pattern=GROUP_PATTERN).pairs
    group_of = {pair.id: pair.group for pair in pairs}
    split = Split(
        method="of two data sets, see benchmarks/mixed_folder.py",
        seed=0,
        train=tuple(sorted(train)),
        validation=tuple(sorted(validation)),
        group_of=group_of,
    )
    split.save(given.out / "split.json")
    print(
        f"carmask train '{given.out}' --config configs/fast-mixed.yaml --dataset.split '{given.out}/split.json' "
        f"--dataset.group-pattern '{GROUP_PATTERN}'"
    )


if __name__ == "__main__":
    main()
