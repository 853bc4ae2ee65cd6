"""`carmask benchmark` on a few small photos: its numbers are of the engines that are here, and the file holds them."""

import json

import numpy as np
from PIL import Image

from carmask.cli.benchmark import benchmark


def test_the_packaged_network_is_measured_in_each_engine_and_stage(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "speed.json"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (96, 144, 3), np.uint8)).save(photos / f"{number}.jpg")

    assert benchmark(photos, model=("small",), kind=("mask",), count=8, seconds=0.01, out=out) == 0

    figures = json.loads(out.read_text())["figures"]
    assert {"onnxruntime", "openvino"} >= {row["engine"] for row in figures["networks"]} >= {"onnxruntime"}
    assert {row["network"] for row in figures["networks"]} == {"small"}
    assert all(row["one_ms"] > 0 and row["photos_per_s"] > 0 for row in figures["networks"])
    (whole,) = figures["wholes"]
    assert (whole["network"], whole["kind"], whole["photos"]) == ("small", "mask", 8)
    assert whole["photos_per_s"] > 0
    assert [stage["stage"] for stage in whole["stages"]] == ["decode", "fit", "network", "restore", "encode"]
    assert all(stage["one_ms"] > 0 and stage["photos_per_s"] > 0 for stage in whole["stages"])
    assert figures["naive"] == {}
