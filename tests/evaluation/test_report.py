"""What is written about an evaluation: the page, the table of photos and the summary."""

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from bright_cars import BrightnessSegmenter, add_empty, break_photos, leave_unknown, write_pair
from PIL import Image

from carmask.data.pairs import Pair, find_pairs
from carmask.evaluation.evaluate import evaluate_selection
from carmask.evaluation.page import PANEL_PX
from carmask.evaluation.report import CSV_COLUMNS, draw_worst, write_report
from carmask.evaluation.results import Subject
from carmask.evaluation.selection import Selection
from carmask.imaging.draw import FALSE_NEGATIVE_RGB, FALSE_POSITIVE_RGB, UNKNOWN_RGB


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


def make_report(folder, out, *, worst=3, remarks=(), warnings=()):
    selection = Selection(find_pairs(folder).pairs, "all", remarks, warnings)
    segmenter = BrightnessSegmenter()
    evaluation = evaluate_selection(selection, segmenter)
    cases = draw_worst(evaluation, selection, segmenter, worst)
    described = Subject(folder.name, "brightness", segmenter.describe(), {"machine": {"cores": 2}})
    log = out.parent / "metrics.csv"
    log.write_text("epoch,lr,train_loss,dice,note\n1,0.1,0.9,0.5,x\n2,0.1,0.4,,y\n3,0.1,0.2,0.9,z\n")
    return evaluation, write_report(out, evaluation, described, cases=cases, training_log=log)


def test_the_report_says_how_masks_were_read(folder, tmp_path):
    odd_HW = np.zeros((30, 40), dtype=np.uint8)
    odd_HW[5:10], odd_HW[10:20] = 1, 2
    write_pair(folder, "dd_01", odd_HW > 0, odd_HW > 0)
    Image.fromarray(odd_HW).save(folder / "train_masks" / "dd_01_mask.gif")
    evaluation, path = make_report(folder, tmp_path / "out")
    assert list(evaluation.rules.values()) == [12, 1]
    assert [line.rpartition(": ")[2] for line in evaluation.mask_rules] == ["12", "1"]
    assert set(evaluation.odd) == {"dd_01"}
    assert "dd_01" in evaluation.odd_warning
    text = "".join(PageReader(path.read_text(encoding="utf-8")).text)
    assert evaluation.odd_warning in text
    assert all(line in text for line in evaluation.mask_rules)
    summary = json.loads((path.parent / "summary.json").read_text())
    assert (summary["mask_rules"], summary["odd_masks"]) == (evaluation.rules, evaluation.odd)
    chosen = evaluate_selection(Selection(find_pairs(folder, foreground=1).pairs), BrightnessSegmenter())
    assert (chosen.odd, chosen.odd_warning) == ({}, None)


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
        for color, where in ((FALSE_POSITIVE_RGB, bright_HW & ~truth_HW), (FALSE_NEGATIVE_RGB, truth_HW & ~bright_HW)):
            assert np.abs(pictures["error map"][where] - color).mean() < 40, "JPEG changes colors a little, not more"
    assert len(images) == 15


def test_a_photo_deleted_since_is_shown_without_pictures(folder):
    selection = Selection(find_pairs(folder).pairs, "all")
    segmenter = BrightnessSegmenter()
    evaluation = evaluate_selection(selection, segmenter)
    (folder / "train" / f"{evaluation.worst(1)[0].id}.png").unlink()
    gone, drawn = draw_worst(evaluation, selection, segmenter, 2)
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
    full_HW = np.ones((40, 50), dtype=bool)
    write_pair(folder, "dd_01", full_HW, ~full_HW)
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
    evaluation = evaluate_selection(Selection((pair,)), BrightnessSegmenter())
    page = write_report(tmp_path, evaluation, Subject("cars", "brightness", {}, {}))
    assert "x_01.png" in "".join(PageReader(page.read_text(encoding="utf-8")).text)


