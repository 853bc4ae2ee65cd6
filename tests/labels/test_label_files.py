"""Small files as each tool writes them: what is read, and what is refused by name."""

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_files import save_photo
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from bright_photos import Command
from carmask.data.cache import CacheKey
from carmask.data.cache_build import open_cache
from carmask.data.pairs import Dataset, find_pairs, load_soft_mask
from carmask.errors import CarmaskError
from carmask.imaging.geometry import Geometry
from carmask.labels.classes import choose_labels
from carmask.labels.cvat import cvat_lines
from carmask.labels.label_studio import label_studio_task
from carmask.labels.match import PhotoNames
from carmask.labels.read import read_labels

HW = (20, 30)
SQUARE = [4, 5, 14, 5, 14, 15, 4, 15]


def square(left: int = 4, top: int = 5, right: int = 14, bottom: int = 15) -> NDArray[np.bool_]:
    mask_HW = np.zeros(HW, np.bool_)
    mask_HW[top:bottom, left:right] = True
    return mask_HW


def coco(*annotations: dict[str, Any], names: tuple[str, ...] = ("car", "dog"), photo: str = "a.png") -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": photo, "height": HW[0], "width": HW[1]}],
        "annotations": [{"image_id": 7, "category_id": 1, **annotation} for annotation in annotations],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
    }


def labelme_file(*shapes: dict[str, Any], photo: str = "a.png") -> dict[str, Any]:
    return {"shapes": list(shapes), "imagePath": photo, "imageHeight": HW[0], "imageWidth": HW[1], "imageData": None}


def points(numbers: list[int]) -> list[list[int]]:
    return np.reshape(numbers, (-1, 2)).tolist()


def write(path: str, content: Any) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content if isinstance(content, str) else json.dumps(content))


def read_one(dataset: Dataset) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    (pair,) = dataset.pairs
    reading = load_soft_mask(pair)
    return reading.mask_HW, reading.known_HW


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_photo(Path("a.png"), HW)


def test_coco_s_three_forms_and_crowds() -> None:
    runs = coco_mask.encode(np.asfortranarray(square(20, 2, 25, 9).view(np.uint8)))
    compressed = {"size": list(HW), "counts": runs["counts"].decode()}
    flat = square(0, 0, 2, 2).T.reshape(-1)
    changes = np.flatnonzero(np.diff(flat)) + 1
    plain = {"size": list(HW), "counts": [0, *np.diff([0, *changes, flat.size]).tolist()]}
    crowd = {"segmentation": [[10, 10, 20, 10, 20, 20, 10, 20]], "iscrowd": 1}
    dog = {"segmentation": [[0, 10, 9, 10, 9, 19]], "category_id": 2}
    write(
        "cars.json", coco({"segmentation": [SQUARE]}, {"segmentation": compressed}, {"segmentation": plain}, crowd, dog)
    )
    mask_HW, known_HW = read_one(find_pairs("."))
    np.testing.assert_array_equal(mask_HW, square() | square(20, 2, 25, 9) | square(0, 0, 2, 2))
    np.testing.assert_array_equal(~known_HW, square(10, 10, 20, 20) & ~square())
    mask_HW, known_HW = read_one(find_pairs("cars.json", labels="dog", ignore_labels=("car",)))
    assert 30 < mask_HW.sum() < 60
    assert not known_HW[6, 6]


def test_unknown_pixels_reach_the_cache(tmp_path: Path) -> None:
    crowd = {"segmentation": [[15, 0, 30, 0, 30, 20, 15, 20]], "iscrowd": 1}
    key = CacheKey(geometry=Geometry(height_px=20, width_px=30), channels=1)
    known_of = {}
    for name, annotations in {"known": [], "unknown": [crowd]}.items():
        write("cars.json", coco({"segmentation": [SQUARE]}, *annotations))
        cache = open_cache(find_pairs(".").pairs, key, tmp_path / "cache")
        known_of[name] = cache.known_NHW
        np.testing.assert_array_equal(cache.masks_NHW[0] > 127, square())
    assert known_of["known"] is None
    np.testing.assert_array_equal(known_of["unknown"][0] == 0, square(15, 0, 30, 20))


