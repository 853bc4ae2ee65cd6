"""Masks that were drawn on the stored pixels of photos with an EXIF orientation."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from carmask.cli import main
from carmask.data.check import check_dataset
from carmask.data.pairs import find_pairs
from tiny_runs import TINY, tiny_settings, train


def scene(seed: int, size_HW: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A car of two boxes, off the center, on noisy ground with a horizon, and its mask."""
    rng = np.random.default_rng(seed)
    height, width = size_HW
    image_HWC = np.full((height, width, 3), 170, np.uint8)
    image_HWC[height * 3 // 5 :] = 110
    mask_HW = np.zeros(size_HW, np.uint8)
    left, top = int(rng.integers(5, width // 6)), int(rng.integers(height // 2, height * 2 // 3))
    for x, y, w, h in (
        (left, top, width * 5 // 9, height // 5),
        (left + 12, top - height // 7, width // 4, height // 6),
    ):
        cv2.rectangle(image_HWC, (x, y), (x + w, y + h), rng.integers(0, 90, 3).tolist(), -1)
        cv2.rectangle(mask_HW, (x, y), (x + w, y + h), 255, -1)
    return (image_HWC + rng.normal(0, 9, image_HWC.shape)).clip(0, 255).astype(np.uint8), mask_HW


def write(root: Path, orientation: int, size_HW: tuple[int, int], *, on_stored: bool) -> None:
    """Six pairs; `on_stored`: the masks are of the stored pixels, else of what is shown."""
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    exif = Image.Exif()
    exif[0x0112] = orientation
    for number in range(6):
        image_HWC, mask_HW = scene(number, size_HW)
        path = root / f"images/{number}.png"
        Image.fromarray(image_HWC).save(path, exif=exif)
        mask = Image.fromarray(mask_HW)
        if not on_stored:
            mask.getexif()[0x0112] = orientation
            mask = ImageOps.exif_transpose(mask)
        mask.save(root / f"masks/{number}.png", exif=Image.Exif())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size_HW", [(120, 160), (140, 140)])
def test_masks_of_the_stored_pixels_are_found(tmp_path: Path, orientation: int, size_HW: tuple[int, int]) -> None:
    write(tmp_path, orientation, size_HW, on_stored=True)
    problems = check_dataset(find_pairs(tmp_path)).problems
    found = [problem.subject for problem in problems if problem.kind == "turned mask"]
    assert len(found) == (0 if orientation == 1 else 6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size_HW", [(120, 160), (140, 140)])
def test_masks_of_what_is_shown_are_not(tmp_path: Path, orientation: int, size_HW: tuple[int, int]) -> None:
    write(tmp_path, orientation, size_HW, on_stored=False)
    assert not check_dataset(find_pairs(tmp_path)).problems


def test_training_and_evaluation_say_it_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write(data, 3, (120, 160), on_stored=True)
    settings = tiny_settings(TINY, data=data, cache=tmp_path / "cache", runs=tmp_path / "runs", name="run")
    assert "EXIF orientation" in train(settings)[1]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["evaluate", str(data), "--model", str(tmp_path / "runs/run"), "--worst", "0"])
    assert "EXIF orientation" in capsys.readouterr().err
