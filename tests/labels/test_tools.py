"""Our files, opened by the tools' own readers.

Each of these is large, and together they conflict, so they are not among the development tools: run this file in an
environment with datumaro, with label-studio-sdk and supervision, or with labelme.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from label_files import masks_in
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.mask import decode, frPyObjects, merge

from bright_photos import Command
from carmask.data.pairs import find_pairs, load_soft_mask
from carmask.evaluation.metrics import dice

Truth = dict[str, NDArray[np.bool_]]


@pytest.fixture
def truth(rendered: Path, convert: Command) -> Truth:  # noqa: ARG001 - which enters the working folder
    """The masks, and the working folder with their photos in cars/images."""
    shutil.copytree(rendered / "train", "cars/images")
    return dict(masks_in(rendered / "train_masks"))


def write(rendered: Path, convert: Command, destination: str, kind: str) -> None:
    assert convert(rendered / "train_masks", destination, "-k", kind, "--photos", "cars/images") == 0


def test_coco_by_pycocotools(rendered: Path, convert: Command, truth: Truth) -> None:
    write(rendered, convert, "cars.json", "coco")
    coco = COCO("cars.json")
    for image in coco.loadImgs(coco.getImgIds()):
        (annotation,) = coco.loadAnns(coco.getAnnIds(image["id"]))
        np.testing.assert_array_equal(coco.annToMask(annotation) > 0, truth[Path(image["file_name"]).stem])


def test_labelme_by_labelme(rendered: Path, convert: Command, truth: Truth) -> None:
    shape = pytest.importorskip("labelme.utils.shape", reason="labelme, which brings Qt, is not installed")
    from labelme._label_file import LabelFile

    write(rendered, convert, "cars/labels", "labelme")
    for name, mask_HW in truth.items():
        found = LabelFile(filename=f"cars/labels/{name}.json")
        drawn_HW = np.zeros_like(mask_HW)
        for one in found.shapes:
            drawn_HW |= shape.shape_to_mask(mask_HW.shape, one["points"], one["shape_type"])
        assert dice(mask_HW, drawn_HW) > 0.998


def test_cvat_by_datumaro(rendered: Path, convert: Command, truth: Truth) -> None:
    datumaro = pytest.importorskip("datumaro", reason="datumaro, which brings pandas and pyarrow, is not installed")
    write(rendered, convert, "cars/cars.xml", "cvat")
    dataset = datumaro.Dataset.import_from("cars", "cvat")
    assert len(dataset) == len(truth)
    for item in dataset:
        mask_HW = truth[item.id]
        polygons = [[one.points] for one in item.annotations if isinstance(one, datumaro.Polygon)]
        regions = [decode(merge(frPyObjects(one, *mask_HW.shape))) > 0 for one in polygons]
        regions += [one.image > 0 for one in item.annotations if isinstance(one, datumaro.Mask)]
        assert dice(mask_HW, np.any(regions, axis=0)) > 0.99


def test_pascal_voc_of_datumaro(rendered: Path, convert: Command, truth: Truth) -> None:
    """Written by datumaro from our CVAT file, as CVAT exports it."""
    datumaro = pytest.importorskip("datumaro", reason="datumaro, which brings pandas and pyarrow, is not installed")
    write(rendered, convert, "cars/cars.xml", "cvat")
    found = datumaro.Dataset.import_from("cars", "cvat")
    found.transform("polygons_to_masks")
    found.export("voc", "voc_segmentation", save_media=True)
    for pair in find_pairs("voc").pairs:
        assert dice(truth[Path(pair.id).name], load_soft_mask(pair).mask_HW) > 0.99


def test_yolo_by_supervision(rendered: Path, convert: Command, truth: Truth) -> None:
    """Datumaro's reader of YOLO knows boxes only."""
    supervision = pytest.importorskip("supervision", reason="supervision, which brings matplotlib, is not installed")
    write(rendered, convert, "cars", "yolo")
    found = supervision.DetectionDataset.from_yolo("cars/images", "cars/labels", "cars/data.yaml", force_masks=True)
    assert found.classes == ["vehicle"]
    for path, _, detections in found:
        assert dice(truth[Path(path).stem], detections.mask.any(axis=0)) > 0.98


def test_label_studio_by_its_own_decoder(rendered: Path, convert: Command, truth: Truth) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush", reason="label-studio-sdk is not installed")
    write(rendered, convert, "tasks.json", "label-studio")
    for task in json.loads(Path("tasks.json").read_text()):
        (region,) = task["predictions"][0]["result"]
        rgba = brush.decode_rle(region["value"]["rle"]).reshape(region["original_height"], region["original_width"], 4)
        np.testing.assert_array_equal(rgba[..., 3] > 0, truth[Path(task["data"]["image"].partition("=")[2]).stem])
