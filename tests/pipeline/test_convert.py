"""Masks that are there already, as other kinds, and the check of a submission."""

import csv
import gzip
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bright_photos import Command, contents, files, mask_of, overlap, save, vehicle
from carmask.evaluation.metrics import dice
from carmask.imaging.rle import decode_carvana


def test_the_challenge_s_own_table_and_back(carvana: Path, convert: Command) -> None:
    """A few cars of the real table, byte for byte; its masks are its GIFs."""
    table = (carvana / "train_masks.csv").read_bytes().splitlines(keepends=True)
    chosen = [table[0], *table[1::53]]
    names = [line.split(b",")[0].decode() for line in chosen[1:]]
    Path("masks.txt").write_text(
        "".join(f"{carvana / 'train_masks' / name.replace('.jpg', '_mask.gif')}\n" for name in names)
    )
    assert convert("masks.txt", "out.csv") == 0
    assert Path("out.csv").read_bytes() == b"".join(chosen)
    assert convert("out.csv", "masks", "--photos", carvana / "train") == 0
    assert files("masks") == {name.replace(".jpg", ".png") for name in names}
    for name in names:
        with Image.open(carvana / "train_masks" / name.replace(".jpg", "_mask.gif")) as gif:
            np.testing.assert_array_equal(mask_of(Path("masks", name).with_suffix(".png")), np.asarray(gif) > 0)


@pytest.fixture
def pairs(tmp_path: Path) -> None:
    """In `data`, photos of several kinds in folders, with their masks, each named in its own way."""
    data = tmp_path / "data"
    for number, (photo, mask) in enumerate(
        (
            ("a.jpg", "a_mask.gif"),
            ("b.png", "b.png"),
            ("sub/c.jpeg", "sub/c_mask.png"),
            ("sub/d_mask.jpg", "sub/d_mask.bmp"),
        )
    ):
        mask_HW = np.roll(vehicle((40 + number, 60)), number, axis=1)
        save(data / "photos" / photo, mask_HW)
        path = data / "masks" / mask
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask_HW).save(path)


@pytest.mark.usefixtures("pairs")
def test_masks_are_named_by_their_photos(convert: Command) -> None:
    assert convert("data/masks", "out.csv", "--photos", "data/photos") == 0
    with Path("out.csv").open(newline="") as stream:
        names = [row[0] for row in csv.reader(stream)]
    assert names == ["img", "a.jpg", "b.png", "c.jpeg", "d_mask.jpg"]
    assert convert("data/masks", "plain", "-k", "mask") == 0
    assert files("plain") == {"a.png", "b.png", "sub/c.png", "sub/d.png"}
    assert convert("out.csv", "back", "--photos", "data/photos") == 0
    assert files("back") == {"a.png", "b.png", "sub/c.png", "sub/d_mask.png"}
    for name in ("a", "b", "sub/c"):
        np.testing.assert_array_equal(mask_of(f"back/{name}.png"), mask_of(f"plain/{name}.png"))
    assert convert("data/masks", "overlays", "-k", "overlay", "--photos", "data/photos", "-f", "webp") == 0
    assert files("overlays") == {"a.webp", "b.webp", "sub/c.webp", "sub/d_mask.webp"}
    assert convert("data/masks/a_mask.gif", "one.png") == 0
    np.testing.assert_array_equal(mask_of("one.png"), mask_of("plain/a.png"))
    # Nothing is done twice here either, and a mask that changed is done again.
    Image.fromarray(np.ones((40, 60), dtype=bool)).save("data/masks/b.png")
    assert convert("data/masks", "plain", "-k", "mask") == 0
    assert convert.done_before == (3, 4)
    assert mask_of("plain/b.png").all()


def test_what_predict_made_below_is_converted_and_measured(predict: Command, convert: Command, submit: Command) -> None:
    for day in ("day1", "day2"):
        save(f"photos/{day}/{day}.jpg")
        assert predict(f"photos/{day}", f"masks/{day}") == 0
    predict.assert_refused("masks", "again", naming=("masks/day1, masks/day2",))
    for source in ("masks", "masks/*"):
        assert convert(source, "all.csv", "--photos", "photos", "--overwrite") == 0
        assert len(Path("all.csv").read_bytes().splitlines()) == 3
    assert submit("all.csv", "--check", "photos", "--truth", "masks") == 0
    assert "1.000000 over 2 photos" in submit.out


@pytest.mark.usefixtures("pairs")
def test_masks_without_a_photo_or_with_another_s_are_failures(convert: Command) -> None:
    Image.fromarray(vehicle()).save("data/masks/gone_mask.png")
    Image.fromarray(vehicle()).save("data/masks/b_mask.png")
    save("data/photos/a.bmp")
    assert convert("data/masks", "out", "--photos", "data/photos") == 2
    assert files("out") == {"b.png", "sub/c.png", "sub/d_mask.png", "failures.csv"}
    for part in (
        "gone_mask.png: ",
        "b_mask.png: data/masks/b.png ",
        "a_mask.gif: 2 photos ",
        "a.bmp, a.jpg",
    ):
        assert part in convert.out
    Path("data/photos/a.bmp").unlink()
    assert convert("data/masks", "overlays", "-k", "overlay", "--photos", "data/photos", "--overwrite") == 2
    save("data/photos/a.jpg", vehicle((60, 60)))
    assert convert("data/masks/a_mask.gif", "a.png", "-k", "compare", "--photos", "data/photos") == 2
    assert "data/masks/a_mask.gif: " in convert.out