def text_of(path):
    return "".join(PageReader(path.read_text(encoding="utf-8")).text)


def test_photos_without_a_vehicle_are_reported_apart(folder, tmp_path):
    plain = json.loads((make_report(folder, tmp_path / "plain")[1].parent / "summary.json").read_text())
    assert (plain["no_vehicle"], plain["unknown"]) == (None, None)
    assert len(plain["figures"]) == 7
    bright_HW = add_empty(folder)
    evaluation, path = make_report(folder, tmp_path / "out", worst=2)
    summary = json.loads((path.parent / "summary.json").read_text())
    assert summary["figures"] == plain["figures"]
    assert (summary["by_group"], summary["by_view"]) == (plain["by_group"], plain["by_view"])
    assert summary["photos"] == 15
    found = summary["no_vehicle"]
    assert (found["photos"], found["empty"]) == (3, 2)
    with (path.parent / "per_image.csv").open(newline="") as file:
        lines = {line["id"]: line for line in csv.DictReader(file)}
    assert float(lines["no_02"]["predicted_area"]) == pytest.approx(bright_HW.mean(), abs=1e-6)
    text = text_of(path)
    assert evaluation.facts
    assert all(part in text for fact in evaluation.facts for part in fact)
    images = PageReader(path.read_text(encoding="utf-8")).images
    # The two worst cars, and the photo whose mask is not empty.
    shown = {name.split(":")[0] for name in images}
    assert shown == {row.id for row in evaluation.worst(2)} > {"no_02"}
    assert len(shown) == 3


def test_a_report_of_nothing_but_photos_without_a_vehicle(folder, tmp_path):
    add_empty(folder)
    for file in (*folder.glob("train/??_??.png"), *folder.glob("train_masks/??_??_mask.gif")):
        if not file.name.startswith("no"):
            file.unlink()
    evaluation, path = make_report(folder, tmp_path / "out")
    summary = json.loads((path.parent / "summary.json").read_text())
    assert (summary["photos"], summary["no_vehicle"]["photos"]) == (3, 3)
    assert summary["figures"]["dice"]["mean"] is None
    assert all(text in text_of(path) for _, text in evaluation.facts)


def test_unknown_pixels_are_hatched_and_no_errors(folder, tmp_path):
    known_HW = leave_unknown(folder, "aa_01")
    selection = Selection(tuple(pair for pair in find_pairs(folder, ignore=7).pairs if pair.id == "aa_01"))
    segmenter = BrightnessSegmenter()
    evaluation = evaluate_selection(selection, segmenter)
    (case,) = draw_worst(evaluation, selection, segmenter, 1)

    def drawn(title):
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(case.panels[title].split(",")[1]))).convert("RGB"))

    hatched_HW = (drawn("truth") == UNKNOWN_RGB).all(axis=2)
    assert hatched_HW[~known_HW].any()
    assert not hatched_HW[known_HW].any()
    error_map_HWC = drawn("error map").astype(int)
    for color in (FALSE_POSITIVE_RGB, FALSE_NEGATIVE_RGB):
        assert not (np.abs(error_map_HWC - color).max(axis=2) < 60)[~known_HW].any()

    page = write_report(tmp_path / "out", evaluation, Subject("cars", "brightness", {}, {}), cases=[case])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["unknown"] == {"photos": 1, "area": pytest.approx(1 - known_HW.mean())}
    (row,) = evaluation.rows
    assert summary["figures"]["found"]["mean"] == row.metrics.recall
    assert summary["figures"]["spilled"]["mean"] == row.metrics.spilled
    assert all(part in text_of(page) for fact in evaluation.facts for part in fact)
    with (tmp_path / "out" / "per_image.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert float(line["spilled"]) == pytest.approx(row.metrics.spilled, abs=1e-6)
    assert float(line["unknown_area"]) == pytest.approx(1 - known_HW.mean(), abs=1e-6)
