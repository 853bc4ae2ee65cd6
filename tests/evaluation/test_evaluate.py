"""Evaluation end to end on generated pictures, with a segmenter whose masks can be worked out by hand."""

import json
import math
import time

import numpy as np
import pytest
from bright_cars import BrightnessSegmenter, add_empty, break_photos, leave_unknown
from PIL import Image

from carmask.data.pairs import find_pairs
from carmask.data.split import Split
from carmask.evaluation.evaluate import evaluate_selection
from carmask.evaluation.metric_labels import METRICS
from carmask.evaluation.results import EvaluationError
from carmask.evaluation.selection import Selection
from carmask.evaluation.summaries import summarize
from carmask.imaging.geometry import Geometry
from noise_pairs import run


def independent_dice(folder, id_):
    truth_HW = np.asarray(Image.open(folder / "train_masks" / f"{id_}_mask.gif").convert("L")) > 0
    bright_HW = np.asarray(Image.open(folder / "train" / f"{id_}.png").convert("L")) > 0.6 * 255
    return 2 * (truth_HW & bright_HW).sum() / (truth_HW.sum() + bright_HW.sum())


def test_every_photo_is_measured_at_its_own_size(folder):
    pairs = find_pairs(folder).pairs
    seen = []
    evaluation = evaluate_selection(
        Selection(pairs), BrightnessSegmenter(), batch_size=5, progress=lambda *done: seen.append(done)
    )
    assert [row.id for row in evaluation.rows] == [pair.id for pair in pairs]
    assert seen == [(done, 12) for done in range(1, 13)]
    assert not evaluation.failures
    for row in evaluation.rows:
        with Image.open(folder / "train" / f"{row.id}.png") as photo:
            assert row.size_HW == (photo.height, photo.width)
        assert row.metrics.dice == pytest.approx(independent_dice(folder, row.id), abs=1e-12)
    assert len({row.metrics.dice for row in evaluation.rows}) > 6


def test_summary_and_tables_are_of_the_rows(folder):
    evaluation = evaluate_selection(Selection(find_pairs(folder).pairs), BrightnessSegmenter())
    dice = {row.id: row.metrics.dice for row in evaluation.rows}
    figures = evaluation.summary["dice"]
    assert figures.mean == pytest.approx(math.fsum(dice.values()) / 12)
    assert (figures.worst, figures.photos, figures.undefined) == (min(dice.values()), 12, 0)
    assert evaluation.summary["boundary_error_px"].worst == max(r.metrics.boundary_error_px for r in evaluation.rows)
    assert {row.name: row.photos for row in evaluation.by_group} == {"aa": 4, "bb": 4, "cc": 4}
    third = next(row for row in evaluation.by_view if row.name == "03")
    assert third.dice == pytest.approx(np.mean([dice["aa_03"], dice["bb_03"], dice["cc_03"]]))
    assert third.worst_dice == min(dice["aa_03"], dice["bb_03"], dice["cc_03"])
    assert [row.id for row in evaluation.worst(3)] == sorted(dice, key=dice.get)[:3]
    assert set(METRICS) == set(evaluation.summary)


def test_summary_leaves_undefined_values_out_and_counts_them():
    values = np.array([*range(1, 101), math.nan, math.nan], dtype=float)
    up, down = summarize(values, more_is_better=True), summarize(values, more_is_better=False)
    assert (up.mean, up.median, up.worst, up.photos, up.undefined) == (50.5, 50.5, 1, 102, 2)
    assert down.worst == 100
    assert (values >= up.worst_5_percent).sum() == 95
    assert (values <= down.worst_5_percent).sum() == 95
    nothing = summarize(np.array([math.nan]), more_is_better=True)
    assert math.isnan(nothing.mean)
    assert nothing.undefined == 1


def test_few_photos_wait_in_memory(folder, monkeypatch):
    class SlowSegmenter(BrightnessSegmenter):
        def infer(self, photos, *, pad_to):
            time.sleep(0.02)  # so that decoding gets ahead as far as it may
            return super().infer(photos, pad_to=pad_to)

    workers = 2
    monkeypatch.setattr("carmask.runner.default_workers", lambda: workers)
    segmenter = SlowSegmenter()
    evaluate_selection(Selection(find_pairs(folder).pairs), segmenter, batch_size=1)
    assert segmenter.decoded == segmenter.predicted == 12
    assert segmenter.most_waiting <= workers + 3


def test_what_cannot_be_measured_is_named_and_the_rest_goes_on(folder):
    broken = break_photos(folder)
    evaluation = evaluate_selection(
        Selection(find_pairs(folder).pairs), BrightnessSegmenter(refused_HW=(20, 20)), batch_size=4
    )
    assert {failure.id: failure.file for failure in evaluation.failures} == broken
    for failure in evaluation.failures:
        assert failure.cause
        assert str(folder) not in failure.cause
    assert len(evaluation.rows) == 8
    for row in evaluation.rows:
        assert row.metrics.dice == pytest.approx(independent_dice(folder, row.id))


