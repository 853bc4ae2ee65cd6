"""What benchmarks share: they choose photos, and write figures to docs/results, with machine, date and commit."""

import json
import re
from pathlib import Path
from typing import Any

from carmask.environment import environment
from carmask.imaging.decode import IMAGE_SUFFIXES

RESULTS = Path(__file__).parent.parent / "docs" / "results"
CARVANA = Path(__file__).parent.parent.parent / "shared" / "carvana"


def record(name: str, figures: dict[str, Any]) -> Path:
    """Write figures and what they depend on to docs/results/<name>.json."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"benchmark": name, **environment(), "figures": figures}, indent=1) + "\n")
    print(f"written to {path}")
    return path


def recorded(name: str) -> dict[str, Any]:
    """Return the figures that `record` wrote under this name; none if it was not measured yet."""
    path = RESULTS / f"{name}.json"
    figures: dict[str, Any] = json.loads(path.read_text())["figures"] if path.exists() else {}
    return figures


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


def seconds_of_predict(printed: str) -> float:
    """Read the seconds of `carmask predict`, without its start, from its output. Raises ValueError without any."""
    found = re.search(r"\(([0-9.]+) s, [0-9.]+ a second\)", printed)
    if found is None:
        raise ValueError(f"no seconds in what `carmask predict` printed: {printed!r}")
    return float(found[1])