def test_polygons_of_two_parts_that_overlap_are_one_object() -> None:
    write("cars.json", coco({"segmentation": [SQUARE, [10, 10, 20, 10, 20, 18, 10, 18]]}))
    np.testing.assert_array_equal(read_one(find_pairs("."))[0], square() | square(10, 10, 20, 18))


def test_labelme_with_its_photo_in_the_same_folder(convert: Command) -> None:
    part = Image.new("L", (4, 3), 1)
    picture = io.BytesIO()
    part.save(picture, "PNG")
    mask = {"shape_type": "mask", "points": [[20, 2], [23, 4]], "mask": base64.b64encode(picture.getvalue()).decode()}
    outline = {"label": "car", "points": points([4, 5, 13, 5, 13, 14, 4, 14]), "shape_type": "polygon"}
    line = {"label": "car", "points": [[0, 0], [5, 5]], "shape_type": "linestrip"}
    write("a.json", labelme_file(outline, {"label": "car", **mask}, line))
    wanted_HW = square() | square(20, 2, 24, 5)
    write("notes.pdf", {})
    assert find_pairs(".").left_out == {".pdf": 1}
    np.testing.assert_array_equal(read_one(find_pairs("."))[0], wanted_HW)
    assert convert(".", "masks") == 0
    assert [path.name for path in Path("masks").glob("*.png")] == ["a.png"]
    np.testing.assert_array_equal(np.asarray(Image.open("masks/a.png")) > 0, wanted_HW)


def test_cvat_s_polygons_masks_and_boxes() -> None:
    head = '<annotations><version>1.1</version><image id="0" name="a.png" width="30" height="20">'
    shapes = (
        '<polygon label="car" points="4.0,5.0;14.0,5.0;14.0,15.0;4.0,15.0"/>'
        '<mask label="truck" rle="1, 3, 5, 1" left="20" top="2" width="5" height="2"/>'
        '<box label="far" xtl="10" ytl="10" xbr="20" ybr="20"/><polyline label="car" points="0,0;1,1"/>'
    )
    write("cars.xml", f"{head}{shapes}</image></annotations>")
    mask_HW, known_HW = read_one(find_pairs(".", ignore_labels="far"))
    wanted_HW = square() | square(21, 2, 24, 3) | square(24, 3, 25, 4)
    np.testing.assert_array_equal(mask_HW, wanted_HW)
    np.testing.assert_array_equal(~known_HW, square(10, 10, 20, 20) & ~square())
    with pytest.raises(CarmaskError, match="far"):
        read_one(find_pairs(".", labels="far"))


def test_label_studio_s_polygons_of_an_uploaded_photo() -> None:
    corners = [[4 / 0.3, 25], [14 / 0.3, 25], [14 / 0.3, 75], [4 / 0.3, 75]]
    region = {"type": "polygonlabels", "original_width": 30, "original_height": 20}
    region["value"] = {"points": corners, "polygonlabels": ["car"], "closed": True}
    task = {"data": {"image": "/data/upload/3/0a1b2c3d-a.png"}, "annotations": [{"result": [region]}]}
    write("cars.json", [task, {**task, "annotations": [{"result": [region], "was_cancelled": True}]}])
    np.testing.assert_array_equal(read_one(find_pairs("."))[0], square())
    write("cars.json", [{**task, "annotations": task["annotations"] * 2}])
    with pytest.raises(CarmaskError, match="2 labels"):
        find_pairs(".")


def test_yolo_s_sides() -> None:
    write(
        "data.yaml",
        "path: /content/somewhere\ntrain: ../train/images\nval: ../valid/images\nnc: 2\nnames: [dog, car]\n",
    )
    shares = " ".join(str(value / size) for value, size in zip(SQUARE, (30, 20) * 4, strict=True))
    for side in ("train", "valid"):
        save_photo(Path(side, "images", "a.png"), HW)
        write(f"{side}/labels/a.txt", f"0 0.1 0.1 0.2 0.1 0.2 0.3\n1 {shares}\n")
        write(f"{side}/labels/classes.txt", "dog\ncar\n")
        write(f"{side}/labels/._a.txt", "\0\5\x16")
    Path("a.png").unlink()
    dataset = find_pairs(".")
    assert [pair.id for pair in dataset.pairs] == ["train/images/a", "valid/images/a"]
    assert dataset.problems == ()
    for pair in dataset.pairs:
        np.testing.assert_array_equal(load_soft_mask(pair).mask_HW, square())