def test_masks_half_as_large_fit_their_photos(convert: Command, submit: Command) -> None:
    save("photos/a.png", vehicle((80, 120)))
    Path("masks").mkdir()
    Image.fromarray(vehicle((80, 120))[::2, ::2]).save("masks/a.png")
    assert convert("masks", "table.csv", "--photos", "photos") == 0
    assert overlap(decode_carvana(Path("table.csv").read_text().split(",")[-1], (80, 120)), vehicle((80, 120))) > 0.9
    assert convert("masks", "out", "--photos", "photos", "-k", "cutout") == 0
    assert Image.open("out/a.png").size == (120, 80)
    assert submit("table.csv", "--check", "photos", "--truth", "masks") == 0
    Image.fromarray(vehicle((40, 40))).save("masks/a.png")
    assert convert("masks", "other.csv", "--photos", "photos") == 2


def test_a_submission_s_names_must_be_exact_but_similar_ones_are_named(submit: Command) -> None:
    save("photos/caf\u00e9.png")
    Path("table.csv").write_text("img,rle_mask\ncafe\u0301.png,1 1\n", encoding="utf-8")
    assert submit("table.csv", "--check", "photos") == 1
    assert "'caf\u00e9.png'" in submit.out


@pytest.mark.usefixtures("pairs")
def test_what_cannot_be_converted_is_refused(convert: Command) -> None:
    Path("table.csv").write_text("img,rle_mask\r\na.jpg,1 3\r\n")
    Path("other.csv").write_text("a,b\n1,2\n")
    before = files(".")
    convert.assert_refused("table.csv", "out", naming=("table.csv", "--photos"))
    convert.assert_refused(
        "table.csv", "out", "--photos", "data/photos", "--foreground", 1, naming=("table.csv", "--foreground")
    )
    convert.assert_refused("other.csv", "out", "--photos", "data/photos", naming=("other.csv", "img,rle_mask"))
    convert.assert_refused("data/masks", "out", "-k", "overlay", naming=("overlay", "--photos"))
    convert.assert_refused("data/masks", "data/masks", naming=("data/masks",))
    convert.assert_refused("nowhere", "out", naming=("nowhere",))
    assert files(".") == before
    assert not Path("out").exists()


def test_photos_of_one_name_are_chosen_with_the_option_that_the_error_names(convert: Command) -> None:
    for photo in ("photos/a/car.jpg", "photos/b/car.jpg", "photos/b/car.png"):
        save(photo)
    save("masks/b/car.png", vehicle())
    assert convert("masks/b/car.png", "table.csv") == 0
    assert convert("masks/b", "coco.json", "-k", "coco") == 0
    for masks, photos in (("table.csv", "photos"), ("coco.json", "photos"), ("masks/b", "photos/b")):
        convert.assert_refused(masks, "out", "--photos", photos, naming=(masks, "car.jpg", "--photos"))
    for number, (masks, photos) in enumerate(
        (("table.csv", "photos/a"), ("coco.json", "photos/a"), ("masks/b", "photos/b/car.jpg"))
    ):
        assert convert(masks, f"out{number}", "--photos", photos) == 0
        assert overlap(mask_of(Path(f"out{number}/car.png")), vehicle()) > 0.99


@pytest.mark.usefixtures("pairs")
def test_rows_that_cannot_be_used_are_failures(convert: Command) -> None:
    rows = ["a.jpg,1 3", "x.jpg,1 3", "b.png,1 2 3", "c.jpeg,1 99999", "a.jpg,5 1", "d_mask.jpg", "d_mask.jpg,2 1"]
    Path("table.csv").write_text("\n".join(["img,rle_mask", *rows]))
    assert convert("table.csv", "out", "--photos", "data/photos") == 2
    assert files("out") == {"a.png", "sub/d_mask.png", "failures.csv"}
    for part in (
        "table.csv, line 3: ",
        "table.csv, row of b.png: ",
        "table.csv, row of c.jpeg: the run '1 99999' ",
        "table.csv, line 6: a.jpg: ",
        "table.csv, line 7: ",
    ):
        assert part in convert.out
    assert mask_of("out/sub/d_mask.png").sum() == 1


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("compressed", [False, True])
def test_a_submission_that_is_right_has_no_problems(convert: Command, submit: Command, compressed: bool) -> None:
    name = f"out.csv{'.gz' * compressed}"
    assert convert("data/masks", name, "--photos", "data/photos") == 0
    assert submit(name, "--check", "data/photos") == 0
    assert "4 in data/photos" in submit.out
    assert "none" in submit.out
    for truth in ("data/masks", name):
        assert submit(name, "--check", "data/photos", "--truth", truth) == 0
        assert "1.000000 over 4 photos" in submit.out


