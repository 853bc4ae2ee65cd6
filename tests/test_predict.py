"""`carmask predict` from photos to results, with a network that takes for a vehicle what is bright."""

import csv
import os
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bright_network import bright_is_vehicle
from carmask.ahead import in_batches
from carmask.cli import main
from carmask.files import UnwritableFile
from carmask.imaging.decode import UnreadableImage, decode_photo
from carmask.imaging.draw import OVERLAY_RGB
from carmask.pipeline.jobs import Failure, find_jobs, write_failures

DARK, BRIGHT = 40, 215
SIZE_HW = (120, 180)


class Predict:
    """Runs the command, and keeps what it printed and its exit status."""

    def __init__(self, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.model = model
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, source: object, destination: object, *options: str) -> int:
        with pytest.raises(SystemExit) as exit_:
            main(["predict", str(source), str(destination), "-m", str(self.model), "--device", "cpu", *options])
        self.out, self.err = self.capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code

    def assert_refused(self, source: object, destination: object, *parts: str) -> None:
        assert self(source, destination) == 1
        assert self.err.startswith("error: ")
        assert self.out == ""
        for part in parts:
            assert part in self.err


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bright_is_vehicle(tmp_path_factory.mktemp("bright"), channels=3)


@pytest.fixture
def predict(
    model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Predict:
    monkeypatch.chdir(tmp_path)
    return Predict(model, capsys)


def vehicle(size_HW: tuple[int, int] = SIZE_HW) -> NDArray[np.bool_]:
    mask_HW = np.zeros(size_HW, dtype=bool)
    mask_HW[size_HW[0] // 4 : size_HW[0] * 3 // 4, size_HW[1] // 3 : size_HW[1] * 5 // 6] = True
    return mask_HW


def save(path: Path | str, mask_HW: NDArray[np.bool_] | None = None, **options: object) -> Path:
    """Save a photo in which the mask is bright."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    mask_HW = vehicle() if mask_HW is None else mask_HW
    image_HWC = np.where(mask_HW[..., None], np.uint8(BRIGHT), np.uint8(DARK)).repeat(3, axis=2)
    Image.fromarray(image_HWC).save(path, **options)
    return path


def files(folder: Path | str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if not path.is_dir()}


def overlap(one_HW: NDArray[np.bool_], other_HW: NDArray[np.bool_]) -> float:
    assert one_HW.shape == other_HW.shape
    return float((one_HW & other_HW).sum() / (one_HW | other_HW).sum())


def test_every_kind_shows_the_vehicle_where_it_is(predict: Predict) -> None:
    save("car.png")
    for kind in ("mask", "soft", "cutout", "overlay", "compare"):
        assert predict("car.png", f"{kind}.png", "--kind", kind) == 0
    with Image.open("mask.png") as mask, Image.open("soft.png") as soft, Image.open("cutout.png") as cutout:
        assert (mask.mode, soft.mode, cutout.mode) == ("1", "L", "RGBA")
        assert overlap(np.asarray(mask), vehicle()) > 0.97
        assert overlap(np.asarray(soft) >= 128, vehicle()) > 0.97
        assert len(np.unique(np.asarray(soft))) > 2
        np.testing.assert_array_equal(np.asarray(cutout)[..., 3], np.asarray(soft))
        np.testing.assert_array_equal(np.asarray(cutout)[..., :3], np.asarray(Image.open("car.png")))
        mask_HW = np.asarray(mask)
    with Image.open("overlay.png") as overlay:
        drawn_HWC = np.asarray(overlay).astype(int)
    assert drawn_HWC.shape == (*SIZE_HW, 3)
    tinted_HW = drawn_HWC[..., 2] > drawn_HWC[..., 0]  # photos here are grey, and the tint is blue
    assert OVERLAY_RGB[2] > OVERLAY_RGB[0]
    assert overlap(tinted_HW, mask_HW) > 0.9
    with Image.open("compare.png") as compare:
        both_HWC = np.asarray(compare)
    np.testing.assert_array_equal(both_HWC[: SIZE_HW[0]], np.asarray(Image.open("car.png")))
    np.testing.assert_array_equal(both_HWC[-SIZE_HW[0] :, :, 0] > 0, mask_HW)


def test_the_tree_is_mirrored_and_each_result_has_its_photo_s_size(predict: Predict) -> None:
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
        with Image.open(f"out/{name}.png") as result:
            assert overlap(np.asarray(result), vehicle(size_HW)) > 0.9, name
    assert "5 of 5 photos written to out" in predict.out
    assert predict.err == ""


def test_an_empty_scene_has_an_empty_mask_and_is_named(predict: Predict) -> None:
    nothing_HW = np.zeros(SIZE_HW, dtype=bool)
    save("photos/car.png")
    for number in range(12):
        save(f"photos/empty{number:02}.png", nothing_HW)
    assert predict("photos", "out") == 0
    assert f"no vehicle found: {Path('photos', 'empty00.png')}\n" in predict.out
    assert predict.out.count("no vehicle found") == 10
    assert "... and 2 more" in predict.out
    assert "car.png" not in predict.out
    with Image.open("out/empty00.png") as result:
        np.testing.assert_array_equal(np.asarray(result), nothing_HW)


def test_failures_are_listed_and_the_list_goes_when_all_is_well(predict: Predict) -> None:
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
    assert row["cause"] in predict.out
    assert "2 of 3 photos written" in predict.out

    save("photos/sub/broken.jpg")
    assert predict("photos", "out") == 0
    assert files("out") == {"a.png", "z.png", "sub/broken.png"}


def test_a_failures_csv_of_somebody_else_is_never_touched(predict: Predict) -> None:
    save("photos/a.png")
    theirs = Path("out/failures.csv")
    theirs.parent.mkdir()
    theirs.write_text("date,machine\n")
    assert predict("photos", "out") == 0
    assert theirs.read_text() == "date,machine\n"

    Path("photos/broken.jpg").write_bytes(b"no picture")
    assert predict("photos", "out") == 1
    assert "failures.csv" in predict.err
    assert "broken.jpg" in predict.out
    assert theirs.read_text() == "date,machine\n"
    assert files("out") == {"a.png", "failures.csv"}


def test_a_list_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    failures = [Failure(Path("a.jpg"), "broken")]
    for path in (tmp_path / "folder", tmp_path / "file" / "failures.csv"):
        with pytest.raises(UnwritableFile, match=path.name):
            write_failures(path, failures)
    write_failures(tmp_path / "folder", [])
    assert (tmp_path / "folder").is_dir()


def test_one_photo_that_fails_is_printed_and_nothing_is_written(predict: Predict) -> None:
    Path("broken.jpg").write_bytes(b"no picture")
    Path("failures.csv").write_text("photo,cause\nmine,and dear to me\n")
    before = files(".")
    for destination in ("result.png", ".", "new"):
        assert predict("broken.jpg", destination) == 2
        assert "broken.jpg: " in predict.out
        assert files(".") == before
    assert predict(save("car.png"), "cut.png") == 0
    assert files(".") == {*before, "car.png", "cut.png"}


@pytest.mark.parametrize("destination", [".", "car.png", "../{here}/car.png", "link", "link/car.png"])
def test_a_photo_is_never_overwritten_by_its_result(predict: Predict, tmp_path: Path, destination: str) -> None:
    save("car.png")
    Path("link").symlink_to(".")
    before = Path("car.png").read_bytes()
    predict.assert_refused("car.png", destination.format(here=tmp_path.name), "car.png", "overwrite")
    assert Path("car.png").read_bytes() == before
    assert files(".") == {"car.png"}


def test_no_photo_is_overwritten_by_the_result_of_another(predict: Predict) -> None:
    save("originals/a.png")
    Path("photos").mkdir()
    Path("photos/a.png").symlink_to("../originals/a.png")
    save("photos/b.png")
    before = Path("originals/a.png").read_bytes()
    predict.assert_refused("photos", "originals", "a.png", "overwrite")
    assert Path("originals/a.png").read_bytes() == before
    # The results of `cars` go to where photos of `cars/cars` lie.
    save("cars/a.jpg")
    save("cars/cars/cars/a.png")
    save("cars/cars/a.png")
    predict.assert_refused("cars/cars", "cars", str(Path("cars/cars/a.png")), "overwrite")


def test_results_may_go_above_the_photos_or_among_them_but_not_to_the_same_place(predict: Predict) -> None:
    save("photos/a.jpg")
    save("photos/sub/b.jpg")
    assert predict("photos", ".") == 0
    assert files(".") == {"photos/a.jpg", "photos/sub/b.jpg", "a.png", "sub/b.png"}

    for _ in range(2):  # the second time results of the first lie among the photos
        assert predict("photos", "photos/sub/masks") == 0
        assert files("photos") == {"a.jpg", "sub/b.jpg", "sub/masks/a.png", "sub/masks/sub/b.png"}

    Path("same").symlink_to("photos")
    before = files(".")
    for destination in ("photos", "photos/sub/..", "same"):
        predict.assert_refused("photos", destination, "photos itself", "another")
    assert files(".") == before


def test_photos_whose_results_would_clash_take_their_whole_names(predict: Predict) -> None:
    sizes = {"a.jpg": (20, 30), "a.png": (21, 30), "a.jpg.png": (22, 30), "b.jpg": (23, 30)}
    for name, size_HW in sizes.items():
        save(f"photos/{name}", vehicle(size_HW))
    assert predict("photos", "out") == 0
    results = {"a.jpg": "a.jpg.png", "a.png": "a.png.png", "a.jpg.png": "a.jpg.png.png", "b.jpg": "b.png"}
    assert files("out") == set(results.values())
    for name, result in results.items():
        with Image.open(f"out/{result}") as image:
            assert image.size[::-1] == sizes[name]


SUFFIXES = [".png", ".jpg", ".PNG"]
NAMES = ["".join(parts) for count in (1, 2, 3) for parts in product(*[["a", "b"], *[SUFFIXES] * count])]


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from(NAMES), min_size=1, max_size=12))
def test_no_two_photos_have_one_result(names: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, destination = Path(folder, "photos"), Path(folder, "out")
        source.mkdir()
        for name in names:
            (source / name).touch()
        jobs, _ = find_jobs(source, destination)
        assert {job.photo for job in jobs} == set(source.iterdir())
        results = [job.result.name for job in jobs]
        assert len(set(results)) == len(jobs)
        assert all(job.result.name in (f"{job.photo.stem}.png", f"{job.photo.name}.png") for job in jobs)
        stems = [job.photo.stem for job in jobs]
        wholes = {job.photo.name for job in jobs}
        for job in jobs:
            if stems.count(job.photo.stem) == 1 and job.photo.stem not in wholes:
                assert job.result.name == f"{job.photo.stem}.png"
        assert find_jobs(source, destination)[0] == jobs


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_holds_at_least_one_photo(predict: Predict, size: int) -> None:
    save("photos/a.png")
    assert predict("photos", "out", f"--batch-size={size}") == 1
    assert f"--batch-size {size}" in predict.err
    assert not Path("out").exists()
    with pytest.raises(ValueError, match="at least one"):
        in_batches([1, 2, 3], size)


def test_results_are_png_and_go_into_folders(predict: Predict) -> None:
    save("photos/a.jpg")
    Path("file").touch()
    before = files(".")
    for destination in ("out.jpg", "out.JPEG", "file"):
        predict.assert_refused("photos/a.jpg", destination, destination, "results are PNG")
    for destination in ("out.png", "out.jpg", "file"):
        predict.assert_refused("photos", destination, destination, "name a folder")
    for destination in ("file/out", "x" * 300):
        predict.assert_refused("photos", destination, destination, "cannot be used")
    assert files(".") == before
    Path("folder.jpg").mkdir()
    assert predict("photos/a.jpg", "folder.jpg") == 0
    assert predict("photos/a.jpg", "out.PNG") == 0
    assert files(".") == {*before, "folder.jpg/a.png", "out.PNG"}


def test_a_picture_with_too_many_pixels_comes_with_advice_that_can_be_followed(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"car\.png: it declares .* megapixels.*; reduce the picture first"):
        decode_photo(save(tmp_path / "car.png"), max_pixels=1000)


def test_what_is_not_there_is_refused(predict: Predict) -> None:
    Path("none").mkdir()
    Path("none/notes.txt").touch()
    predict.assert_refused("nowhere", "out", "nowhere", "does not exist")
    predict.assert_refused("none", "out", "none", "no photo", ".jpg")
    predict.assert_refused("x" * 300, "out", "cannot be opened")
    assert not Path("out").exists()


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_odd_names_are_printed_so_that_they_do_no_harm(predict: Predict) -> None:
    nothing_HW = np.zeros((8, 8), dtype=bool)
    names = [b"not-\xff-text.png", b"\x1b[31mred.png", b"two\nlines.png", b"[red]no markup[/red].png", b"[/].png"]
    for name in names:
        save(Path("photos [bold]", os.fsdecode(name)), nothing_HW)
    assert predict("photos [bold]", "out [/]") == 0
    for shown in ("not-\\udcff-text.png", "\\x1b[31mred.png", "two\\nlines.png", "[red]no markup[/red].png"):
        assert f"no vehicle found: photos [bold]/{shown}\n" in predict.out
    assert "5 of 5 photos written to out [/]\n" in predict.out
    assert "\x1b" not in predict.out
    predict.out.encode()

    Path(os.fsdecode(b"\x1b[31m\xff.png")).write_bytes(b"no picture")
    assert predict(os.fsdecode(b"\x1b[31m\xff.png"), "out") == 2
    assert "\\x1b[31m\\udcff.png: " in predict.out
    predict.assert_refused(os.fsdecode(b"\x1b[31m[red]\xff"), "out", "\\x1b[31m[red]\\udcff: does not exist")


@pytest.mark.skipif(os.name != "posix", reason="needs folders deeper than a path can be long")
def test_a_folder_that_cannot_be_listed_is_named_and_the_rest_goes_on(predict: Predict) -> None:
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


def test_bars_are_drawn_on_standard_error(predict: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    save("photos/a.png")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert predict("photos", "out") == 0
    assert "cutting out" in predict.err
    assert "cutting out" not in predict.out
    assert "photo written" in predict.out
