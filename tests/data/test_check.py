import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carmask.data.check import CheckReport, check_dataset, measure_areas
from carmask.data.contact_sheet import contact_sheet
from carmask.data.pairs import find_pairs
from carmask.data.split import Split
from carmask.imaging.draw import UNKNOWN_RGB
from noise_pairs import cut, make_pair, run, save_mask


def found(report: CheckReport) -> set[tuple[str, str]]:
    return {(problem.subject, problem.kind) for problem in report.problems}


def write_split(path: Path, train: list[str], validation: list[str], group_of: dict[str, str] | None = None) -> Path:
    group_of = group_of or {id_: id_ for id_ in train + validation}
    Split(seed=0, train=tuple(train), validation=tuple(validation), group_of=group_of).save(path)
    return path


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """Make one pair of every fault, and two sound ones."""
    root = tmp_path / "faulty"
    for number, stem in enumerate(
        ("sound", "cut-photo", "cut-mask", "empty-photo", "text", "size", "turned", "empty", "faint", "full", "classes")
    ):
        make_pair(root, stem, seed=number)
    cut(root / "images" / "cut-photo.jpg", 2)
    cut(root / "masks" / "cut-mask.png", 40)
    (root / "images" / "empty-photo.jpg").write_bytes(b"")
    (root / "images" / "text.jpg").write_text("not a picture")
    save_mask(root, "size", np.full((60, 90), 255, dtype=np.uint8))
    save_mask(root, "turned", np.pad(np.full((160, 100), 255, dtype=np.uint8), ((0, 0), (0, 20))))
    save_mask(root, "empty", np.zeros((120, 160), dtype=np.uint8))
    save_mask(root, "faint", np.tile(np.array([0, 50, 100, 120], dtype=np.uint8), (120, 40)))
    save_mask(root, "full", np.full((120, 160), 255, dtype=np.uint8))
    save_mask(root, "classes", np.tile(np.array([0, 1, 2, 3], dtype=np.uint8), (120, 40)))
    make_pair(root, "no-mask")
    (root / "masks" / "no-mask.png").unlink()
    make_pair(root, "no-photo")
    (root / "images" / "no-photo.jpg").unlink()
    make_pair(root, "copy [of] sound", seed=0)
    return root


def test_a_photo_of_which_nothing_is_known_is_unreadable(tmp_path: Path) -> None:
    ring = [0, 0, 30, 0, 30, 20, 0, 20]
    shapes = [{"image_id": number, "category_id": number, "segmentation": [ring]} for number in range(2)]
    images = []
    for number, width in enumerate((60, 30)):
        Image.new("RGB", (width, 20)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 20, "width": width})
    classes = [{"id": 0, "name": "car"}, {"id": 1, "name": "blurred"}]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": shapes, "categories": classes}))
    report = check_dataset(find_pairs(tmp_path, labels="car", ignore_labels="blurred"))
    assert found(report) == {("1", "unreadable")}
    assert report.area_of == {"0": 0.5}


FAULTS = {
    ("cut-photo (cut-photo.jpg)", "unreadable"),
    ("cut-mask (cut-mask.png)", "unreadable"),
    ("empty-photo (empty-photo.jpg)", "unreadable"),
    ("text (text.jpg)", "unreadable"),
    ("size", "size mismatch"),
    ("size", "full mask"),
    ("turned", "size mismatch"),
    ("empty", "empty mask"),
    ("faint", "empty mask"),
    ("full", "full mask"),
    ("classes", "empty mask"),
    ("classes", "odd mask values"),
    ("images/no-mask.jpg", "missing mask"),
    ("masks/no-photo.png", "missing image"),
    ("copy [of] sound", "duplicate picture"),
}


