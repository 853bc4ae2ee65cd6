"""`carmask predict` from photos to results."""

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bright_onnx import write_bright_onnx
from bright_photos import SIZE_HW, Command, files, mask_of, overlap, save, vehicle
from carmask.files import UnwritableFile
from carmask.imaging.draw import OVERLAY_RGB
from carmask.pipeline.photo_list import PhotoFailure
from carmask.pipeline.summary import FailureList

NOTHING_HW = np.zeros(SIZE_HW, dtype=bool)


def test_masks_show_the_vehicle_where_it_is(predict: Command) -> None:
    photo = save("car.png")
    for kind in ("mask", "soft", "overlay", "compare"):
        assert predict("car.png", f"{kind}.png", "--kind", kind) == 0
    assert overlap(mask_of("mask.png"), vehicle()) > 0.97
    with Image.open("soft.png") as soft:
        assert soft.mode == "L"
        np.testing.assert_array_equal(np.asarray(soft) >= 128, mask_of("mask.png"))
        assert len(np.unique(np.asarray(soft))) > 2
    with Image.open("overlay.png") as overlay:
        drawn_HWC = np.asarray(overlay).astype(int)
    assert drawn_HWC.shape == (*SIZE_HW, 3)
    tinted_HW = drawn_HWC[..., 2] > drawn_HWC[..., 0]  # photos here are gray, and the tint is blue
    assert OVERLAY_RGB[2] > OVERLAY_RGB[0]
    assert overlap(tinted_HW, mask_of("mask.png")) > 0.9
    with Image.open("compare.png") as compare:
        both_HWC = np.asarray(compare)
    np.testing.assert_array_equal(both_HWC[: SIZE_HW[0]], np.asarray(Image.open(photo)))
    np.testing.assert_array_equal(both_HWC[-SIZE_HW[0] :, :, 0] > 0, mask_of("mask.png"))


def test_cut_outs_are_transparent_colored_or_cropped(predict: Command) -> None:
    save("car.png")
    save("empty.png", NOTHING_HW)
    assert predict("car.png", "cut.png", "-k", "cutout") == 0
    with Image.open("cut.png") as cut:
        assert cut.mode == "RGBA"
        alpha_HW = np.asarray(cut)[..., 3]
        assert overlap(alpha_HW >= 128, vehicle()) > 0.97
        np.testing.assert_array_equal(
            np.asarray(cut)[50:70, 90:120, :3], np.asarray(Image.open("car.png"))[50:70, 90:120]
        )
    assert predict("car.png", "cut.webp", "-k", "cutout", "--background", "red", "--crop") == 0
    with Image.open("cut.webp") as cut:
        height, width = SIZE_HW
        assert (cut.format, cut.mode) == ("WEBP", "RGB")
        assert abs(cut.height - height / 2) <= 4
        assert abs(cut.width - width / 2) <= 4
    # No vehicle is no cut-out of something else: nothing but the background, at the photo's size.
    assert predict("empty.png", "none.png", "-k", "cutout", "--crop") == 0
    with Image.open("none.png") as cut:
        assert cut.size == SIZE_HW[::-1]
        assert not np.asarray(cut)[..., 3].any()


def test_the_tree_is_mirrored_and_each_result_has_its_photo_s_size(predict: Command) -> None:
    shown = {"a": (50, 70), "sub/b": (33, 200), "sub/deep/c": (300, 41), "d": (64, 90), "other/a": (20, 30)}
    save("photos/a.JPG", vehicle(shown["a"]), quality=95)
    save("photos/sub/b.png", vehicle(shown["sub/b"]))
    save("photos/sub/deep/c.webp", vehicle(shown["sub/deep/c"]))
    save("photos/other/a.bmp", vehicle(shown["other/a"]))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    save("photos/d.jpg", np.rot90(vehicle(shown["d"])), quality=95, exif=exif)
    save("photos/.hidden.png")
    Path("photos/notes.txt").write_text("no photo")
    assert predict("photos", "out", "--batch-size", "2") == 0
    assert files("out") == {f"{name}.png" for name in shown}
    for name, size_HW in shown.items():
        assert overlap(mask_of(f"out/{name}.png"), vehicle(size_HW)) > 0.9, name
    assert predict.written == (5, 5)
    assert predict.err == ""


