"""Data sets that are divided already: their folders and lists are followed, unless a setting overrules them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carmask.data.check import check_dataset
from carmask.data.own_split import find_own_split
from carmask.data.pairs import find_pairs
from carmask.data.split import Split, SplitError
from carmask.models.network import Network
from noise_pairs import run
from tiny_runs import TINY, resume, tiny_settings, train

MASKS_OF = {"images": "masks", "imgs": "masks", "im": "gt", "JPEGImages": "SegmentationClass"}


def save(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise_HWC = np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise_HWC).save(path)


def save_pair(photo: Path, mask: Path, seed: int = 0) -> None:
    save(photo, seed)
    mask_HW = np.zeros((40, 60), np.uint8)
    mask_HW[10:30, 20 : 40 + seed % 7] = 255
    mask.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask_HW).save(mask)


# Where the photo and the mask of each side are.
LAYOUTS = {
    "sides below": ("images/{}/{}.png", "masks/{}/{}.png"),
    "sides deep below": ("images/street/{}/{}.png", "masks/street/{}/{}.png"),
    "sides above": ("{}/images/{}.png", "{}/masks/{}.png"),
    "sides above, other names": ("{}/im/{}.png", "{}/gt/{}.png"),
    "sides in the names": ("{}_images/{}.png", "{}_masks/{}.png"),
    "beside Carvana's names": ("{}/{}.png", "{}_masks/{}_mask.png"),
    "annotations": ("{}/{}.png", "{}annot/{}.png"),
}


def write(root: Path, layout: str, *sides: str, count: int = 4) -> None:
    photo, mask = LAYOUTS[layout]
    for first, side in enumerate(sides):
        for number in range(count):
            name = f"{side}-{number}"
            save_pair(root / photo.format(side, name), root / mask.format(side, name), seed=10 * first + number)


def names(ids: tuple[str, ...]) -> set[str]:
    return {id_.rpartition("/")[2] for id_ in ids}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("learned", "held_out"), [("train", "val"), ("Training", "valid"), ("train2017", "val2017")])
def test_folders_of_sides_are_followed(tmp_path: Path, layout: str, learned: str, held_out: str) -> None:
    write(tmp_path, layout, learned, held_out)
    dataset = find_pairs(tmp_path)
    split = find_own_split(dataset)
    assert split is not None
    assert len(dataset.pairs) == 8
    assert not dataset.problems
    assert names(split.train) == {f"{learned}-{number}" for number in range(4)}
    assert names(split.validation) == {f"{held_out}-{number}" for number in range(4)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_test_photos_are_on_no_side_unless_nothing_else_is_held_out(tmp_path: Path, layout: str) -> None:
    write(tmp_path / "three", layout, "train", "val", "test")
    split = find_own_split(find_pairs(tmp_path / "three"))
    assert split is not None
    assert names(split.validation) == {f"val-{number}" for number in range(4)}
    assert len(split.train) == 4
    write(tmp_path / "two", layout, "train", "test")
    split = find_own_split(find_pairs(tmp_path / "two"))
    assert split is not None
    assert names(split.validation) == {f"test-{number}" for number in range(4)}


def test_photos_without_a_vehicle_and_photos_outside(tmp_path: Path) -> None:
    write(tmp_path, "sides below", "train", "val")
    save(tmp_path / "no_vehicle/train/a.png", 90)
    save(tmp_path / "no_vehicle/val/b.png", 91)
    save_pair(tmp_path / "images/c.png", tmp_path / "masks/c.png", 92)
    split = find_own_split(find_pairs(tmp_path))
    assert split is not None
    assert {"no_vehicle/train/a", "c"} < set(split.train)
    assert "no_vehicle/val/b" in split.validation


@pytest.mark.parametrize("folder", ["", "ImageSets/Segmentation"])
def test_lists_are_followed(tmp_path: Path, folder: str) -> None:
    for number in range(6):
        name = f"2007_{number:06}.png"
        save_pair(tmp_path / "JPEGImages" / name, tmp_path / "SegmentationClass" / name, number)
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / folder / "train.txt").write_text("2007_000000\nJPEGImages/2007_000001.png 1\n2007_000009\n")
    (tmp_path / folder / "val.txt").write_text("2007_000003\n\n2007_000004.png\n")
    (tmp_path / folder / "trainval.txt").write_text("2007_000005\n")
    split = find_own_split(find_pairs(tmp_path))
    assert split is not None
    assert split.train == ("2007_000000", "2007_000001")
    assert split.validation == ("2007_000003", "2007_000004")


def test_lists_tell_photos_of_one_name_apart_by_their_folders(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        for number in range(2):
            save_pair(tmp_path / f"images/{folder}/{number}.png", tmp_path / f"masks/{folder}/{number}.png", number)
    (tmp_path / "train.txt").write_text("a/0.png\nimages/b/0.png\n")
    (tmp_path / "val.txt").write_text("a/1\n/data/images/b/1.png\n")
    split = find_own_split(find_pairs(tmp_path))
    assert split is not None
    assert split.train == ("a/0", "b/0")
    assert split.validation == ("a/1", "b/1")


@pytest.mark.parametrize("photos", MASKS_OF)
def test_folders_that_only_look_like_sides(tmp_path: Path, photos: str) -> None:
    """Trains are vehicles, too, and nothing is held out."""
    for kind in ("car", "train", "tram"):
        save_pair(tmp_path / photos / kind / "1.png", tmp_path / MASKS_OF[photos] / kind / "1.png")
    dataset = find_pairs(tmp_path)
    assert len(dataset.pairs) == 3
    assert find_own_split(dataset) is None


def test_a_group_on_both_sides_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "sides below", "train", "val")
    with pytest.raises(SplitError):
        find_own_split(find_pairs(tmp_path, group_pattern=r"-(\d)"))


def test_check_compares_the_sides(tmp_path: Path) -> None:
    write(tmp_path, "sides below", "train", "val")
    assert check_dataset(find_pairs(tmp_path)).side_sizes == (4, 4)
    assert not check_dataset(find_pairs(tmp_path)).problems
    for side in ("train", "val"):
        save_pair(tmp_path / f"images/{side}/twice.png", tmp_path / f"masks/{side}/twice.png", 50)
    assert [problem.kind for problem in check_dataset(find_pairs(tmp_path)).problems] == ["duplicate across split"]


def test_check_finds_a_car_on_both_sides(tmp_path: Path) -> None:
    for number, (side, view) in enumerate((("train", "01"), ("train", "02"), ("val", "03"))):
        name = f"0123456789ab_{view}.png"
        save_pair(tmp_path / "images" / side / name, tmp_path / "masks" / side / name, number)
    found = [(problem.kind, problem.subject) for problem in check_dataset(find_pairs(tmp_path)).problems]
    assert found == [("split", "0123456789ab")]


def test_the_split_command_follows_the_folders_unless_told_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "data", "sides above", "train", "val", count=6)
    out = tmp_path / "split.json"
    assert run(capsys, "split", str(tmp_path / "data"), "--out", str(out))[0] == 0
    assert names(Split.load(out).validation) == {f"val-{number}" for number in range(6)}
    for options in (["--fraction", "0.25"], ["--folds", "3"], ["--seed", "1"]):
        assert run(capsys, "split", str(tmp_path / "data"), "--out", str(out), *options)[0] == 0
        assert names(Split.load(out).validation) != {f"val-{number}" for number in range(6)}


def test_training_follows_the_folders_unless_told_otherwise(tmp_path: Path) -> None:
    write(tmp_path / "data", "sides below", "train", "val", count=6)
    places = {"data": tmp_path / "data", "cache": tmp_path / "cache", "runs": tmp_path / "runs"}

    def held_out(name: str, **dataset: object) -> set[str]:
        options = {"cache": tmp_path / "cache", **dataset}
        trained, _ = train(tiny_settings(TINY, **places, name=name, dataset=options))
        return names(Split.load(trained.split).validation)

    own = {f"val-{number}" for number in range(6)}
    assert held_out("own") == own
    assert held_out("anew", own_split=False) != own
    assert held_out("fraction", fraction=0.25) != own
    Split.load(tmp_path / "runs/fraction/split.json").save(tmp_path / "mine.json")
    assert held_out("mine", split=tmp_path / "mine.json") == held_out("fraction2", fraction=0.25)


@pytest.mark.parametrize("count", [1, 2])
def test_few_photos_can_be_trained_on_without_holding_any_out(
    tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(count):
        save_pair(tmp_path / f"data/images/{number}.png", tmp_path / f"data/masks/{number}.png", number)
    places = {"data": tmp_path / "data", "cache": tmp_path / "cache", "runs": tmp_path / "runs"}
    with pytest.raises(SplitError, match=r"--dataset.fraction 0"):
        train(tiny_settings(TINY, **places, name="refused", dataset={"cache": tmp_path / "cache"}))
    options = {"cache": tmp_path / "cache", "fraction": 0}
    recipe = {**TINY, "epoch_samples": None, "batch_size": 1, "epochs": 2, "input": {"height_px": 32, "width_px": 64}}
    trained, printed = train(tiny_settings(recipe, **places, name="all", dataset=options))
    assert f"{count} of {count} groups to train on, 0 of 0 held out" in printed
    split = Split.load(trained.split)
    assert (len(split.train), split.validation) == (count, ())
    card = Network.load(trained.path).card
    assert card.training["groups_held_out"] == []
    assert "held_out_dice" not in card.training
    resume(trained)
    # Its photos are no held-out ones, and this is said.
    status, _, said = run(capsys, "evaluate", str(tmp_path / "data"), "--model", str(trained.path), "--worst", "0")
    assert status == 0
    assert f"{count} of {count} photos were trained on" in said


def test_a_split_without_held_out_photos_is_refused_unless_it_was_asked_for(tmp_path: Path) -> None:
    Split(seed=0, fraction=0, train=("a",), validation=(), group_of={"a": "a"}).save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json").validation == ()
    with pytest.raises(SplitError):
        Split(seed=0, train=("a",), validation=(), group_of={"a": "a"})
