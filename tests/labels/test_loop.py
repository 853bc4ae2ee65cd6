"""The whole loop: masks of a network, corrected in a labeling tool, and trained on with what was corrected."""

import shutil
from pathlib import Path
from statistics import fmean
from xml.etree import ElementTree

import pytest

from bright_photos import Command
from carmask.evaluation.evaluate import evaluate
from carstudio import render_dataset


def test_a_network_gets_better_by_corrected_masks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    render_dataset("studio", cars=6, views=2, size_HW=(96, 144))
    shutil.copytree("studio/train", "cars/images")
    assert Command("predict", capsys, "-m", "small", "--device", "cpu")("cars/images", "found.xml") == 0

    # A person opens found.xml in CVAT and draws the true outlines.
    assert Command("convert", capsys)("studio/train_masks", "true.xml", "--photos", "cars/images") == 0
    found, true = ElementTree.parse("found.xml"), ElementTree.parse("true.xml")  # noqa: S314
    outlines = {image.get("name"): list(image) for image in true.iter("image")}
    for image in found.iter("image"):
        image[:] = outlines[image.get("name")]
    found.write("cars/corrected.xml")

    train = Command("train", capsys, "--hardware.device", "cpu", "--no-tensorboard")
    options = ("--init", "small", "--epochs", "3", "--batch-size", "4", "--name", "again")
    assert train("cars", *options) == 0, train.err
    before, after = (
        fmean(row.metrics.dice for row in evaluate("cars", model, part="all").rows) for model in ("small", "runs/again")
    )
    print(before, after)
    assert after > before + 0.005
