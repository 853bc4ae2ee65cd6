"""The photos of a folder, for all that is measured on some of them, and what `carmask predict` says of its speed."""

import re
from pathlib import Path

from carmask.imaging.decode import IMAGE_SUFFIXES


def photos_in(folder: Path) -> list[Path]:
    """The photos in a folder and below, by name."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def link_photos(source: Path, folder: Path, count: int, *, folders: int = 2) -> None:
    """Link so many photos, spread over the source and more than once if it has fewer, into so many numbered folders."""
    found = photos_in(source)
    for number in range(count):
        path = found[number * len(found) // count].absolute()
        link = folder / f"{number % folders:02}" / f"{number:06}-{path.name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)


def seconds_of_predict(said: str) -> float:
    """Seconds of `carmask predict` without its start, from what it printed. Raises ValueError where it says none."""
    told = re.search(r"\(([0-9.]+) s, [0-9.]+ a second\)", said)
    if told is None:
        raise ValueError(f"no seconds in what `carmask predict` printed: {said!r}")
    return float(told[1])
