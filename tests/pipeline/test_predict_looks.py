"""Looks through the command line and Python: the same bytes, and one scale for all photos of a car."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD

from bright_photos import Command
from carmask import Segmenter
from carmask.imaging.look import LOOKS
from carmask.pipeline.groups import group_of, measure_box
from carmask.result import Result
from carmask.runtime.options import RunOptions


def save_car(path: str, tall: int, wide: int) -> None:
    """A photo with a bright box, which the test network finds."""
    image_HW3 = np.full((120, 160, 3), 20, dtype=np.uint8)
    image_HW3[60 - tall // 2 : 60 + tall // 2, 80 - wide // 2 : 80 + wide // 2] = 240
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[IFD.GPSInfo] = {1: "N", 2: (50.0, 4.0, 7.0)}
    Image.fromarray(image_HW3).save(path, exif=exif)


@pytest.mark.parametrize("look", LOOKS)
def test_the_command_and_python_make_the_same_bytes(predict: Command, model: Path, look: str) -> None:
    save_car("photos/car.png", 40, 80)
    assert predict("photos", "out", "--look", look) == 0
    (result,) = (path for path in Path("out").iterdir() if path.stem == "car")
    data = result.read_bytes()
    assert data == Segmenter.load(model, RunOptions("onnxruntime", "cpu"))("photos/car.png").compose(look)
    assert not Image.open(io.BytesIO(data)).getexif().get_ifd(IFD.GPSInfo)


def boxes_in(folder: str) -> dict[str, tuple[int, int]]:
    sizes = {}
    for path in sorted(Path(folder).glob("*.png")):
        left, top, right, bottom = Image.open(path).getchannel("A").point(lambda level: 255 * (level > 127)).getbbox()
        sizes[path.stem] = bottom - top, right - left
    return sizes


SAME_CAR = ("-k", "cutout", "--canvas", "200x150", "--margin", "10%", "--scale", "same-car", "--anchor", "bottom")


def test_all_photos_of_a_car_have_one_scale_also_after_a_kill(predict: Command) -> None:
    for name, size in {"one_01": (40, 100), "one_02": (60, 50), "two_01": (20, 30)}.items():
        save_car(f"photos/{name}.png", *size)
    assert predict("photos", "out", *SAME_CAR) == 0
    whole = {path.name: path.read_bytes() for path in Path("out").glob("*.png")}
    boxes = boxes_in("out")
    scale = min((150 - 30) / 60, (200 - 30) / 100)
    for name, (tall, wide) in {"one_01": (40, 100), "one_02": (60, 50)}.items():
        np.testing.assert_allclose(boxes[name], (scale * tall, scale * wide), atol=4)
    np.testing.assert_allclose(boxes["two_01"], (16 / 3 * 20, 16 / 3 * 30), atol=11)
    # As after a kill: one result is missing, and half of a line of the boxes.
    Path("out/one_02.png").unlink()
    for journal in Path("out").glob(".carmask-boxes.jsonl"):
        journal.write_bytes(journal.read_bytes()[:-20])
    kept = Path("out/one_01.png").stat().st_mtime_ns
    assert predict("photos", "out", *SAME_CAR) == 0
    assert {path.name: path.read_bytes() for path in Path("out").glob("*.png")} == whole
    assert Path("out/one_01.png").stat().st_mtime_ns == kept
    # A larger view changes the scale of its car alone.
    two = Path("out/two_01.png").stat().st_mtime_ns
    save_car("photos/one_03.png", 100, 100)
    assert predict("photos", "out", *SAME_CAR) == 0
    assert boxes_in("out")["one_01"][1] < boxes["one_01"][1]
    assert Path("out/two_01.png").stat().st_mtime_ns == two


def test_files_from_elsewhere_are_refused_before_any_photo_is_measured(predict: Command) -> None:
    save_car("photos/one_01.png", 40, 100)
    Path("out").mkdir()
    Path("out/one_01.png").write_bytes(b"mine")
    predict.assert_refused("photos", "out", *SAME_CAR, naming=("one_01.png", "--overwrite"))
    assert [path.name for path in Path("out").iterdir()] == ["one_01.png"]
    assert predict("photos", "out", *SAME_CAR, "--overwrite") == 0


def test_specks_do_not_change_the_scale_of_a_car() -> None:
    probability_HW = np.zeros((240, 400), dtype=np.float32)
    probability_HW[80:180, 50:350] = 1
    probability_HW[5:9, 390:394] = 1
    found = Result(probability_HW, 0.5, None)
    assert found.box_px == (5, 50, 180, 394)
    assert measure_box(None, found) == (80, 50, 180, 350)


def test_groups() -> None:
    assert group_of("a/car_01.jpg") == group_of("a/car_16.png") != group_of("b/car_01.jpg")
    assert group_of("a/x.jpg") == group_of("a/y.jpg") != group_of("b/x.jpg")


def test_options_that_contradict_each_other(predict: Command) -> None:
    save_car("photos/car.png", 40, 80)
    predict.assert_refused("photos", "out", "-k", "cutout", "-f", "jpg", naming=("jpg", "transparency"))
    predict.assert_refused("photos", "out", "-k", "mask", "--canvas", "100x100", naming=("--canvas", "mask"))
    predict.assert_refused("photos", "out", "--look", "none", naming=("none", "showroom"))
    predict.assert_refused("photos", "out", *SAME_CAR, "--shard", "1/2", naming=("same-car", "--shard"))


def test_a_file_and_options_make_one_look(predict: Command) -> None:
    save_car("photos/car.png", 40, 80)
    Path("mine.yaml").write_text("canvas: 90x60\nbackground: navy\nformat: jpg\n")
    assert (
        predict("photos/car.png", "out.webp", "--look", "mine.yaml", "--canvas", "80x50", "-f", "webp", "--json") == 0
    )
    assert json.loads(predict.out.splitlines()[0])
    image = Image.open("out.webp")
    assert (image.size, image.format) == ((80, 50), "WEBP")