@pytest.mark.parametrize("path", ["sub", "./sub/", "../cars/sub", "absolute", "sub/../sub"])
def test_yolo_s_path_is_followed_below_data_yaml(path: str) -> None:
    shares = " ".join(str(value / size) for value, size in zip(SQUARE, (30, 20) * 4, strict=True))
    write(
        "cars/data.yaml",
        f"path: {Path('cars/sub').absolute() if path == 'absolute' else path}\ntrain: images/t\nnames: [car]",
    )
    save_photo(Path("cars/sub/images/t/a.png"), HW)
    write("cars/sub/labels/t/a.txt", f"0 {shares}\n")
    dataset = find_pairs("cars")
    assert dataset.problems == ()
    np.testing.assert_array_equal(read_one(dataset)[0], square())


@pytest.mark.parametrize("path", ["../other", "absolute"])
def test_yolo_s_path_to_another_folder_is_refused(path: str) -> None:
    other = Path("other").absolute()
    write("cars/data.yaml", f"path: {other if path == 'absolute' else path}\ntrain: images\nnames: [car]")
    save_photo(Path("cars/images/a.png"), HW)
    write("other/labels/a.txt", "0 0.1 0.1 0.2 0.1 0.2 0.3\n")
    with pytest.raises(CarmaskError, match=str(other)):
        find_pairs("cars")


def test_yolo_s_labels_in_linked_folders_are_read_like_their_photos(tmp_path: Path) -> None:
    write(
        "elsewhere/labels/a.txt",
        "0 " + " ".join(str(value / size) for value, size in zip(SQUARE, (30, 20) * 4, strict=True)),
    )
    save_photo(Path("elsewhere/images/a.png"), HW)
    write("cars/data.yaml", "train: images/train\nnames: [car]\n")
    for folder in ("images", "labels"):
        Path("cars", folder, "train").mkdir(parents=True)
        Path("cars", folder, "train", "linked").symlink_to(tmp_path / "elsewhere" / folder)
    np.testing.assert_array_equal(read_one(find_pairs("cars"))[0], square())


def test_pascal_voc_with_its_border(convert: Command) -> None:
    Path("a.png").unlink()
    save_photo(Path("JPEGImages/a.jpg"), HW)
    classes = Image.new("P", HW[::-1])
    palette = [[0, 0, 0], [128, 0, 0], [0, 128, 0], *([0, 0, 0],) * 252, [224, 224, 192]]
    palette[6], palette[7], palette[8] = [0, 128, 128], [128, 128, 128], [64, 0, 0]
    classes.putpalette([value for color in palette for value in color])
    drawing = ImageDraw.Draw(classes)
    drawing.rectangle((3, 4, 14, 15), fill=255)
    drawing.rectangle((4, 5, 13, 14), fill=7)
    drawing.rectangle((20, 2, 24, 8), fill=6)
    drawing.rectangle((26, 2, 28, 8), fill=8)
    Path("SegmentationClass").mkdir()
    classes.save("SegmentationClass/a.png")
    Path("SegmentationClass/._a.png").write_bytes(b"\0\5\x16\7")  # as macOS leaves it
    dataset = find_pairs(".")
    mask_HW, known_HW = read_one(dataset)
    assert dataset.problems == ()
    np.testing.assert_array_equal(mask_HW, square() | square(20, 2, 25, 9))
    np.testing.assert_array_equal(~known_HW, square(3, 4, 15, 16) & ~square())
    np.testing.assert_array_equal(read_one(find_pairs(".", labels="bus"))[0], square(20, 2, 25, 9))
    assert convert(".", "out", "--labels", "car") == 0
    np.testing.assert_array_equal(np.asarray(Image.open("out/a.png")) > 0, square())
    # As before, by number.
    reading = load_soft_mask(find_pairs(".", foreground=6, ignore=255).pairs[0])
    np.testing.assert_array_equal(reading.mask_HW, square(20, 2, 25, 9))