@pytest.mark.usefixtures("pairs")
def test_every_problem_of_a_submission_is_counted(submit: Command) -> None:
    rows = ["b.png,1 2 3", "b.png,", "x.jpg,1 3", "c.jpeg,1 99999", "a.jpg,", "d_mask.jpg,1 1,2"]
    Path("table.csv").write_text("\n".join(["img,rle_mask", *rows]))
    assert submit("table.csv", "--check", "data/photos") == 1
    for part in (
        "table.csv, line 2: b.png: ",
        "table.csv, line 3: b.png: ",
        "table.csv, line 4: ",
        "table.csv, line 5: c.jpeg: the run '1 99999' ",
        "table.csv, line 7: ",
        "data/photos/sub/d_mask.jpg: ",
        "6, 1 of them without a vehicle",
        "runs that do not fit the photo: 2",
        "photos without a row: 1",
    ):
        assert part in submit.out, part
    Path("table.csv").write_text("img;rle_mask\n")
    submit.assert_refused("table.csv", "--check", "data/photos", naming=("table.csv", "img,rle_mask"))
    Path("table.csv.gz").write_bytes(gzip.compress(b"img,rle_mask\r\na.jpg,1 3\r\n" * 99)[:-20])
    submit.assert_refused("table.csv.gz", "--check", "data/photos", naming=("table.csv.gz",))
    submit.assert_refused("gone.csv", "--check", "data/photos", naming=("gone.csv",))


@pytest.mark.usefixtures("pairs")
def test_the_mean_dice_is_that_of_the_masks(submit: Command) -> None:
    draw = random.Random(0)
    expected = []
    rows = ["img,rle_mask"]
    for photo, mask in (("a.jpg", "a_mask.gif"), ("b.png", "b.png"), ("c.jpeg", "sub/c_mask.png")):
        start, length = draw.randrange(1, 1000), draw.randrange(1, 1000)
        rows.append(f"{photo},{start} {length}")
        with Image.open(Path("data/masks", mask)) as image:
            truth_HW = np.asarray(image) > 0
        guess = np.zeros(truth_HW.size, dtype=bool)
        guess[start - 1 : start - 1 + length] = True
        expected.append(dice(truth_HW, guess.reshape(truth_HW.shape)))
    rows.append("d_mask.jpg,")
    Path("table.csv").write_text("\n".join(rows))
    Path("data/masks/sub/d_mask.bmp").unlink()
    assert submit("table.csv", "--check", "data/photos", "--truth", "data/masks") == 0
    assert f"{sum(expected) / 3:.6f} over 3 photos; worst {min(expected):.4f}" in submit.out


@pytest.mark.usefixtures("pairs")
def test_true_masks_of_no_use_are_named_and_left_out(submit: Command) -> None:
    """A table of the truth is read as `convert` reads it: names stripped, the first of two rows, others named."""
    Path("table.csv").write_text("img,rle_mask\na.jpg,1 10\nb.png,1 10\nc.jpeg,1 10\nd_mask.jpg,1 10\n")
    rows = [" a.jpg,1 10", "a.jpg,90 1", "b.png", "b.png,1 10,9", "x.jpg,1 3", "c.jpeg,1 99999", "d_mask.jpg,1 30"]
    Path("truth.csv").write_text("\n".join(["img,rle_mask", *rows]))
    assert submit("table.csv", "--check", "data/photos", "--truth", "truth.csv") == 0
    for part in (
        "truth.csv, line 3: a.jpg: ",
        "truth.csv, line 4: ",
        "truth.csv, line 5: ",
        "truth.csv, line 6: ",
        "truth.csv, row of c.jpeg: the run '1 99999' ",
        "5 left out",
        "0.750000 over 2 photos; worst 0.5000, sub/d_mask.jpg",
    ):
        assert part in submit.out, part
    Image.fromarray(vehicle((40, 61))).save("data/masks/b.png")
    assert submit("table.csv", "--check", "data/photos", "--truth", "data/masks") == 0
    assert "data/masks/b.png: " in submit.out
    assert "over 3 photos" in submit.out


def test_many_problems_are_counted_and_the_first_are_named(submit: Command) -> None:
    for number in range(60):
        save(f"photos/{number:02}.png", np.zeros((4, 5), dtype=bool))
    Path("table.csv").write_text("img,rle_mask\n")
    assert submit("table.csv", "--check", "photos") == 1
    assert submit.out.count("photos/") == 20
    assert "... and 40 more" in submit.out
    assert "photos without a row: 60" in submit.out
    assert contents(".").keys() == {"table.csv", *(f"photos/{number:02}.png" for number in range(60))}
