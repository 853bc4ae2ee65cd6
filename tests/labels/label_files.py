"""Photos and masks for tests of label files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def masks_in(folder: str | Path) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """The stem of the photo and the mask of each file."""
    for path in sorted(Path(folder).glob("*.*")):
        if path.suffix in (".png", ".gif"):
            yield path.stem.removesuffix("_mask"), np.asarray(Image.open(path)) > 0


def save_photo(path: Path, size_HW: tuple[int, int] = (20, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, 255, (*size_HW, 3), np.uint8)).save(path)