def test_supervisely_s_polygons_with_holes_and_bitmaps() -> None:
    save_photo(Path("ds/img/a.png"), HW)
    Path("a.png").unlink()
    picture = io.BytesIO()
    Image.new("RGBA", (4, 3), (255, 255, 255, 255)).save(picture, "PNG")
    bitmap = {"data": base64.b64encode(zlib.compress(picture.getvalue())).decode(), "origin": [20, 2]}
    outline = {"exterior": points([4, 5, 13, 5, 13, 14, 4, 14]), "interior": [points([7, 8, 9, 8, 9, 10, 7, 10])]}
    objects = [
        {"classTitle": "car", "geometryType": "polygon", "points": outline},
        {"classTitle": "car", "geometryType": "bitmap", "bitmap": bitmap},
    ]
    write("ds/ann/a.png.json", {"size": {"height": 20, "width": 30}, "objects": objects})
    write("meta.json", {"classes": [{"title": "car"}, {"title": "tree"}], "tags": []})
    wanted_HW = (square() & ~square(7, 8, 10, 11)) | square(20, 2, 24, 5)
    for source in (".", "ds"):
        np.testing.assert_array_equal(read_one(find_pairs(source))[0], wanted_HW)


def test_which_classes_are_vehicles() -> None:
    nothing: tuple[str, ...] = ()
    assert choose_labels({"car", "Bus", "dog", "__ignore__"}, nothing, nothing, "x") == ({"car", "Bus"}, {"__ignore__"})
    assert choose_labels({"_background_", "shoe"}, nothing, nothing, "x") == ({"shoe"}, set())
    assert choose_labels({"car", "dog"}, ("dog",), ("car",), "x") == ({"dog"}, {"car"})
    for found, labels, ignored in (
        ({"shoe", "dog"}, nothing, nothing),
        ({"car", "dog"}, ("cat",), nothing),
        ({"car", "dog"}, nothing, ("cat",)),
        ({"car", "dog"}, ("car",), ("car",)),
    ):
        with pytest.raises(CarmaskError, match=r"car|shoe"):
            choose_labels(found, labels, ignored, "x")


def test_shapes_outside_are_clipped_and_counted(check: Command, convert: Command) -> None:
    inside, outside = {"segmentation": [SQUARE]}, {"segmentation": [[-10, 5, 5, 5, 5, 90, -10, 90]]}
    write("cars.json", coco(inside, outside))
    np.testing.assert_array_equal(read_one(find_pairs("."))[0], square() | square(0, 5, 5, 20))
    assert check(".") == 1
    assert "1 shapes" in check.out
    assert "70 px" in check.out
    assert convert("cars.json", "masks") == 0
    assert "clipped" in convert.out + convert.err


def test_two_labels_of_a_photo_are_refused(check: Command, convert: Command) -> None:
    save_photo(Path("b.png"), HW)
    outline = {"label": "car", "points": points(SQUARE)}
    write("a.json", labelme_file(outline))
    write("b.json", labelme_file(outline, photo="b.png"))
    write("copy of a.json", labelme_file(outline))
    dataset = find_pairs(".")
    assert [pair.id for pair in dataset.pairs] == ["b"]
    assert [problem.kind for problem in dataset.problems] == ["ambiguous"]
    assert check(".") == 1
    assert "copy of a.json" in check.out.replace("\n", "")
    assert convert(".", "masks") == 2
    assert [path.name for path in Path("masks").glob("*.png")] == ["b.png"]


def test_a_photo_among_masks_is_not_a_mask(convert: Command) -> None:
    save_photo(Path("in/photo.png"), (200, 200))
    Image.fromarray(square()).save("in/mask.png")
    assert convert("in", "masks") == 2
    assert [path.name for path in Path("masks").glob("*.png")] == ["mask.png"]
    assert "photo.png" in Path("masks/failures.csv").read_text()