def test_every_fault_is_found_in_one_run(faulty: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = check_dataset(find_pairs(faulty), progress=lambda done, total: calls.append((done, total)))
    assert found(report) == FAULTS
    assert calls == [(number, 12) for number in range(1, 13)]
    details = {(problem.subject, problem.kind): problem.detail for problem in report.problems}
    assert "sound" in details["copy [of] sound", "duplicate picture"]
    assert all(size in details["size", "size mismatch"] for size in ("120 x 160", "60 x 90"))
    assert "--foreground" in details["classes", "odd mask values"]
    assert report.area_of["sound"] == 0.25
    assert report.sizes == {(120, 160): 9}
    assert sum(report.rules.values()) == 11
    assert report.doubtful["classes"] == "empty mask, odd mask values"
    assert report.doubtful.keys() == {pair.id for pair in report.dataset.pairs}  # sound is doubtful for its copy


def test_foreground_resolves_class_numbers(faulty: Path) -> None:
    (faulty / "masks").rename(faulty / "all-masks")
    (faulty / "masks").mkdir()
    shutil.copy(faulty / "all-masks" / "classes.png", faulty / "masks")
    report = check_dataset(find_pairs(faulty, foreground=2))
    assert not any(problem.kind in ("odd mask values", "empty mask") for problem in report.problems)
    assert report.area_of == {"classes": 0.25}


def test_a_sound_data_set_has_no_problem(tmp_path: Path) -> None:
    for number in range(6):
        make_pair(tmp_path, f"photo{number}", seed=number)
    report = check_dataset(find_pairs(tmp_path))
    assert report.problems == ()
    assert report.doubtful == {}


@pytest.mark.parametrize("bytes_off", [1, 2, 10, 1000])
def test_a_photo_is_read_to_its_last_byte_although_it_is_decoded_small(tmp_path: Path, bytes_off: int) -> None:
    make_pair(tmp_path, "a", size_HW=(1280, 1918), seed=0)
    make_pair(tmp_path, "b", seed=1)
    assert check_dataset(find_pairs(tmp_path)).problems == ()
    cut(tmp_path / "images" / "a.jpg", bytes_off)
    assert found(check_dataset(find_pairs(tmp_path))) == {("a (a.jpg)", "unreadable")}


def test_the_same_pixels_in_another_file_are_a_duplicate_and_similar_ones_are_not(tmp_path: Path) -> None:
    for number, stem in enumerate(("a", "b", "c")):
        make_pair(tmp_path, stem, seed=number)
    photo = Image.open(tmp_path / "images" / "a.jpg")
    (tmp_path / "images" / "b.jpg").unlink()
    photo.save(tmp_path / "images" / "b.png", pnginfo=None)
    pixels_HWC = np.array(photo)
    pixels_HWC[50, 50, 1] ^= 1
    (tmp_path / "images" / "c.jpg").unlink()
    Image.fromarray(pixels_HWC).save(tmp_path / "images" / "c.png")
    report = check_dataset(find_pairs(tmp_path))
    assert found(report) == {("a", "duplicate picture")}
    assert report.problems[0].detail.endswith(" b")


def test_pictures_on_both_sides_of_a_split(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number in range(6):
        make_pair(root, f"photo{number}", seed=number)
    shutil.copy(root / "images" / "photo0.jpg", root / "images" / "photo1.jpg")
    photo = Image.open(root / "images" / "photo2.jpg")
    photo.resize((80, 60)).resize(photo.size).save(root / "images" / "photo3.jpg", quality=50)
    sides = ["photo0", "photo2", "photo4"], ["photo1", "photo3", "photo5"]
    assert found(check_dataset(find_pairs(root))) == {("photo0", "duplicate picture")}
    report = check_dataset(find_pairs(root), split=write_split(tmp_path / "across.json", *sides))
    assert found(report) == {("photo0", "duplicate across split"), ("photo3", "duplicate across split")}
    assert report.outside_split == 0
    within = write_split(tmp_path / "within.json", ["photo0", "photo1", "photo4"], ["photo2", "photo3"])
    report = check_dataset(find_pairs(root), split=within)
    assert found(report) == {("photo0", "duplicate picture")}
    assert report.outside_split == 1


def test_faults_of_the_split_are_problems(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for number, stem in enumerate(("car1-a", "car1-b", "car2-a")):
        make_pair(root, stem, seed=number)
    split = write_split(tmp_path / "split.json", ["car1-a", "gone"], ["car1-b", "car2-a"])
    assert found(check_dataset(find_pairs(root), split=split)) == {("gone", "split")}
    by_car = check_dataset(find_pairs(root, group_pattern="car."), split=split)
    assert found(by_car) == {("gone", "split"), ("car1", "split")}
    content = json.loads(split.read_text())
    content["group_of"] |= {"car1-a": "car1", "car1-b": "car1"}
    split.write_text(json.dumps(content))
    report = check_dataset(find_pairs(root), split=split)
    assert found(report) == {("split.json", "split")}
    assert "car1" in report.problems[0].detail


def test_areas(faulty: Path) -> None:
    dataset = find_pairs(faulty)
    area_of, unreadable = measure_areas(dataset.pairs)
    assert (area_of["sound"], area_of["empty"], area_of["full"]) == (0.25, 0.0, 1.0)
    assert area_of["turned"] == pytest.approx(100 / 120)
    assert [(problem.subject, problem.kind) for problem in unreadable] == [("cut-mask (cut-mask.png)", "unreadable")]


def test_contact_sheet_shows_the_mask_and_survives_bad_pairs(faulty: Path) -> None:
    dataset = find_pairs(faulty)
    image_HWC = contact_sheet(dataset, 100, doubtful={"text": "unreadable"})
    assert image_HWC.dtype == np.uint8
    assert image_HWC.shape[2] == 3
    one_HWC = contact_sheet(dataset, 1, doubtful={"sound": "x"})
    photo_HWC = np.asarray(Image.open(faulty / "images" / "sound.jpg").resize((480, 360)), dtype=np.float64)
    tile_HWC = one_HWC[-370:-10, 10:490]  # the sheet has a border of ten pixels
    difference_HW = np.abs(tile_HWC - photo_HWC).mean(axis=2)
    assert difference_HW[:, 130:].mean() < 4
    assert difference_HW[:, :110].mean() > 30


def test_command_prints_every_problem_and_fails(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "a-name-longer-than-any-terminal-is-wide-" * 5
    make_pair(faulty, long)
    (faulty / "masks" / f"{long}.png").unlink()
    monkeypatch.chdir(tmp_path)
    status, out, _ = run(capsys, "check", str(faulty))
    assert status == 1
    for subject, kind in FAULTS | {(f"images/{long}.jpg", "missing mask")}:
        assert any(subject in line and kind in line for line in out.splitlines()), subject
    assert "16 problems" in out
    assert "12 in 12 groups" in out
    assert Image.open(tmp_path / "check" / "faulty.png").size[0] > 4 * 480


def test_command_on_sound_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(5):
        make_pair(tmp_path / "data", f"photo{number}", seed=number)
    status, out, _ = run(capsys, "check", "data", "--sheet", "sheets/one.png", "--photos", "3")
    assert (status, (tmp_path / "check").exists()) == (0, False)
    assert "8-bit gray: 0 and 255, 255 is foreground: 5" in out
    assert "mean 25.0%" in out
    assert "sheets/one.png" in out
    assert (tmp_path / "sheets" / "one.png").is_file()
    assert run(capsys, "check", "data", "--sheet", "one.jpg")[0] == 1
    assert run(capsys, "check", "data", "--photos", "-1")[0] == 1
    assert run(capsys, "check", "data", "--photos", "0")[0] == 0


def test_sheet_of_what_training_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        make_pair(tmp_path / "data", f"photo{number}", seed=number)
        save_mask(tmp_path / "data", f"photo{number}", np.tile(np.array([0, 1, 2, 2], dtype=np.uint8), (120, 40)))

    def draw(name: str, *options: str) -> np.ndarray:
        size = "input: {height_px: 64, width_px: 128}\naugment: {flip: 0, geometric: 0, color: 0, gray: 0}\n"
        Path("fast.yaml").write_text("preset: fast\n" + size)
        Path("small.yaml").write_text("preset: small\n" + size)
        Path("several.yaml").write_text("preset: fast\n" + size + "datasets: {data: {path: data, foreground: 2}}\n")
        command = ("check", "data", "--photos", "0", "--augmented", f"sheets/{name}.png", *options)
        status, _, err = run(capsys, *command)
        assert status == 0, err
        return np.asarray(Image.open(tmp_path / "sheets" / f"{name}.png"))

    fast_HWC = draw("fast", "--foreground", "1", "--config", "fast.yaml")
    assert (fast_HWC != draw("two", "--foreground", "2", "--config", "fast.yaml")).any()
    several_HWC = draw("several", "--foreground", "1", "--config", "several.yaml")
    np.testing.assert_array_equal(several_HWC, fast_HWC)
    small_HWC = draw("small", "--foreground", "1", "--config", "small.yaml")
    assert small_HWC.shape == fast_HWC.shape
    assert (small_HWC != fast_HWC).any(), "the config's preset: small sees gray photos"
    np.testing.assert_array_equal(
        draw("given", "--foreground", "1", "--config", "small.yaml", "--preset", "fast"), fast_HWC
    )

    status, out, err = run(capsys, "check", "data", "--photos", "0", "--augmented", "none.png")
    assert (status, "odd mask values" in out, "Traceback" in err) == (1, True, False)
    assert run(capsys, "check", "data", "--augmented", "seen.jpg")[0] == 1
    assert not Path("none.png").exists()


def test_command_names_every_problem_even_when_there_is_no_pair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        make_pair(tmp_path, f"photo{number}")
        (tmp_path / "masks" / f"photo{number}.png").unlink()
    status, out, _ = run(capsys, "check", str(tmp_path))
    assert status == 1
    assert all(f"images/photo{number}.jpg" in out for number in range(5))


def test_real_photos_have_no_problem_and_their_copies_do(carvana: Path, tmp_path: Path) -> None:
    """Two most alike cars of the data set, all views: neighbors and look-alikes are no duplicates."""
    data = tmp_path / "data"
    for folder in ("train", "train_masks"):
        (data / folder).mkdir(parents=True)
        for car in ("1ba84b81628e", "3d7a1030deeb"):
            for file in (carvana / folder).glob(f"{car}_*"):
                shutil.copy(file, data / folder)
    ids = [pair.id for pair in find_pairs(data).pairs]
    train, validation = ([id_ for id_ in ids if id_.startswith(car)] for car in ("1ba", "3d7"))
    group_of = {id_: id_[:12] for id_ in ids}
    split = write_split(tmp_path / "split.json", train, validation, group_of)
    report = check_dataset(find_pairs(data), split=split)
    assert report.problems == ()
    assert len(report.area_of) == len(ids) == 32
    assert list(report.sizes) == [(1280, 1918)]

    photo = Image.open(data / "train" / f"{train[3]}.jpg")
    photo.save(data / "train" / f"{validation[5]}.jpg", quality=60)
    (data / "train_masks" / f"{train[7]}_mask.gif").unlink()
    cut(data / "train_masks" / f"{validation[0]}_mask.gif", 2000)
    assert found(check_dataset(find_pairs(data), split=split)) == {
        (validation[5], "duplicate across split"),
        (f"train/{train[7]}.jpg", "missing mask"),
        (train[7], "split"),
        (f"{validation[0]} ({validation[0]}_mask.gif)", "unreadable"),
    }


def test_photos_without_a_vehicle_are_counted_without_complaint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        make_pair(tmp_path / "data", f"photo{number}", seed=number)
        make_pair(tmp_path / "more", f"other{number}", seed=number + 3)
    (tmp_path / "more" / "images").rename(tmp_path / "data" / "no_vehicle")
    status, out, _ = run(capsys, "check", "data")
    assert status == 0
    assert "without a vehicle 3" in " ".join(out.split())
    assert "mean 25.0%" in out, "of those with a mask"
    report = check_dataset(find_pairs(tmp_path / "data"))
    assert len(report.area_of) == len(report.dataset.pairs) == 6
    area_of, unreadable = measure_areas(report.dataset.pairs)
    assert (area_of["no_vehicle/other1"], unreadable) == (0.0, [])
    assert run(capsys, "split", "data", "--fraction", "0.5")[0] == 0

    photo = tmp_path / "data" / "no_vehicle" / "other1.jpg"
    status, out, _ = run(capsys, "check", str(photo.parent), "--empty")
    assert status == 0
    assert "without a vehicle 3" in " ".join(out.split())
    shutil.copy(tmp_path / "data" / "images" / "photo0.jpg", photo)
    cut(tmp_path / "data" / "no_vehicle" / "other2.jpg", 2)
    assert found(check_dataset(find_pairs(tmp_path / "data"))) == {
        ("no_vehicle/other1", "duplicate picture"),
        ("no_vehicle/other2 (other2.jpg)", "unreadable"),
    }
    assert contact_sheet(find_pairs(tmp_path / "data"), 6).shape[2] == 3


def test_unknown_pixels_are_named_and_hatched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        make_pair(tmp_path / "data", f"photo{number}", seed=number)
    mask_HW = np.zeros((120, 160), dtype=np.uint8)
    mask_HW[:, :80], mask_HW[:, 80:120] = 255, 128
    save_mask(tmp_path / "data", "photo1", mask_HW)
    save_mask(tmp_path / "data", "photo2", np.where(mask_HW, mask_HW, 128))
    save_mask(tmp_path / "data", "photo3", np.full_like(mask_HW, 128))
    report = check_dataset(find_pairs(tmp_path / "data", ignore=128))
    assert found(report) == {("photo2", "full mask"), ("photo3 (photo3.png)", "unreadable")}
    assert report.unknown_of == {"photo1": 0.25, "photo2": 0.5}
    assert report.area_of == {"photo0": 0.25, "photo1": pytest.approx(2 / 3), "photo2": 1.0}
    assert measure_areas(report.dataset.pairs)[0] == report.area_of
    _, out, _ = run(capsys, "check", "data", "--ignore", "128", "--sheet", "sheet.png")
    assert "unknown pixels" in out
    assert all(name in out for name in ("photo1 25.0%", "photo2 50.0%"))

    sheet_HWC = contact_sheet(report.dataset, 1, doubtful={"photo1": "x"})
    is_line_HW = (sheet_HWC == UNKNOWN_RGB).all(axis=2)[-370:-10, 10:490]
    assert 0.1 < is_line_HW[:, 245:355].mean() < 0.5
    assert not is_line_HW[:, :230].any()
    assert not is_line_HW[:, 365:].any()
