"""Tables of all photos, read back by the programs that they are made for."""

import csv
import gzip
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from bright_photos import Command, files, mask_of, save, vehicle
from carmask.exporting.graph import note_dice_calibration
from carmask.models.dice_calibration import DiceCalibration, DiceMap
from carmask.runtime.options import RunOptions
from carmask.segmenter import Segmenter


@pytest.fixture
def photos(predict: Command) -> Path:
    """Four photos in two folders, one of them empty, with their masks in `masks`."""
    save("photos/b.png", vehicle((50, 71)))
    save("photos/a.jpg", np.rot90(vehicle()), quality=95)
    save("photos/sub/c.png", vehicle((33, 20)))
    save("photos/sub/empty.png", np.zeros((31, 17), dtype=bool))
    assert predict("photos", "masks") == 0
    return Path("photos")


def decoded(runs: str, size_HW: tuple[int, int]) -> np.ndarray:
    """As Kaggle's page says, in so many words: pixels are numbered from 1, row by row."""
    flat = np.zeros(size_HW[0] * size_HW[1], dtype=bool)
    numbers = [int(word) for word in runs.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        flat[start - 1 : start - 1 + length] = True
    return flat.reshape(size_HW)


@pytest.mark.parametrize("name", ["out.csv", "out.CSV.GZ"])
def test_the_challenge_s_table(photos: Path, predict: Command, name: str) -> None:
    assert predict(photos, name) == 0
    data = Path(name).read_bytes()
    text = gzip.decompress(data) if name != "out.csv" else data
    assert text.startswith(b"img,rle_mask\r\na.jpg,")
    assert text.endswith(b"\r\nempty.png,\r\n")
    rows = list(csv.reader(text.decode().splitlines()))[1:]
    assert [row[0] for row in rows] == ["a.jpg", "b.png", "c.png", "empty.png"]
    for (_, runs), mask in zip(rows, ("a", "b", "sub/c", "sub/empty"), strict=True):
        mask_HW = mask_of(f"masks/{mask}.png")
        np.testing.assert_array_equal(decoded(runs, mask_HW.shape), mask_HW)
    assert files(".") - {name} == {f"{name}.no_vehicle.txt", *files_of("photos"), *files_of("masks")}
    Path(name).unlink()
    assert predict(photos, name) == 0
    assert Path(name).read_bytes() == data


def files_of(folder: str) -> set[str]:
    return {f"{folder}/{name}" for name in files(folder)}


def test_names_with_commas_and_quotes_are_kept(predict: Command) -> None:
    save('photos/a, "b".png')
    assert predict("photos", "out.csv") == 0
    with Path("out.csv").open(newline="") as stream:
        (row,) = list(csv.reader(stream))[1:]
    assert row[0] == 'a, "b".png'


def test_photos_of_one_name_are_refused_where_names_are_all_there_is(predict: Command) -> None:
    save("photos/1/car.png")
    save("photos/2/car.png")
    predict.assert_refused("photos", "out.csv", naming=("photos/1/car.png and photos/2/car.png", "coco"))
    assert files(".") == {"photos/1/car.png", "photos/2/car.png"}
    assert predict("photos", "out.json", "-k", "coco") == 0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools and NumPy 2
@pytest.mark.parametrize("name", ["out.json", "out.json.gz"])
def test_pycocotools_reads_the_annotations(photos: Path, predict: Command, name: str) -> None:
    assert predict(photos, name, "--kind", "coco") == 0
    data = Path(name).read_bytes()
    Path("plain.json").write_bytes(gzip.decompress(data) if name.endswith(".gz") else data)
    coco = COCO("plain.json")
    images = coco.loadImgs(coco.getImgIds())
    assert [image["file_name"] for image in images] == ["a.jpg", "b.png", "sub/c.png", "sub/empty.png"]
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["vehicle"]
    for image in images:
        mask_HW = mask_of(Path("masks", image["file_name"]).with_suffix(".png"))
        assert (image["height"], image["width"]) == mask_HW.shape
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        assert len(annotations) == mask_HW.any()
        for annotation in annotations:
            np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), mask_HW)
            assert annotation["area"] == coco_mask.area(annotation["segmentation"]) == mask_HW.sum()
            assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
    # What is read as the truth can be scored: against itself every mask is found.
    assert Counter(annotation["iscrowd"] for annotation in coco.anns.values()) == {0: 3}


