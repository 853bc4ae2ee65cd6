"""LabelMe's files, read back as LabelMe reads them: by Pillow, and by LabelMe itself where it is installed."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw
from scipy import ndimage

from carmask.imaging.decode import decode_mask
from carmask.labels.labelme import labelme

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=16))
# Mostly foreground: many holes, also within each other's reach.
holey = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random((14, 17)) < 0.75)


def filled(document):
    """Fill each shape with Pillow, outline included, as LabelMe's `shape_to_mask` does."""
    size_WH = (document["imageWidth"], document["imageHeight"])
    mask_HW = np.zeros(size_WH[::-1], dtype=np.bool_)
    for shape in document["shapes"]:
        picture = Image.new("L", size_WH)
        ImageDraw.Draw(picture).polygon([tuple(point) for point in shape["points"]], outline=1, fill=1)
        mask_HW |= np.asarray(picture) > 0
    return mask_HW


@given(masks | holey)
def test_exact_outlines_give_the_mask_back(mask_HW):
    document = labelme(mask_HW, "car.jpg", tolerance_px=0)
    np.testing.assert_array_equal(filled(document), mask_HW)
    _, regions = ndimage.label(mask_HW, structure=np.ones((3, 3)))
    assert len(document["shapes"]) == regions
    assert all(len(shape["points"]) >= 3 for shape in document["shapes"])


@given(holey, st.sampled_from([0.5, 1.0, 2.0]))
def test_simplified_outlines_have_no_more_points(mask_HW, tolerance_px):
    exact, simple = labelme(mask_HW, "car.jpg", tolerance_px=0), labelme(mask_HW, "car.jpg", tolerance_px=tolerance_px)
    assert len(simple["shapes"]) == len(exact["shapes"])
    for shape, exact_shape in zip(simple["shapes"], exact["shapes"], strict=True):
        assert 3 <= len(shape["points"]) <= len(exact_shape["points"])


def test_holes_inside_a_real_outline(carvana):
    for path in sorted((carvana / "train_masks").glob("*.gif"))[::250]:
        mask_HW = decode_mask(path).mask_HW
        rows, columns = np.mgrid[: mask_HW.shape[0], : mask_HW.shape[1]]
        middle = ndimage.center_of_mass(mask_HW)
        for offset_px in (-100, -40, 60):
            mask_HW &= np.hypot(rows - middle[0] - offset_px / 4, columns - middle[1] - offset_px) > 25
        np.testing.assert_array_equal(filled(labelme(mask_HW, "car.jpg", tolerance_px=0)), mask_HW)
        document = labelme(mask_HW, "car.jpg")
        drawn_HW = filled(document)
        assert 2 * (drawn_HW & mask_HW).sum() / (drawn_HW.sum() + mask_HW.sum()) > 0.999
        assert len(json.dumps(document)) < 25_000


def test_thousands_of_holes_beside_each_other():
    mask_HW = np.ones((5, 6003), dtype=np.bool_)
    mask_HW[2, 2::3] = False
    np.testing.assert_array_equal(filled(labelme(mask_HW, "car.jpg", tolerance_px=0)), mask_HW)


def test_the_document_has_labelmes_fields():
    mask_HW = np.zeros((30, 40), dtype=np.bool_)
    mask_HW[5:20, 8:30] = True
    document = json.loads(json.dumps(labelme(mask_HW, "../photos/car.jpg")))
    (shape,) = document.pop("shapes")
    assert document.pop("version")
    assert document == {
        "flags": {},
        "imagePath": "../photos/car.jpg",
        "imageData": None,
        "imageHeight": 30,
        "imageWidth": 40,
    }
    points = shape.pop("points")
    assert sorted(map(tuple, points)) == [(8.5, 5.5), (8.5, 19.5), (29.5, 5.5), (29.5, 19.5)]
    assert shape == {
        "label": "vehicle",
        "group_id": None,
        "description": "",
        "shape_type": "polygon",
        "flags": {},
        "mask": None,
    }


def test_no_vehicle_has_no_shape():
    assert labelme(np.zeros((4, 6), dtype=np.bool_), "x.jpg")["shapes"] == []


def test_labelme_itself_reads_the_mask_back(tmp_path):
    reader = pytest.importorskip("labelme")
    mask_HW = np.random.default_rng(7).random((60, 90)) < 0.8
    mask_HW[20:40, 30:60] = False
    mask_HW[28:32, 40:50] = True
    Image.new("RGB", (90, 60), (90, 120, 150)).save(tmp_path / "car.jpg")
    (tmp_path / "labels").mkdir()
    path = tmp_path / "labels" / "car.json"
    path.write_text(json.dumps(labelme(mask_HW, "../car.jpg", tolerance_px=0)))
    label_file = reader.LabelFile(str(path))
    class_HW, _ = reader.utils.shapes_to_label((60, 90), label_file.shapes, {"vehicle": 1})
    np.testing.assert_array_equal(class_HW == 1, mask_HW)


def test_what_is_no_mask_is_refused():
    with pytest.raises(ValueError, match="bool"):
        labelme(np.zeros((3, 4), dtype=np.uint8), "x.jpg")
