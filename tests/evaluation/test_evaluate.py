"""Evaluation and report, end to end on generated pictures, with a segmenter whose masks can be worked out by hand."""

import base64
import csv
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from carmask.data.pairs import Pair, find_pairs
from carmask.data.split import Split
from carmask.errors import CarmaskError
from carmask.evaluation.cases import PANEL_PX, draw_cases
from carmask.evaluation.evaluate import EvaluationError, evaluate
from carmask.evaluation.report import CSV_COLUMNS, METRICS, Subject, write_report
from carmask.evaluation.results import AVERAGED, summarise
from carmask.evaluation.selection import Learnt, find_run, select_pairs, what_was_learnt
from carmask.imaging.decode import decode_photo
from carmask.imaging.draw import FALSE_NEGATIVE_RGB, FALSE_POSITIVE_RGB
from carmask.imaging.geometry import Geometry
from carmask.runtime.card import ModelCard

BRIGHT, DARK = 210, 40


class BrightnessSegmenter:
    """Takes what is bright for the object. Refuses any batch with a photo of `refused_HW`."""

    threshold = 0.6

    def __init__(self, refused_HW=None):
        self.refused_HW = refused_HW
        self.decoded = self.predicted = self.most_waiting = 0

    def decode(self, source):
        self.decoded += 1
        self.most_waiting = max(self.most_waiting, self.decoded - self.predicted)
        return decode_photo(source, channels=1)

    def predict_photos(self, photos):
        if any(photo.size_HW == self.refused_HW for photo in photos):
            raise CarmaskError("a photo is too odd for this network")
        self.predicted += len(photos)
        return [photo.image_HWC[..., 0].astype(np.float32) / 255 for photo in photos]

    def describe(self):
        return {"name": "brightness", "input": {"height_px": None}, "threshold": self.threshold}


