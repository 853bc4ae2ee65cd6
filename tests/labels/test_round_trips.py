"""Masks to every format and back, and the files as each tool's own reader sees them, where that is installed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from label_files import masks_in

from bright_photos import Command
from carmask.data.pairs import find_pairs, load_soft_mask
from carmask.evaluation.metrics import dice
from carmask.imaging.polygons import fill_rings, find_polygons, joined
from carmask.imaging.rle import encode_coco, parse_coco, runs_to_mask
from carmask.labels.label_studio import decode_brush, encode_brush

masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=20))
# Where results go, and what of them is read back; the least Dice.
FORMATS = {
    "coco": ("cars/cars.json", "cars/cars.json", 1.0),
    "label-studio": ("cars/cars.json", "cars/cars.json", 1.0),
    "cvat": ("cars/cars.xml", "cars/cars.xml", 0.998),
    "yolo": ("cars", "cars/data.yaml", 0.998),
    "labelme": ("cars", "cars", 0.998),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_rendered_cars_to_every_format_and_back(rendered: Path, convert: Command, kind: str) -> None:
    destination, source, least = FORMATS[kind]
    shutil.copytree(rendered / "train", "cars/images")
    assert convert(rendered / "train_masks", destination, "-k", kind, "--photos", "cars/images") == 0
    assert convert(source, "back") == 0
    truth = dict(masks_in(rendered / "train_masks"))
    back = dict(masks_in("back"))
    assert back.keys() == truth.keys()
    assert min(dice(truth[name], back[name]) for name in truth) >= least

    if source.endswith(("yaml", "cars")):  # files of their own, which the next run keeps
        assert convert(rendered / "train_masks", destination, "-k", kind, "--photos", "cars/images") == 0
        assert convert.done_before == (len(truth), len(truth))

    # The same as a data set: photos in images/, labels beside them.
    dataset = find_pairs("cars")
    assert ([pair.id for pair in dataset.pairs], dataset.problems) == (sorted(truth), ())
    for pair in dataset.pairs:
        np.testing.assert_array_equal(load_soft_mask(pair).mask_HW, back[Path(pair.id).name])


@given(masks)
def test_a_joined_ring_fills_the_same_pixels(mask_HW: np.ndarray) -> None:
    drawn_HW = np.zeros_like(mask_HW)
    for rings in find_polygons(mask_HW, tolerance_px=0):
        fill_rings([joined(rings)], drawn_HW)
    np.testing.assert_array_equal(drawn_HW, mask_HW)


@given(masks)
def test_run_lengths_are_read_back(mask_HW: np.ndarray) -> None:
    found = encode_coco(mask_HW)
    np.testing.assert_array_equal(runs_to_mask(parse_coco(found["counts"]), mask_HW.T.shape).T, mask_HW)
    np.testing.assert_array_equal(decode_brush(bytes(encode_brush(mask_HW)), mask_HW.shape), mask_HW)