def test_labels_that_cannot_be_drawn_are_named_without_their_folder(folder):
    image = {"id": 1, "file_name": "aa_01.png"}
    only_a_box = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    document = {"images": [image], "annotations": [only_a_box], "categories": [{"id": 1, "name": "car"}]}
    (folder / "train" / "cars.json").write_text(json.dumps(document))
    evaluation = evaluate_selection(Selection(find_pairs(folder / "train").pairs), BrightnessSegmenter())
    ((cause, file),) = [(failure.cause, failure.file) for failure in evaluation.failures]
    assert file == "aa_01.png"
    assert "cars.json" in cause
    assert str(folder) not in cause


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(EvaluationError):
        evaluate_selection(Selection(()), BrightnessSegmenter())


def test_the_command_measures_a_real_network(folder, tmp_path, capsys):
    pytest.importorskip("torch")
    from carmask.cli.evaluate import evaluate_command
    from carmask.cli.options import NetworkOptions
    from carmask.models import ModelCard, Network, UNetConfig

    run = tmp_path / "runs" / "tiny"
    unet = UNetConfig(in_channels=1, widths=(4, 8))
    network = Network(ModelCard(name="tiny", unet=unet, geometry=Geometry(height_px=32, width_px=32)))
    network.save_pretrained(run / "weights" / "best")
    (run / "config.yaml").touch()
    ids = [pair.id for pair in find_pairs(folder).pairs]
    group_of = {id_: id_.split("_")[0] for id_ in ids}
    Split(seed=0, train=tuple(ids[:8]), validation=tuple(ids[8:]), group_of=group_of).save(run / "split.json")

    assert evaluate_command(folder, network=NetworkOptions((str(run),)), worst=2) == 0
    out = run / "evaluation" / "cars-validation"
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["photos"], summary["part"], summary["model_name"]) == (4, "validation", "tiny")
    assert str(tmp_path) not in (out / "report.html").read_text() + json.dumps(summary)
    said = capsys.readouterr()
    assert said.out.rstrip().endswith(str(out / "report.html"))
    assert "Held out" in said.err

    (folder / "train" / f"{ids[0]}.png").write_bytes(b"no picture")
    assert evaluate_command(folder, network=NetworkOptions((str(run),)), part="all", worst=0, out=tmp_path / "all") == 2
    said = capsys.readouterr()
    assert "8 of 12 photos were trained on" in said.err
    assert f"{ids[0]}.png" in said.out
    assert (tmp_path / "all" / "report.html").is_file()


def test_photos_without_a_vehicle_are_not_in_the_means(folder):
    of_cars = evaluate_selection(Selection(find_pairs(folder).pairs), BrightnessSegmenter())
    bright_HW = add_empty(folder)
    evaluation = evaluate_selection(Selection(find_pairs(folder).pairs), BrightnessSegmenter())
    assert len(evaluation.rows) == 15
    assert (evaluation.summary, evaluation.by_group) == (of_cars.summary, of_cars.by_group)
    assert of_cars.no_vehicle is None
    found = evaluation.no_vehicle
    assert (found.photos, found.empty) == (3, 2), "one pixel of 3,000 is less than 0.1 %"
    assert found.share_empty == pytest.approx(2 / 3)
    assert [row.metrics.dice for row in evaluation.rows[-3:]] == [1, 1, 0]
    assert found.false_area == pytest.approx((0 + 1 / 3000 + bright_HW.mean()) / 3)
    assert [row.id for row in evaluation.worst(2)[2:]] == ["no_02"]


def test_unknown_pixels_are_not_measured(folder):
    known_HW = leave_unknown(folder, "bb_02")
    pairs = find_pairs(folder, ignore=7).pairs
    evaluation = evaluate_selection(Selection(pairs), BrightnessSegmenter())
    row = next(row for row in evaluation.rows if row.id == "bb_02")
    truth_HW = np.asarray(Image.open(folder / "train_masks" / "bb_02_mask.png")) == 1
    bright_HW = np.asarray(Image.open(folder / "train" / "bb_02.png").convert("L")) > 0.6 * 255
    assert (bright_HW & ~known_HW).any()
    bright_HW &= known_HW
    both = (truth_HW & bright_HW).sum()
    assert row.metrics.dice == pytest.approx(2 * both / (truth_HW.sum() + bright_HW.sum()))
    assert row.metrics.found == pytest.approx(both / truth_HW.sum())
    assert row.metrics.spilled == pytest.approx((bright_HW & ~truth_HW).sum() / truth_HW.sum())
    assert evaluation.unknown.photos == 1
    assert evaluation.unknown.area == pytest.approx(1 - known_HW.mean())
    assert {"found", "spilled"} <= evaluation.summary.keys()


def test_the_command_measures_photos_without_masks(folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    from carmask.models import ModelCard, Network, UNetConfig

    unet = UNetConfig(in_channels=1, widths=(4, 8))
    card = ModelCard(name="tiny", unet=unet, geometry=Geometry(height_px=32, width_px=32))
    Network(card).save_pretrained(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    command = ("evaluate", str(folder / "train"), "--model", "tiny", "--worst", "1", "--out", "out")
    assert run(capsys, *command)[0] == 1, "there are no masks"
    status, out, _ = run(capsys, *command, "--empty")
    assert status == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["no_vehicle"]["photos"] == 12
    assert f"{summary['no_vehicle']['false_area']:.3%}" in out
    leave_unknown(folder, "aa_02")
    status, out, _ = run(capsys, "evaluate", str(folder), "--model", "tiny", "--ignore", "7", "--out", "out")
    assert status == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["unknown"]["photos"] == 1
    assert f"{summary['figures']['spilled']['mean']:.4f}" in out