def test_an_empty_scene_has_an_empty_mask_and_is_listed_so_that_it_can_be_tried_again(predict: Command) -> None:
    save("photos/car.png")
    names = [f"empty{number:02}" for number in range(12)]
    for name in names:
        save(f"photos/{name}.png", NOTHING_HW)
    assert predict("photos", "out") == 0
    assert f"no vehicle found: {Path('photos', 'empty00.png')}\n" in predict.out
    assert predict.out.count("no vehicle found") == 10
    assert "out/no_vehicle.txt" in predict.out
    assert "car.png" not in predict.out
    np.testing.assert_array_equal(mask_of("out/empty00.png"), NOTHING_HW)
    # A lower threshold finds something everywhere.
    assert predict("out/no_vehicle.txt", "again", "--threshold", "0.001") == 0
    assert files("again") == {f"{name}.png" for name in names}
    assert mask_of("again/empty00.png").all()
    # What was done before is still known to be empty.
    assert predict("photos", "out") == 0
    assert predict.done_before == (13, 13)
    assert len(Path("out/no_vehicle.txt").read_text().splitlines()) == 1 + 12


def test_a_list_holds_names_that_would_be_comments_or_lose_a_space(predict: Command) -> None:
    for name in ("#a.png", " b.png", "c d.png"):
        save(name, NOTHING_HW)
    assert predict(".", "out") == 0
    assert f"listed in {Path('out', 'no_vehicle.txt')}" in predict.out
    assert predict("out/no_vehicle.txt", "again") == 0
    assert files("again") == {"#a.png", " b.png", "c d.png", "no_vehicle.txt"}


