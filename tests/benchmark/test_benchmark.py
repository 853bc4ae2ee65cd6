"""`carmask benchmark` on a few small photos: its numbers are of the engines that are here, and agree."""

import json

import numpy as np
import pytest
from PIL import Image

from carmask.benchmark.suite import run_benchmark
from carmask.benchmark.tables import make_tables
from carmask.cli.benchmark import benchmark
from carmask.errors import CarmaskError


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
    rates = [stage["photos_per_s"] for stage in whole["stages"]]
    assert whole["of_slowest_stage"] == pytest.approx(whole["photos_per_s"] / min(rates))
    assert whole["of_all_stages_in_turn"] == pytest.approx(whole["photos_per_s"] * sum(1 / rate for rate in rates))
    assert figures["naive"] == {}


def test_what_will_be_measured_is_said_first(tmp_path):
    said = []
    with pytest.raises(CarmaskError, match="nowhere"):
        run_benchmark(
            tmp_path / "nowhere", models=("small",), presets=(), kinds=("soft",), count=8, seconds=9.0, log=said.append
        )
    # 10 figures of 9 s, and 45 s for the kind.
    assert "soft" in said[-1]
    assert "2 min" in said[-1]


def test_tables_compare_with_the_naive_way_and_name_the_slowest_stage():
    stages = [{"stage": name, "one_ms": 1, "photos_per_s": rate} for name, rate in (("decode", 50), ("network", 20))]
    shares = {"photos_per_s": 15, "of_slowest_stage": 0.75, "of_all_stages_in_turn": 1.05}
    network = {"input": "1 x 8 x 8", "engine": "openvino", "precision": "int8", "one_ms": 5, "photos_per_s": 9}
    figures = {
        "networks": [{"network": name, **network} for name in ("fast-int8", "other")],
        "wholes": [{"network": "fast", "kind": "mask", "stages": stages, **shares}],
        "naive_network_ms": {"fast": 100},
        "naive": {"fast": 0.5},
    }

    tables = make_tables(figures)

    assert all(len(row) == len(table.words) + len(table.numbers) for table in tables for row in table.rows)
    by_network, by_stage, wholes = (table.rows for table in tables)
    # An int8 network is compared with its own preset, and one without a preset with none.
    assert [(row[0], row[-1]) for row in by_network] == [("fast", "1"), ("fast-int8", "20.0"), ("other", "")]
    assert [cell.split(" ms, ")[1] for cell in by_stage[0][2:]] == ["50/s", "20/s"]
    assert wholes == [["fast", "mask", "network", "15.0", "75%", "105%", "7.5"]]
