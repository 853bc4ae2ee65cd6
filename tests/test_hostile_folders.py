"""Folders full of damaged and hostile files through every command: each named with its cause, the rest processed."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bright_onnx import write_bright_onnx
from carmask.cli import main
from carmask.errors import CarmaskError
from carmask.imaging.decode import read_size
from hostile_files import HostileFile, photo, write_hostile_files

GOOD = tuple(f"good_{number}" for number in range(8))


@dataclass(frozen=True)
class HostileData:
    root: Path
    files: list[HostileFile]

    @property
    def unreadable(self) -> list[HostileFile]:
        # A folder is not a photo, whatever its name.
        return [file for file in self.files if not file.readable and not file.path.is_dir()]

    @property
    def readable(self) -> list[HostileFile]:
        return [file for file in self.files if file.readable]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> HostileData:
    """Hostile photos with harmless masks, and a few good pairs."""
    root = tmp_path_factory.mktemp("hostile")
    files = write_hostile_files(root / "images")
    (root / "masks").mkdir()
    for seed, name in enumerate(GOOD):
        photo(seed=seed).save(root / "images" / f"{name}.jpg")
        _write_mask(root / "masks" / f"{name}.png", (64, 96))
    for file in files:
        try:
            size_HW = read_size(file.path)
        except CarmaskError:
            size_HW = (8, 8)
        _write_mask(root / "masks" / f"{file.path.stem}.png", size_HW)
    return HostileData(root, files)


@pytest.fixture(scope="module")
def run(hostile: HostileData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network trained on the hostile folder."""
    place = tmp_path_factory.mktemp("runs")
    size = ["--input.height-px", "32", "--input.width-px", "32"]
    short = ["--epochs", "1", "--epoch-samples", "8", "--batch-size", "4"]
    where = ["--runs", str(place), "--name", "tiny", "--dataset.cache", str(place / "cache")]
    assert _status(["train", str(hostile.root), *size, *short, *where]) == 0
    return place / "tiny"


@pytest.fixture(scope="module")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bright_onnx(tmp_path_factory.mktemp("bright") / "bright.onnx")


def _write_mask(path: Path, size_HW: tuple[int, int]) -> None:
    mask_HW = np.zeros(size_HW, np.uint8)
    mask_HW[: -(-size_HW[0] // 2)] = 255
    Image.fromarray(mask_HW).save(path)


def _status(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def _causes(path: Path, photo_column: str, cause_column: str) -> dict[str, str]:
    with path.open(encoding="utf-8", newline="") as file:
        return {Path(row[photo_column]).name: row[cause_column] for row in csv.DictReader(file)}


def test_there_are_at_least_200_of_them(hostile: HostileData) -> None:
    assert len(hostile.files) >= 200
    assert len(hostile.unreadable) >= 100
    assert len(hostile.readable) >= 50


def test_check_names_every_unreadable_photo(hostile: HostileData, capsys: pytest.CaptureFixture[str]) -> None:
    assert _status(["check", str(hostile.root), "--photos", "0"]) == 1
    output = capsys.readouterr().out
    missing = [file.path.name for file in hostile.unreadable if file.path.name not in output]
    assert missing == []


def test_train_leaves_out_every_unreadable_photo_and_learns_from_the_rest(hostile: HostileData, run: Path) -> None:
    causes = _causes(run / "left_out.csv", "photo", "cause")
    stems = {Path(name).stem for name in causes}
    assert {file.path.stem for file in hostile.unreadable} <= stems
    assert not stems & {*GOOD, *(file.path.stem for file in hostile.readable)}
    assert all(causes.values())
    assert (run / "weights" / "best" / "model.safetensors").is_file()


def test_evaluate_measures_the_rest(hostile: HostileData, run: Path, tmp_path: Path) -> None:
    assert _status(["evaluate", str(hostile.root), "--model", str(run), "--part", "all", "--out", str(tmp_path)]) == 2
    causes = _causes(tmp_path / "per_image.csv", "id", "error")
    assert all(causes[file.path.stem] for file in hostile.unreadable)
    assert not any(causes[stem] for stem in (*GOOD, *(file.path.stem for file in hostile.readable)))


def test_predict_writes_the_rest_at_the_size_and_turn_in_which_it_is_shown(
    hostile: HostileData, run: Path, tmp_path: Path
) -> None:
    assert _status(["predict", str(hostile.root / "images"), str(tmp_path), "--model", str(run)]) == 2
    causes = _causes(tmp_path / "failures.csv", "photo", "cause")
    assert {file.path.name for file in hostile.unreadable} == set(causes)
    assert all(causes.values())
    for file in hostile.readable:
        with Image.open(tmp_path / f"{file.path.stem}.png") as result:
            assert result.size[::-1] == read_size(file.path), file.note


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("masks", ["--tile", "--tta", "flip", "--vehicles", "center", "--min-area", "1%"]),
        ("cutouts", ["--kind", "cutout", "--background", "blur", "--crop", "--format", "png"]),
        ("compare", ["--kind", "compare"]),
        ("labelme", ["--kind", "labelme"]),
        ("out.json", ["--kind", "coco"]),
        ("out.csv", []),
    ],
)
def test_every_kind_of_result_is_made_of_all_that_can_be_read(
    hostile: HostileData, bright: Path, tmp_path: Path, name: str, options: list[str]
) -> None:
    out = tmp_path / name
    assert _status(["predict", str(hostile.root / "images"), str(out), "-m", str(bright), *options]) == 2
    failures = out / "failures.csv" if out.is_dir() else tmp_path / f"{name}.failures.csv"
    assert set(_causes(failures, "photo", "cause")) == {file.path.name for file in hostile.unreadable}
    readable = len(hostile.readable) + len(GOOD)
    if out.is_dir():
        assert len([path for path in out.iterdir() if path.suffix in (".png", ".json")]) == readable
    elif name.endswith(".json"):
        assert len(json.loads(out.read_text())["images"]) == readable
    else:
        with out.open(newline="", errors="surrogateescape") as stream:
            assert len(list(csv.reader(stream))) == readable + 1


def test_hostile_masks_are_named_and_the_rest_is_learned_from(tmp_path: Path) -> None:
    files = write_hostile_files(tmp_path / "data" / "masks")
    (tmp_path / "data" / "images").mkdir()
    for seed, name in enumerate(GOOD):
        photo(seed=seed).save(tmp_path / "data" / "images" / f"{name}.jpg")
        _write_mask(tmp_path / "data" / "masks" / f"{name}.png", (64, 96))
    for file in files:
        photo().save(tmp_path / "data" / "images" / f"{file.path.stem}.png")
    short = ["--epochs", "1", "--epoch-samples", "4", "--batch-size", "4"]
    size = ["--input.height-px", "32", "--input.width-px", "32"]
    where = ["--runs", str(tmp_path), "--name", "tiny", "--dataset.cache", str(tmp_path / "cache")]
    assert _status(["train", str(tmp_path / "data"), *short, *size, *where]) == 0
    stems = {Path(name).stem for name in _causes(tmp_path / "tiny" / "left_out.csv", "photo", "cause")}
    assert {file.path.stem for file in files if not file.readable and not file.path.is_dir()} <= stems
    assert not stems & set(GOOD)