def test_failures_are_listed_and_the_list_goes_when_all_is_well(predict: Command) -> None:
    save("photos/a.png")
    save("photos/z.png")
    broken = Path("photos/sub/broken.jpg")
    broken.parent.mkdir()
    broken.write_bytes(b"no picture")
    assert predict("photos", "out") == 2
    assert files("out") == {"a.png", "z.png", "failures.csv"}
    with Path("out/failures.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["photo"] == str(broken)
    assert f"{broken}: {row['cause']}" in predict.out
    assert predict.written == (2, 3)

    save("photos/sub/broken.jpg")
    assert predict("photos", "out") == 0
    assert predict.done_before == (2, 3)
    assert files("out") == {"a.png", "z.png", "sub/broken.png"}


def test_a_failures_csv_of_somebody_else_is_never_touched(predict: Command) -> None:
    save("photos/a.png")
    theirs = Path("out/failures.csv")
    theirs.parent.mkdir()
    theirs.write_text("date,machine\n")
    assert predict("photos", "out") == 0
    assert theirs.read_text() == "date,machine\n"

    Path("photos/broken.jpg").write_bytes(b"no picture")
    assert predict("photos", "out") == 1
    assert "failures.csv" in predict.err
    assert theirs.read_text() == "date,machine\n"
    assert files("out") == {"a.png", "failures.csv"}


def test_a_list_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder", tmp_path / "file" / "failures.csv"):
        with pytest.raises(UnwritableFile, match=path.name), FailureList(path) as failures:
            failures.add(PhotoFailure(Path("a.jpg"), "broken"))
    with FailureList(tmp_path / "folder"):
        pass
    assert (tmp_path / "folder").is_dir()


def test_one_photo_that_fails_is_printed_and_nothing_is_written(predict: Command) -> None:
    Path("broken.jpg").write_bytes(b"no picture")
    Path("failures.csv").write_text("photo,cause\nmine,and dear to me\n")
    before = files(".")
    for destination in ("result.png", ".", "new"):
        assert predict("broken.jpg", destination) == 2
        assert "broken.jpg: " in predict.out
        assert files(".") == before
    assert predict(save("car.png"), "cut.png") == 0
    assert predict(save("car.png"), "cut.png", "-k", "soft") == 0, "one result is simply replaced"
    assert files(".") == {*before, "car.png", "cut.png"}


def test_parts_of_a_mask_that_are_too_small_are_dropped(predict: Command) -> None:
    mask_HW = vehicle()
    mask_HW[4:14, 4:14] = True
    save("car.png", mask_HW)
    for options, corner in (
        ((), True), (("--vehicles", "largest"), False), (("--min-area", "50"), True), (("--min-area", "300px"), False),
        (("--min-area", "0.1%"), True), (("--min-area", "5%"), False),
    ):  # fmt: skip
        assert predict("car.png", "mask.png", *options) == 0
        assert mask_of("mask.png")[8, 8] == corner, options
        assert mask_of("mask.png")[60, 90]
    predict.assert_refused("car.png", "mask.png", "--vehicles", "nearest", naming=("--vehicles", "largest", "center"))
    predict.assert_refused("car.png", "mask.png", "--min-area", "5%%", naming=("--min-area 5%%", "0.5%"))
    predict.assert_refused("car.png", "mask.png", "--min-area", "101%", naming=("--min-area 101%",))


def test_one_vehicle_of_a_car_park(predict: Command) -> None:
    height, width = SIZE_HW
    places = {"largest": np.s_[8:48, 8:78], "center": np.s_[66:86, 70:100], "behind": np.s_[100:110, 120:170]}
    park_HW = NOTHING_HW.copy()
    for place in places.values():
        park_HW[place] = True
    park_HW[height // 2 - 6 : height // 2, width // 2 + 16 : width // 2 + 22] = True  # a reflection on the ground
    save("park.png", park_HW)
    assert predict("park.png", "plain.png") == 0
    for vehicles, kept in (("all", set(places)), ("largest", {"largest"}), ("center", {"center"})):
        assert predict("park.png", "mask.png", "--vehicles", vehicles) == 0
        mask_HW = mask_of("mask.png")
        assert {name for name, place in places.items() if mask_HW[place].any()} == kept
        assert all(mask_HW[places[name]].mean() > 0.8 for name in kept)
        assert (Path("mask.png").read_bytes() == Path("plain.png").read_bytes()) == (vehicles == "all")


def test_lines_for_machines(predict: Command) -> None:
    save("photos/a.png")
    save("photos/empty.png", NOTHING_HW)
    Path("photos/broken.jpg").write_bytes(b"no picture")
    assert predict("photos", "out", "--json") == 2
    *photos, last = map(json.loads, predict.out.splitlines())
    car, broken, empty = photos
    assert (car["photo"], car["result"], car["found"]) == ("photos/a.png", "out/a.png", True)
    rows, columns = np.flatnonzero(mask_of("out/a.png").any(axis=1)), np.flatnonzero(mask_of("out/a.png").any(axis=0))
    assert car["box_px"] == [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
    assert car["coverage"] == pytest.approx(mask_of("out/a.png").mean(), abs=1e-6)
    assert car["seconds"] > 0
    assert broken["photo"] == "photos/broken.jpg"
    assert "broken.jpg" in broken["error"]
    assert (empty["found"], empty["box_px"], empty["coverage"]) == (False, None, 0)
    counts = {"photos": 3, "done": 2, "done_before": 0, "failed": 1, "without_vehicle": 1}
    assert last == {"summary": {**counts, "left_out": {}, "destination": "out"}}
    assert "bright" in predict.err


def test_several_networks_are_averaged(predict: Command) -> None:
    save("car.png")
    wary = write_bright_onnx(Path("wary.onnx"), name="wary", slope=0.0)  # one half everywhere
    assert predict("car.png", "one.png", "-k", "soft") == 0
    assert predict("car.png", "both.png", "-k", "soft", "-m", str(wary)) == 0
    with Image.open("one.png") as one, Image.open("both.png") as both:
        mean_HW = (np.asarray(one).astype(float) + 127.5) / 2
        np.testing.assert_allclose(np.asarray(both), mean_HW, atol=1)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_holds_at_least_one_photo(predict: Command, size: int) -> None:
    save("photos/a.png")
    predict.assert_refused("photos", "out", f"--batch-size={size}", naming=(f'"{size}" for --batch-size', ">= 1"))
    assert not Path("out").exists()


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_odd_names_are_printed_so_that_they_do_no_harm(predict: Command) -> None:
    nothing_HW = np.zeros((8, 8), dtype=bool)
    names = [b"not-\xff-text.png", b"\x1b[31mred.png", b"two\nlines.png", b"[red]no markup[/red].png", b"[/].png"]
    for name in names:
        save(Path("photos [bold]", os.fsdecode(name)), nothing_HW)
    assert predict("photos [bold]", "out [/]") == 0
    for shown in ("not-\\udcff-text.png", "\\x1b[31mred.png", "two\\nlines.png", "[red]no markup[/red].png"):
        assert f"no vehicle found: photos [bold]/{shown}\n" in predict.out
    assert predict.written == (5, 5)
    assert "\x1b" not in predict.out
    predict.out.encode()
    assert predict("photos [bold]", "out [/]") == 0
    assert predict.done_before == (5, 5)

    Path(os.fsdecode(b"\x1b[31m\xff.png")).write_bytes(b"no picture")
    assert predict(os.fsdecode(b"\x1b[31m\xff.png"), "out") == 2
    assert "\\x1b[31m\\udcff.png: " in predict.out
    predict.assert_refused(os.fsdecode(b"\x1b[31m[red]\xff"), "out", naming=("\\x1b[31m[red]\\udcff: ",))


@pytest.mark.skipif(os.name != "posix", reason="needs folders deeper than a path can be long")
def test_a_folder_that_cannot_be_listed_is_named_and_the_rest_goes_on(predict: Command) -> None:
    save("photos/a.png")
    save("photos/z/b.png")
    # Unlike one without permissions, such a folder is closed to root too.
    above = os.open("photos", os.O_RDONLY)
    for _ in range(20):
        os.mkdir("m" * 250, dir_fd=above)
        below = os.open("m" * 250, os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    os.close(above)
    assert predict("photos", "out") == 2
    assert files("out") == {"a.png", "z/b.png", "failures.csv"}
    with Path("out/failures.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["photo"].startswith(str(Path("photos", "m" * 250)))
    assert "cannot be listed" in row["cause"]
    assert row["cause"] in predict.out


def test_bars_are_drawn_on_standard_error(predict: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    save("photos/a.png")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert predict("photos", "out") == 0
    assert "cutting out" in predict.err
    assert "img/s" in predict.err
    assert "cutting out" not in predict.out
    assert predict.written == (1, 1)


def test_standard_streams_may_be_closed(predict: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    save("photos/a.png")
    monkeypatch.setattr(sys, "stdin", None)
    predict.assert_refused("-", "out", naming=("standard input",))
    monkeypatch.setattr(sys, "stdout", None)
    assert predict("photos", "out") == 0
    assert files("out") == {"a.png"}


def test_what_is_left_out_of_a_photo_is_said(predict: Command) -> None:
    first, second = (Image.fromarray(vehicle().astype(np.uint8) * 175 + 40).convert("RGB") for _ in range(2))
    second.putpixel((0, 0), (255, 0, 0))
    Path("photos").mkdir()
    for name in ("a.gif", "b.webp", "c.tif", "d.png"):
        first.save(f"photos/{name}", save_all=True, append_images=[second, first])
    for name in ("e.gif", "f.webp", "g.tif", "h.png", "i.jpg"):
        first.save(f"photos/{name}")
    assert predict("photos", "out", "--json") == 0
    rows = [json.loads(line) for line in predict.out.splitlines()]
    remarked = {Path(row["photo"]).name for row in rows if "first" in row.get("remark", "")}
    assert remarked == {"a.gif", "b.webp", "c.tif", "d.png"}
    assert predict("photos", "again") == 0
    assert "a.gif and 3 more: " in predict.out

    alpha_HW = np.where(vehicle(), 100, 255).astype(np.uint8)
    first.putalpha(Image.fromarray(alpha_HW))
    first.save("clear.png")
    assert predict("clear.png", "cut.png", "-k", "cutout") == 0
    assert "transparent" in predict.out
    with Image.open("cut.png") as cut:
        assert (np.asarray(cut)[..., 3] <= alpha_HW).all()
