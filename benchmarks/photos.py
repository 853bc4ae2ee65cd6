"""Choose photos of a folder for a benchmark, and read the speed that `carmask predict` prints."""

import re
from pathlib import Path

from carmask.imaging.decode import IMAGE_SUFFIXES


def photos_in(folder: Path) -> list[Path]:
    """All photos in a folder and below, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def link_photos(source: Path, folder: Path, count: int, *, folders: int = 2) -> None:
    """Link `count` photos, spread over `source`, into numbered folders. Repeats photos if `source` has fewer."""
    found = photos_in(source)
    for number in range(count):
        path = found[number * len(found) // count].absolute()
        link = folder / f"{number % folders:02}" / f"{number:06}-{path.name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)


def seconds_of_predict(said: str) -> float:
    """Read the seconds of `carmask predict`, without its start, from its output. Raises ValueError without any."""
    told = re.search(r"\(([0-9.]+) s, [0-9.]+ a second\)", said)
    if told is None:
        raise ValueError(f"no seconds in what `carmask predict` printed: {said!r}")
    return float(told[1])