def test_every_door_tells_the_same_expected_dice(
    photos: Path, model: Path, capsys: pytest.CaptureFixture[str], predict: Command
) -> None:
    assert predict(photos, "plain", "--json") == 0
    assert {json.loads(line)["expected_dice"] for line in predict.out.splitlines()[:-1]} == {None}
    calibrated = Path(shutil.copy(model, "calibrated.onnx"))
    found, empty = DiceMap(scores=(0.2, 1), dice=(0.1, 0.9)), DiceMap(scores=(0.5,), dice=(0.75,))
    note_dice_calibration(calibrated, DiceCalibration(found=found, empty=empty, masks=9, fitted_on="these"))
    command = Command("predict", capsys, "-m", str(calibrated), "--engine", "onnxruntime", "--device", "cpu")
    segmenter = Segmenter.load(calibrated, RunOptions("onnxruntime", "cpu"))
    wanted = {str(path): segmenter(path).expected_dice for path in sorted(photos.rglob("*.*"))}
    assert wanted["photos/sub/empty.png"] == 0.75
    assert all(0.5 < expected < 0.9 for expected in wanted.values() if expected)
    assert command(photos, "again", "--json") == 0
    lines = map(json.loads, command.out.splitlines()[:-1])
    assert {line["photo"]: line["expected_dice"] for line in lines} == wanted
    assert command(photos, "out.parquet") == 0
    table = pq.read_table("out.parquet", columns=["path", "expected_dice"]).to_pydict()
    assert dict(zip(table["path"], table["expected_dice"], strict=True)) == wanted
    assert command(photos, "out.json", "-k", "coco") == 0
    document = json.loads(Path("out.json").read_text())
    names = {image["id"]: f"photos/{image['file_name']}" for image in document["images"]}
    scores = {names[one["image_id"]]: one["score"] for one in document["annotations"]}
    assert scores == {name: expected for name, expected in wanted.items() if "empty" not in name}


def test_a_compressed_table_of_json_can_only_be_coco(photos: Path, predict: Command) -> None:
    assert predict(photos, "out.json.gz") == 0
    assert json.loads(gzip.decompress(Path("out.json.gz").read_bytes()))["images"]
    predict.assert_refused(photos, "out.json", naming=("out.json", "coco", "polygons", "labelme"))


def test_outlines_of_each_photo(photos: Path, predict: Command) -> None:
    assert predict(photos, "polygons", "-k", "polygons") == 0
    assert predict(photos, photos, "-k", "labelme") == 0
    names = {"a.json", "b.json", "sub/c.json", "sub/empty.json"}
    assert files("polygons") == names | {"no_vehicle.txt"}
    assert files(photos) >= names, "LabelMe looks for its files beside the photos"
    for name in names:
        photo = json.loads((photos / name).read_text())
        with Image.open((photos / name).parent / photo["imagePath"]) as image:
            assert (photo["imageWidth"], photo["imageHeight"]) == image.size
        (feature,) = json.loads(Path("polygons", name).read_text())["features"]
        assert len(feature["geometry"]["coordinates"]) == len(photo["shapes"]) == (name != "sub/empty.json")
    # The photos are still photos, though results lie among them.
    assert predict(photos, "again") == 0
    assert {name for name in files("again") if name.endswith(".png")} == files("masks") - {"no_vehicle.txt"}
    assert predict("photos/b.png", "elsewhere/b.json", "-k", "labelme") == 0
    assert json.loads(Path("elsewhere/b.json").read_text())["imagePath"] == "../photos/b.png"