def write_pair(folder, id_, truth_HW, bright_HW):
    """A photo whose bright pixels are `bright_HW`, and its true mask, in Carvana's layout."""
    for name in ("train", "train_masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    photo_HW3 = np.where(bright_HW[..., None], np.uint8(BRIGHT), np.uint8(DARK)).repeat(3, axis=2)
    Image.fromarray(photo_HW3).save(folder / "train" / f"{id_}.png")
    Image.fromarray(truth_HW.astype(np.uint8) * 255).save(folder / "train_masks" / f"{id_}_mask.gif")


@pytest.fixture
def folder(tmp_path):
    """Three cars of four views, every photo of its own size, with errors whose pixels are known."""
    rng = np.random.default_rng(5)
    for car in ("aa", "bb", "cc"):
        for view in range(1, 5):
            height, width = (int(side) for side in rng.integers(60, 110, 2))
            truth_HW = np.zeros((height, width), dtype=bool)
            truth_HW[10 : height - 12, 8 : width - 9] = True
            bright_HW = truth_HW.copy()
            bright_HW[10 : 10 + view, :] = False
            bright_HW[: 2 * view, : width // 2] = True
            write_pair(tmp_path / "cars", f"{car}_{view:02d}", truth_HW, bright_HW)
    return tmp_path / "cars"


def independent_dice(folder, id_):
    truth_HW = np.asarray(Image.open(folder / "train_masks" / f"{id_}_mask.gif").convert("L")) > 0
    bright_HW = np.asarray(Image.open(folder / "train" / f"{id_}.png").convert("L")) > 0.6 * 255
    return 2 * (truth_HW & bright_HW).sum() / (truth_HW.sum() + bright_HW.sum())


def test_every_photo_is_measured_at_its_own_size(folder):
    pairs = find_pairs(folder).pairs
    seen = []
    evaluation = evaluate(pairs, BrightnessSegmenter(), batch_size=5, progress=lambda *done: seen.append(done))
    assert [row.id for row in evaluation.rows] == [pair.id for pair in pairs]
    assert seen == [(5, 12), (10, 12), (12, 12)]
    assert not evaluation.failures
    for row in evaluation.rows:
        with Image.open(folder / "train" / f"{row.id}.png") as photo:
            assert row.size_HW == (photo.height, photo.width)
        assert row.metrics.dice == pytest.approx(independent_dice(folder, row.id), abs=1e-12)
    assert len({row.metrics.dice for row in evaluation.rows}) > 6


def test_figures_and_tables_are_of_the_rows(folder):
    evaluation = evaluate(find_pairs(folder).pairs, BrightnessSegmenter())
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
    assert set(METRICS) == set(AVERAGED) == set(evaluation.summary)


def test_summary_leaves_undefined_values_out_and_counts_them():
    values = np.array([*range(1, 101), math.nan, math.nan], dtype=float)
    up, down = summarise(values, more_is_better=True), summarise(values, more_is_better=False)
    assert (up.mean, up.median, up.worst, up.photos, up.undefined) == (50.5, 50.5, 1, 102, 2)
    assert down.worst == 100
    assert (values >= up.worst_5_percent).sum() == 95
    assert (values <= down.worst_5_percent).sum() == 95
    nothing = summarise(np.array([math.nan]), more_is_better=True)
    assert math.isnan(nothing.mean)
    assert nothing.undefined == 1


def test_photos_wait_in_memory_only_a_batch_ahead(folder):
    segmenter = BrightnessSegmenter()
    evaluate(find_pairs(folder).pairs, segmenter, batch_size=2)
    assert segmenter.decoded == segmenter.predicted == 12
    assert segmenter.most_waiting <= 4


def break_photos(folder):
    """Break four photos in four ways; returns the file to blame and a part of the cause, by id."""
    cut = folder / "train" / "aa_02.png"
    cut.write_bytes(cut.read_bytes()[:80])
    (folder / "train_masks" / "bb_01_mask.gif").write_bytes(b"")
    Image.new("1", (33, 44)).save(folder / "train_masks" / "bb_03_mask.gif")
    write_pair(folder, "cc_04", np.ones((20, 20), dtype=bool), np.ones((20, 20), dtype=bool))
    return {
        "aa_02": ("aa_02.png", "cut short"),
        "bb_01": ("bb_01_mask.gif", "empty"),
        "bb_03": ("bb_03_mask.gif", "44 x 33 px, its photo"),
        "cc_04": ("cc_04.png", "too odd"),
    }


def test_what_cannot_be_measured_is_named_and_the_rest_goes_on(folder):
    broken = break_photos(folder)
    evaluation = evaluate(find_pairs(folder).pairs, BrightnessSegmenter(refused_HW=(20, 20)), batch_size=4)
    assert {failure.id: failure.file for failure in evaluation.failures} == {id_: b[0] for id_, b in broken.items()}
    for failure in evaluation.failures:
        assert broken[failure.id][1] in failure.cause
        assert str(folder) not in failure.cause
    assert len(evaluation.rows) == 8
    for row in evaluation.rows:
        assert row.metrics.dice == pytest.approx(independent_dice(folder, row.id))


def test_how_masks_were_read_is_told(folder, tmp_path):
    odd_HW = np.zeros((30, 40), dtype=np.uint8)
    odd_HW[5:10], odd_HW[10:20] = 1, 2
    write_pair(folder, "dd_01", odd_HW > 0, odd_HW > 0)
    Image.fromarray(odd_HW).save(folder / "train_masks" / "dd_01_mask.gif")
    evaluation, path = make_report(folder, tmp_path / "out")
    assert list(evaluation.rules.values()) == [12, 1]
    assert [line.rpartition(": ")[2] for line in evaluation.mask_rules] == ["12", "1"]
    assert set(evaluation.odd) == {"dd_01"}
    assert evaluation.odd_warning.startswith("1 mask looks odd. dd_01: the values 0, 1, 2 look like class numbers")
    text = "".join(PageReader(path.read_text(encoding="utf-8")).text)
    assert evaluation.odd_warning in text
    assert all(line in text for line in evaluation.mask_rules)
    summary = json.loads((path.parent / "summary.json").read_text())
    assert (summary["mask_rules"], summary["odd_masks"]) == (evaluation.rules, evaluation.odd)
    chosen = evaluate(find_pairs(folder).pairs, BrightnessSegmenter(), foreground=1)
    assert (chosen.odd, chosen.odd_warning) == ({}, None)


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(EvaluationError, match="no photos"):
        evaluate([], BrightnessSegmenter())


class PageReader(HTMLParser):
    """Collects what a browser would fetch or run, and checks that every tag is closed."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, page):
        super().__init__()
        self.addresses, self.images, self.open_tags, self.tags, self.text, self.styles = [], {}, [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.addresses += [values[name] for name in ("src", "href", "srcset", "data", "action") if name in values]
        self.styles.append(values.get("style") or "")
        if tag == "img" and "src" in values:
            self.images[values["alt"]] = values["src"]
        if tag not in self.VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open_tags and self.open_tags[-1] == "style":
            self.styles.append(data)


def make_report(folder, out, *, worst=3, **subject):
    pairs = find_pairs(folder).pairs
    segmenter = BrightnessSegmenter()
    evaluation = evaluate(pairs, segmenter)
    cases = draw_cases(evaluation.worst(worst), {pair.id: pair for pair in pairs}, segmenter)
    described = Subject(folder.name, "brightness", "all", segmenter.describe(), {"machine": {"cores": 2}}, **subject)
    log = out.parent / "metrics.csv"
    log.write_text("epoch,lr,train_loss,dice,note\n1,0.1,0.9,0.5,x\n2,0.1,0.4,,y\n3,0.1,0.2,0.9,z\n")
    return evaluation, write_report(out, evaluation, described, cases=cases, training_log=log)


def test_the_page_needs_nothing_but_itself(folder, tmp_path):
    _, path = make_report(folder, tmp_path / "out")
    page = path.read_text(encoding="utf-8")
    reader = PageReader(page)
    assert reader.open_tags == []
    assert reader.addresses
    assert all(address.startswith(("data:image/", "#")) for address in reader.addresses)
    assert not re.search(r"https?:|@import|\bfetch\b|XMLHttpRequest", page)
    assert all(target.startswith("#") for style in reader.styles for target in re.findall(r"url\(['\"]?(.)", style))
    assert reader.tags.count("svg") == 7


def test_the_worst_photos_are_drawn_with_their_errors(folder, tmp_path):
    evaluation, path = make_report(folder, tmp_path / "out", worst=3)
    images = PageReader(path.read_text(encoding="utf-8")).images
    for row in evaluation.worst(3):
        pictures = {}
        for title in ("photo", "truth", "prediction", "error map", "worst spot, close up"):
            data = base64.b64decode(images[f"{row.id}: {title}"].split(",")[1])
            pictures[title] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
            assert max(pictures[title].shape[:2]) <= PANEL_PX
        bright_HW = np.asarray(Image.open(folder / "train" / f"{row.id}.png").convert("L")) > 150
        truth_HW = np.asarray(Image.open(folder / "train_masks" / f"{row.id}_mask.gif").convert("L")) > 0
        np.testing.assert_array_equal(pictures["truth"][..., 0] > 127, truth_HW)
        np.testing.assert_array_equal(pictures["prediction"][..., 0] > 127, bright_HW)
        for colour, where in ((FALSE_POSITIVE_RGB, bright_HW & ~truth_HW), (FALSE_NEGATIVE_RGB, truth_HW & ~bright_HW)):
            assert np.abs(pictures["error map"][where] - colour).mean() < 40, "JPEG changes colours a little, not more"
    assert len(images) == 15


def test_a_photo_gone_since_is_said_to_be(folder):
    pairs = {pair.id: pair for pair in find_pairs(folder).pairs}
    segmenter = BrightnessSegmenter()
    evaluation = evaluate(tuple(pairs.values()), segmenter)
    worst = evaluation.worst(2)
    (folder / "train" / f"{worst[0].id}.png").unlink()
    gone, drawn = draw_cases(worst, pairs, segmenter)
    assert not gone.panels
    assert gone.problem
    assert str(folder) not in gone.problem
    assert len(drawn.panels) == 5


def test_names_are_shown_as_text(folder, tmp_path):
    mask_HW = np.zeros((64, 64), dtype=bool)
    mask_HW[20:40, 20:40] = True
    write_pair(folder, "<script>alert($x$)&_01", mask_HW, ~mask_HW)
    _, path = make_report(folder, tmp_path / "out", warnings=("<b>careful</b>",))
    reader = PageReader(path.read_text(encoding="utf-8"))
    assert reader.tags.count("script") == 1
    assert "<b>careful</b>" in reader.text
    assert "1. <script>alert($x$)&_01" in reader.text


def test_csv_and_json_hold_the_figures(folder, tmp_path):
    break_photos(folder)
    empty_HW = np.zeros((40, 50), dtype=bool)
    write_pair(folder, "dd_01", empty_HW, ~empty_HW)
    evaluation, path = make_report(folder, tmp_path / "out", remarks=("said",))
    with (path.parent / "per_image.csv").open(newline="") as file:
        lines = {line["id"]: line for line in csv.DictReader(file)}
    assert tuple(lines["aa_01"]) == CSV_COLUMNS
    assert list(lines) == sorted(lines)
    assert len(lines) == 13
    for row in evaluation.rows:
        line = lines[row.id]
        assert float(line["dice"]) == pytest.approx(row.metrics.dice, abs=1e-6)
        assert (int(line["height_px"]), int(line["width_px"])) == row.size_HW
        assert (line["group"], line["view"], line["error"]) == (row.group, row.view, "")
    assert lines["dd_01"]["boundary_error_px"] == ""
    assert lines["aa_02"]["dice"] == ""
    assert lines["aa_02"]["error"].startswith("aa_02.png: ")

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    summary = json.loads((path.parent / "summary.json").read_text(), parse_constant=refuse)
    assert (summary["photos"], summary["failed"], summary["data"], summary["remarks"]) == (10, 3, "cars", ["said"])
    assert summary["figures"]["dice"]["mean"] == pytest.approx(evaluation.summary["dice"].mean)
    assert summary["figures"]["boundary_error_px"]["undefined"] == 1
    assert {row["name"]: row["boundary_error_px"] for row in summary["by_group"]}["dd"] is None


def test_a_report_can_be_written_when_nothing_could_be_measured(tmp_path):
    pair = Pair("x_01", tmp_path / "x_01.png", tmp_path / "x_01_mask.gif", "x", "01")
    evaluation = evaluate([pair], BrightnessSegmenter())
    page = write_report(tmp_path, evaluation, Subject("cars", "brightness", "all", {}, {}))
    assert "1 of 1 photos could not be measured" in page.read_text(encoding="utf-8")


def some_pairs(tmp_path, *ids):
    return [Pair(id_, tmp_path / id_, "", id_.split("_")[0], id_.split("_")[1]) for id_ in ids]


def some_split(train, validation):
    group_of = {id_: id_.split("_")[0] for id_ in (*train, *validation)}
    return Split(seed=0, train=train, validation=validation, group_of=group_of)


def test_held_out_photos_are_measured_where_the_run_says_which(tmp_path):
    pairs = some_pairs(tmp_path, "a_1", "a_2", "b_1", "c_1")
    run = some_split(("a_1", "a_2"), ("b_1", "gone_1"))
    selection = select_pairs(pairs, learnt=Learnt.from_split(run))
    assert [pair.id for pair in selection.pairs] == ["b_1"]
    assert selection.part == "validation"
    assert selection.remarks[0].startswith("Held out")
    assert selection.warnings == ("1 of the split's 2 validation photos are not in the data.",)


def test_photos_that_were_trained_on_are_warned_of(tmp_path):
    pairs = some_pairs(tmp_path, "a_1", "a_2", "a_3", "b_1", "c_1")
    run = some_split(("a_1", "a_2"), ("b_1",))
    everything = select_pairs(pairs, part="all", learnt=Learnt.from_split(run))
    assert len(everything.pairs) == 5
    assert everything.warnings == (
        "2 of 5 photos were trained on; these figures are not held-out.",
        "1 of 5 photos are of groups that were trained on; these figures are not held-out.",
    )
    assert not any(remark.startswith("Held out") for remark in everything.remarks)
    other_split = some_split(("b_1",), ("a_2", "c_1"))
    chosen = select_pairs(pairs, split=other_split, learnt=Learnt.from_split(run))
    assert [pair.id for pair in chosen.pairs] == ["a_2", "c_1"]
    assert chosen.warnings == ("1 of 2 photos were trained on; these figures are not held-out.",)


def test_a_split_of_other_photos_is_not_followed(tmp_path):
    pairs = some_pairs(tmp_path, "x_1", "y_1")
    run = some_split(("a_1",), ("b_1",))
    selection = select_pairs(pairs, learnt=Learnt.from_split(run))
    assert (len(selection.pairs), selection.part) == (2, "all")
    assert "held out: all are measured" in selection.remarks[0]
    with pytest.raises(EvaluationError, match="none of the 1 validation photos"):
        select_pairs(pairs, part="validation", learnt=Learnt.from_split(run))


def test_without_any_split_all_photos_are_measured_and_nothing_is_claimed(tmp_path):
    pairs = some_pairs(tmp_path, "x_1", "y_1")
    selection = select_pairs(pairs)
    assert (len(selection.pairs), selection.part, selection.warnings) == (2, "all", ())
    assert "not known" in selection.remarks[0]
    with pytest.raises(EvaluationError, match="--part all"):
        select_pairs(pairs, part="train")


def some_card(learnt=(), held_out=()):
    geometry = Geometry(height_px=64, width_px=96)
    known = {"learnt_groups": learnt, "held_out_groups": held_out}
    fixed = {"version": "1", "preset": None, "channels": 3, "stride_px": 8, "threshold": 0.5, "precision": "float32"}
    return ModelCard(name="x", geometry=geometry, **fixed, **known)


def test_an_exported_model_says_itself_what_it_held_out(tmp_path):
    learnt = what_was_learnt([(tmp_path / "m.onnx", some_card(("a", "b"), ("c", "gone")))])
    pairs = some_pairs(tmp_path, "a_1", "b_1", "c_1", "c_2", "new_1")
    selection = select_pairs(pairs, learnt=learnt)
    assert [pair.id for pair in selection.pairs] == ["c_1", "c_2"]
    assert selection.part == "validation"
    assert selection.warnings == ()
    assert "1 of the split's 2 validation groups are not in the data." in selection.remarks
    assert any(remark.startswith("Held out") for remark in selection.remarks)
    assert any("best epoch" in remark for remark in selection.remarks)
    trained = select_pairs(pairs, part="train", learnt=learnt)
    assert [pair.id for pair in trained.pairs] == ["a_1", "b_1"]
    everything = select_pairs(pairs, part="all", learnt=learnt)
    assert everything.warnings == ("2 of 5 photos are of groups that were trained on; these figures are not held-out.",)
    new = select_pairs(pairs[-1:], learnt=learnt)
    assert (new.part, len(new.pairs), new.warnings) == ("all", 1, ())
    assert not any("best epoch" in remark for remark in new.remarks)
    by_other_split = select_pairs(pairs, split=some_split(("c_1",), ("a_1",)), learnt=learnt)
    assert by_other_split.warnings[-1].startswith("1 of 1 photos are of groups that were trained on")


def test_several_models_have_held_out_what_none_has_learnt_from(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    some_split(("a_1",), ("b_1", "c_1")).save(run / "split.json")
    card, place = some_card(("b",), ("a", "c")), tmp_path / "m.onnx"
    together = what_was_learnt([(run, some_card()), (place, card)])
    assert together.train_groups == {"a", "b"}
    assert together.validation_groups == {"c"}
    pairs = some_pairs(tmp_path, "a_1", "b_1", "c_1")
    assert [pair.id for pair in select_pairs(pairs, learnt=together).pairs] == ["c_1"]
    assert what_was_learnt([(place, card), (place, some_card())]) is None
    assert what_was_learnt([(run, some_card())]) == Learnt.from_split(some_split(("a_1",), ("b_1", "c_1")))


def test_a_run_is_known_by_its_settings_and_split(tmp_path):
    run = tmp_path / "runs" / "one"
    (run / "weights" / "best").mkdir(parents=True)
    (tmp_path / "split.json").touch()
    assert find_run(run) is None, "a split.json in the working folder is not a run's"
    (run / "split.json").touch()
    (run / "config.yaml").touch()
    assert find_run(run) == find_run(run / "weights" / "best") == run


def test_the_command_measures_a_real_network(folder, tmp_path, capsys):
    pytest.importorskip("torch")
    from carmask.cli.evaluate import evaluate_command
    from carmask.cli.network import NetworkOptions
    from carmask.models.network import Network, NetworkConfig
    from carmask.models.unet import UNetConfig

    run = tmp_path / "runs" / "tiny"
    unet = UNetConfig(in_channels=1, widths=(4, 8))
    network = Network(NetworkConfig(name="tiny", unet=unet, geometry=Geometry(height_px=32, width_px=32)))
    network.save_pretrained(run / "weights" / "best")
    (run / "config.yaml").touch()
    ids = [pair.id for pair in find_pairs(folder).pairs]
    some_split(tuple(ids[:8]), tuple(ids[8:])).save(run / "split.json")

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
