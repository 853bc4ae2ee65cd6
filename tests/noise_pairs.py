"""A data set of noise, damaged as a test wants it, and the command line to look at it with."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carmask.cli import main


def make_pair(root: Path, stem: str, *, seed: int | None = None, size_HW: tuple[int, int] = (120, 160)) -> None:
    """Save a photo of coarse noise and a mask of its left quarter, 0/255."""
    rng = np.random.default_rng(zlib.crc32(stem.encode()) if seed is None else seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "masks").mkdir(exist_ok=True)
    coarse.resize(size_HW[::-1], Image.Resampling.BICUBIC).save(root / "images" / f"{stem}.jpg", quality=90)
    mask_HW = np.zeros(size_HW, dtype=np.uint8)
    mask_HW[:, : size_HW[1] // 4] = 255
    save_mask(root, stem, mask_HW)


def save_mask(root: Path, stem: str, mask_HW: np.ndarray) -> None:
    Image.fromarray(mask_HW).save(root / "masks" / f"{stem}.png")


def cut(path: Path, bytes_off: int) -> None:
    path.write_bytes(path.read_bytes()[:-bytes_off])


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    out, err = capsys.readouterr()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, out, err
