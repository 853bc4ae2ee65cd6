"""Photos in which what is bright is the vehicle, and a way to run commands on them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from carmask.cli import main

DARK, BRIGHT = 40, 215
SIZE_HW = (120, 180)


class Command:
    """Runs a command in this process, and keeps what it printed and its exit status."""

    def __init__(self, name: str, capsys: pytest.CaptureFixture[str], *always: str) -> None:
        self.name = name
        self.always = always
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        with pytest.raises(SystemExit) as exit_:
            main([self.name, *map(str, arguments), *self.always])
        self.out, self.err = self.capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code

    @property
    def done_before(self) -> tuple[int, int]:
        """How many of how many photos it found done by an earlier run; zeros if it found none."""
        return self._counts("done before")

    @property
    def written(self) -> tuple[int, int]:
        """How many of how many photos it wrote."""
        return self._counts("written")

    def assert_refused(self, *arguments: object, naming: tuple[str, ...] = ()) -> None:
        """It does nothing, and its error names the files, options and values in `naming`."""
        assert self(*arguments) == 1, self.out
        error = self.err[self.err.index("error: ") :]
        for name in naming:
            assert name in error

    def _counts(self, what: str) -> tuple[int, int]:
        found = re.search(rf"^(\d+) of (\d+) \w+ {what}\b", self.out, re.MULTILINE)
        return (int(found[1]), int(found[2])) if found else (0, 0)


def vehicle(size_HW: tuple[int, int] = SIZE_HW) -> NDArray[np.bool_]:
    """Where the vehicle is in a photo of this size."""
    mask_HW = np.zeros(size_HW, dtype=bool)
    mask_HW[size_HW[0] // 4 : size_HW[0] * 3 // 4, size_HW[1] // 3 : size_HW[1] * 5 // 6] = True
    return mask_HW


def save(path: Path | str, mask_HW: NDArray[np.bool_] | None = None, **options: Any) -> Path:
    """Save a photo in which the mask is bright."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    mask_HW = vehicle() if mask_HW is None else mask_HW
    image_HWC = np.where(mask_HW[..., None], np.uint8(BRIGHT), np.uint8(DARK)).repeat(3, axis=2)
    Image.fromarray(image_HWC).save(path, **options)
    return path


def files(folder: Path | str) -> set[str]:
    """All files in a folder and below that are not hidden."""
    found = (path.relative_to(folder) for path in Path(folder).rglob("*") if not path.is_dir())
    return {path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)}


def contents(folder: Path | str) -> dict[str, bytes]:
    """Every byte of every file in a folder and below, hidden ones too."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def overlap(one_HW: NDArray[np.bool_], other_HW: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    assert one_HW.shape == other_HW.shape
    return float((one_HW & other_HW).sum() / (one_HW | other_HW).sum())


def mask_of(path: Path | str) -> NDArray[np.bool_]:
    """A mask file as it lies there, read by Pillow alone."""
    with Image.open(path) as image:
        assert image.mode == "1"
        return np.asarray(image)