def test_masks_beside_a_table_of_their_own_stay_masks(convert: Command) -> None:
    Path("masks").mkdir()
    Image.fromarray(square()).save("masks/a.png")
    write("masks/a.json", coco({"segmentation": [[0, 0, 3, 0, 3, 3]]}, photo="a.jpg"))
    assert convert("masks", "out") == 0
    np.testing.assert_array_equal(np.asarray(Image.open("out/a.png")) > 0, square())


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + level)} "{("&" + chr(97 + level) + ";") * 10}">' for level in range(12))
    + "]><annotations><image id='0' name='&m;' width='9' height='9'/></annotations>"
)
REFUSED = {
    "cut off.json": '{"images": [',
    "too deep.json": "[" * 200_000,
    "no name.json": {"images": [{"id": 1}], "annotations": [], "categories": []},
    "no category.json": coco({"segmentation": [SQUARE], "category_id": 9}),
    "no categories.json": {"images": [], "annotations": [], "categories": [1]},
    "no address.json": [{"data": {"image": "http://[b.png"}, "annotations": [{}]}],
    "half a point.json": coco({"segmentation": [[1, 2, 3, 4, 5]]}),
    "two points.xml": '<annotations><image id="0" name="a.png" width="30" height="20">'
    '<polygon label="car" points="1,1;2,2"/></image></annotations>',
    "bomb.xml": BOMB,
    "cut off.xml": "<annotations><image",
    "odd text.xml": '<?xml version="1.0" encoding="utf-9"?><annotations/>',
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_files_are_named(name: str) -> None:
    write(name, REFUSED[name])
    with pytest.raises(CarmaskError) as error:
        find_pairs(".")
    assert name in str(error.value)
    assert "a.png" in str(error.value) or "point" not in name


def test_a_list_of_classes_that_is_no_text_is_named() -> None:
    for folder in ("JPEGImages", "SegmentationClass"):
        save_photo(Path(folder, "a.png"), HW)
    Path("labelmap.txt").write_bytes("Löschzug:128,0,0::".encode("latin-1"))
    with pytest.raises(CarmaskError, match=r"labelmap\.txt"):
        find_pairs(".")


def test_a_name_without_suffix_may_mean_several_photos() -> None:
    names = PhotoNames(["b/car.png", "b/car.jpg"])
    for end in ("", "images/"):
        assert names.find(f"{end}b/car.png") == ["b/car.png"]
        assert set(names.find(f"{end}b/car")) == {"b/car.png", "b/car.jpg"}


def test_names_of_any_bytes_are_written() -> None:
    row = {"height": 20, "width": 30, "rle": [], "polygons": [], "masks": []}
    name = "\udcff\x01&#?+ ä.jpg"
    write("tasks.json", [label_studio_task(1, name, row, None)])
    assert [photo.photo for photo in read_labels(Path("tasks.json"), (), ()).photos] == [name]
    lines = "".join(cvat_lines([(1, name, row)]))
    Path("cars.xml").write_bytes(lines.encode(errors="backslashreplace"))
    assert len(read_labels(Path("cars.xml"), (), ()).photos) == 1


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [20, 30], "counts": [1, 2]},
        {"size": [20, 31], "counts": [620]},
        {"size": [10, 15], "counts": [30, 120]},
        {"size": [100_000, 100_000], "counts": [10**10]},
        {"size": [20, 30], "counts": "0~~~~"},
        {"size": [20, 30], "counts": "oooooooooooo"},
        [[0, 0, 1e300, 5, 3, 9]],
    ],
)
def test_shapes_that_cannot_be_drawn_are_named(segmentation: Any) -> None:
    write("cars.json", coco({"segmentation": segmentation}))
    with pytest.raises(CarmaskError, match=r"cars\.json.*a\.png.*"):
        read_one(find_pairs("."))


def test_labels_of_several_formats_are_not_mixed() -> None:
    write("cars.json", coco({"segmentation": [SQUARE]}))
    write("a.json", labelme_file({"label": "car", "points": points(SQUARE)}))
    with pytest.raises(CarmaskError, match=r"cars\.json"):
        find_pairs(".")
    assert len(find_pairs("cars.json").pairs) == 1
