import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bright_photos import Command
from carmask.data.layout import DatasetError
from carmask.data.pairs import Dataset, describe_odd, describe_rules, find_pairs, load_soft_mask, spread
from carmask.imaging.decode import IMAGE_SUFFIXES
from carmask.imaging.rle import RleError


def save(path: Path, size_HW: tuple[int, int] = (6, 8), value: int = 255) -> Path:
    """Save a gray picture whose left half is 0 and right half `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels_HW = np.zeros(size_HW, dtype=np.uint8)
    pixels_HW[:, size_HW[1] // 2 :] = value
    Image.fromarray(pixels_HW).save(path)
    return path


def problems(dataset: Dataset) -> list[tuple[str, str]]:
    return [(problem.subject, problem.kind) for problem in dataset.problems]


def ids(dataset: Dataset) -> list[str]:
    return [pair.id for pair in dataset.pairs]


def test_carvana_layout(tmp_path: Path) -> None:
    for name in ("b_01", "a_02", "a_01"):
        save(tmp_path / "train" / f"{name}.jpg")
        save(tmp_path / "train_masks" / f"{name}_mask.gif")
    (tmp_path / "metadata.csv").write_text("id,year\n")
    dataset = find_pairs(tmp_path)
    assert (dataset.layout, dataset.problems) == ("carvana", ())
    assert [(pair.id, pair.group, pair.view) for pair in dataset.pairs] == [
        ("a_01", "a", "01"),
        ("a_02", "a", "02"),
        ("b_01", "b", "01"),
    ]
    assert dataset.pairs[2].image == tmp_path / "train" / "b_01.jpg"
    assert dataset.pairs[2].mask == tmp_path / "train_masks" / "b_01_mask.gif"
    assert dataset.group_of == {"a_01": "a", "a_02": "a", "b_01": "b"}


def test_files_among_the_photos_that_are_no_photos_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("images", "no_vehicle"):
        save(tmp_path / folder / f"{folder}.png")
        for name in ("notes.txt", "a.CR2", "b.cr2", ".hidden.txt"):
            (tmp_path / folder / name).write_text("")
    save(tmp_path / "masks" / "images.png")
    (tmp_path / "masks" / "masks.json").write_text("{}")
    assert find_pairs(tmp_path).left_out == {".txt": 2, ".cr2": 4}
    assert find_pairs(tmp_path / "no_vehicle", empty=True).left_out == {".txt": 1, ".cr2": 2}
    check = Command("check", capsys, "--photos", "0")
    check(tmp_path)
    assert "(4 .cr2; " in check.out


def test_train_hq_alone_is_read_and_train_goes_first(tmp_path: Path) -> None:
    save(tmp_path / "train_hq" / "a_01.jpg")
    save(tmp_path / "train_masks" / "a_01_mask.gif")
    assert find_pairs(tmp_path).pairs[0].image.parent.name == "train_hq"
    save(tmp_path / "train" / "a_01.jpg")
    assert find_pairs(tmp_path).pairs[0].image.parent.name == "train"


def test_archives_unzipped_into_folders_of_their_names_and_a_folder_above(tmp_path: Path) -> None:
    root = tmp_path / "kaggle"
    save(root / "train" / "train" / "a_01.jpg")
    save(root / "train_masks" / "train_masks" / "a_01_mask.gif")
    save(root / "__MACOSX" / "train" / "._a_01.jpg")
    (tmp_path / "notes").mkdir()
    dataset = find_pairs(tmp_path)
    assert (dataset.root, ids(dataset), dataset.problems) == (root, ["a_01"], ())


def test_run_lengths_stand_in_for_missing_mask_files(tmp_path: Path) -> None:
    for name in ("a_01", "a_02", "a_03", "a_04"):
        save(tmp_path / "train" / f"{name}.jpg")
    save(tmp_path / "train_masks" / "a_01_mask.gif")
    table = "img,rle_mask\na_01.jpg,1 1\na_02.jpg,2 3 9 1\na_03.jpg,\n"
    (tmp_path / "train_masks.csv").write_text(table)
    dataset = find_pairs(tmp_path)
    assert ids(dataset) == ["a_01", "a_02", "a_03"]
    assert problems(dataset) == [("train/a_04.jpg", "missing mask")]
    from_file, from_runs, empty = dataset.pairs
    assert from_file.mask == tmp_path / "train_masks" / "a_01_mask.gif"
    soft_HW = load_soft_mask(from_runs).soft_HW
    expected_HW = np.zeros((6, 8), dtype=np.uint8)
    expected_HW[0, 1:4] = 255  # '2 3': the second to the fourth pixel of the first row
    expected_HW[1, 0] = 255  # '9 1': the ninth pixel begins the second row of eight
    assert soft_HW.dtype == np.uint8
    np.testing.assert_array_equal(soft_HW, expected_HW)
    assert not load_soft_mask(empty).soft_HW.any()


def test_faults_of_the_table_are_named(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a_01.jpg")
    table = tmp_path / "train_masks.csv"
    table.write_text("img,rle_mask\na_01.jpg,47 3\na_01.jpg,1 1\nb_01.jpg,1 1\nnonsense\n")
    dataset = find_pairs(tmp_path)
    assert sorted(problems(dataset)) == [
        ("a_01", "ambiguous"),
        ("train_masks.csv, line 5", "unreadable"),
        ("train_masks.csv, row of b_01", "missing image"),
    ]
    table.write_text("img,rle_mask\na_01.jpg,1 1\n.,1 1\n/,1 1\n./,1 1\n..,1 1\n")
    assert sorted(problems(find_pairs(tmp_path))) == [
        ("train_masks.csv, line 3", "unreadable"),
        ("train_masks.csv, line 4", "unreadable"),
        ("train_masks.csv, line 5", "unreadable"),
        ("train_masks.csv, row of ..", "missing image"),
    ]
    with pytest.raises(RleError, match=r"train_masks\.csv.* a_01\.jpg"):  # 47 + 2 is beyond the 48 pixels
        load_soft_mask(dataset.pairs[0])
    table.write_text("name;mask\na_01.jpg;1 1\n")
    with pytest.raises(DatasetError, match=r"train_masks\.csv"):
        find_pairs(tmp_path)


def test_a_long_row_of_run_lengths_is_read(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a_01.png", size_HW=(200, 400))
    runs = " ".join(f"{start} 1" for start in range(1, 80_001, 2))
    assert len(runs) > 2**17
    (tmp_path / "train_masks.csv").write_text(f'img,rle_mask\n"a_01.png","{runs}"\n')
    soft_HW = load_soft_mask(find_pairs(tmp_path).pairs[0]).soft_HW
    np.testing.assert_array_equal(soft_HW.ravel(), np.tile([255, 0], 40_000))


def test_the_table_is_read_as_csv_is_written(tmp_path: Path) -> None:
    """Names that csv quotes, and characters that only Python's splitlines takes for the end of a line."""
    names = ['a, "b".png', "next\u2028line.png", " outer spaces .png"]
    for name in names:
        save(tmp_path / "train" / name.strip())
    with (tmp_path / "train_masks.csv").open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["img", "rle_mask"])
        writer.writerows([name, f"{place} 3"] for place, name in enumerate(names, start=1))
    dataset = find_pairs(tmp_path)
    assert dataset.problems == ()
    assert {pair.id: pair.mask for pair in dataset.pairs} == {
        'a, "b"': "1 3",
        "next\u2028line": "2 3",
        "outer spaces ": "3 3",
    }


def test_names_that_are_no_text_are_problems_of_the_table(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a_01.jpg")
    (tmp_path / "train_masks.csv").write_bytes(b"img,rle_mask\r\na_01.jpg,1 1\r\n\xff.jpg,1 1\r\nb.jpg,1 1,2\r\n")
    assert problems(find_pairs(tmp_path)) == [
        ("train_masks.csv, line 3", "unreadable"),
        ("train_masks.csv, line 4", "unreadable"),
    ]


@pytest.mark.parametrize("photos", ["images", "imgs", "Images"])
def test_folder_layout_with_mirrored_sub_folders(tmp_path: Path, photos: str) -> None:
    for stem in ("one", "deep/er/two", "[x]*?/three"):
        save(tmp_path / photos / f"{stem}.jpg")
    save(tmp_path / "masks" / "one.png")
    save(tmp_path / "masks" / "deep" / "er" / "two_mask.png")
    save(tmp_path / "masks" / "[x]*?" / "three.gif")
    dataset = find_pairs(tmp_path)
    assert (dataset.layout, dataset.problems) == ("folders", ())
    assert [(pair.id, pair.group, pair.view) for pair in dataset.pairs] == [
        ("[x]*?/three", "[x]*?/three", None),
        ("deep/er/two", "deep/er/two", None),
        ("one", "one", None),
    ]


def test_every_suffix_in_either_case(tmp_path: Path) -> None:
    for number, suffix in enumerate(sorted(IMAGE_SUFFIXES)):
        for folder, ending in (("images", suffix.upper()), ("masks", suffix)):
            # Pairs are found by name. Not all formats that are read can be written.
            picture = tmp_path / folder / f"{number}.png"
            save(picture)
            picture.rename(picture.with_suffix(ending))
    dataset = find_pairs(tmp_path)
    assert (len(dataset.pairs), dataset.problems) == (len(IMAGE_SUFFIXES), ())


def test_every_problem_is_reported_and_clutter_is_not(tmp_path: Path) -> None:
    for name in ("good.jpg", "lonely.jpg", "twice.jpg", "twice.png", "two-masks.jpg", "raw-mask.jpg", "a/same.jpg"):
        save(tmp_path / "images" / name)
    for name in ("good.png", "orphan.png", "twice.png", "two-masks.png", "two-masks_mask.gif", "b/same.png", "raw.png"):
        save(tmp_path / "masks" / name)
    (tmp_path / "masks" / "raw-mask.npy").touch()
    (tmp_path / "images" / "raw.cr3").touch()
    for clutter in (".DS_Store", "Thumbs.db", "._good.jpg", ".cache/x.jpg", "__MACOSX/good.jpg", "readme.txt"):
        (tmp_path / "images" / clutter).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / clutter).touch()
    dataset = find_pairs(tmp_path)
    assert ids(dataset) == ["good"]
    assert problems(dataset) == [
        ("images/a/same.jpg", "missing mask"),
        ("images/lonely.jpg", "missing mask"),
        ("images/raw-mask.jpg", "missing mask"),
        ("masks/b/same.png", "missing image"),
        ("masks/orphan.png", "missing image"),
        ("masks/raw.png", "missing image"),
        ("twice", "ambiguous"),
        ("two-masks", "ambiguous"),
    ]
    details = {problem.subject: problem.detail for problem in dataset.problems}
    assert "raw-mask.npy" in details["images/raw-mask.jpg"]
    assert "raw.cr3" in details["masks/raw.png"]
    assert "images/twice.jpg" in details["twice"]
    assert "images/twice.png" in details["twice"]


def test_a_photo_whose_own_name_ends_in_mask(tmp_path: Path) -> None:
    for stem in ("x", "x_mask"):
        save(tmp_path / "images" / f"{stem}.jpg")
        save(tmp_path / "masks" / f"{stem}.png")
    dataset = find_pairs(tmp_path)
    assert [(pair.id, Path(pair.mask).name) for pair in dataset.pairs] == [("x", "x.png"), ("x_mask", "x_mask.png")]
    assert dataset.problems == ()


def test_dots_belong_to_the_stem(tmp_path: Path) -> None:
    for stem in ("v1.2", "v1.3"):
        save(tmp_path / "images" / f"{stem}.jpg")
        save(tmp_path / "masks" / f"{stem}_mask.png")
    assert ids(find_pairs(tmp_path)) == ["v1.2", "v1.3"]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "one.jpg")
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    save(tmp_path / "data" / "masks" / "linked" / "one.png")
    dataset = find_pairs(tmp_path / "data")
    assert (ids(dataset), dataset.problems) == (["linked/one"], ())


def test_a_name_that_is_not_text_is_a_problem(tmp_path: Path) -> None:
    save(tmp_path / "images" / "good.jpg")
    save(tmp_path / "masks" / "good.png")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path / "images") + b"/bad\xff.jpg")).touch()
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    dataset = find_pairs(tmp_path)
    assert ids(dataset) == ["good"]
    assert problems(dataset) == [("bad\\udcff.jpg", "unreadable")]


def test_groups_by_pattern(tmp_path: Path) -> None:
    for stem in ("cam1-a", "cam1-b", "cam2-a"):
        save(tmp_path / "images" / f"{stem}.jpg")
        save(tmp_path / "masks" / f"{stem}.png")
    group_of = {"cam1-a": "1", "cam1-b": "1", "cam2-a": "2"}
    assert find_pairs(tmp_path, group_pattern=r"cam(\d)").group_of == group_of
    assert find_pairs(tmp_path, group_pattern=r"\d").group_of == group_of
    with pytest.raises(DatasetError):
        find_pairs(tmp_path, group_pattern="(")
    with pytest.raises(DatasetError):
        find_pairs(tmp_path, group_pattern="(a)(b)")
    with pytest.raises(DatasetError, match="cam1-b"):
        find_pairs(tmp_path, group_pattern="a$")


def test_carvana_names_in_other_folders_are_still_grouped_by_car(tmp_path: Path) -> None:
    for stem in ("03a857ce842d_01", "03a857ce842d_16"):
        save(tmp_path / "imgs" / f"{stem}.jpg")
        save(tmp_path / "masks" / f"{stem}_mask.gif")
    assert set(find_pairs(tmp_path).group_of.values()) == {"03a857ce842d"}
    save(tmp_path / "imgs" / "another.jpg")
    save(tmp_path / "masks" / "another.gif")
    assert len(set(find_pairs(tmp_path).group_of.values())) == 3


def test_what_is_no_data_set_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(DatasetError):
        find_pairs(tmp_path / "nowhere")
    with pytest.raises(DatasetError):
        find_pairs(save(tmp_path / "photo.jpg"))
    with pytest.raises(DatasetError, match=r"photo\.jpg"):
        find_pairs(tmp_path)
    save(tmp_path / "one" / "images" / "a.jpg")
    (tmp_path / "one" / "masks").mkdir()
    with pytest.raises(DatasetError) as caught:
        find_pairs(tmp_path / "one")
    assert [problem.subject for problem in caught.value.problems] == ["images/a.jpg"]
    with pytest.raises(DatasetError, match=rf"{tmp_path / 'one'}[^/]"):
        find_pairs(tmp_path / "one" / "images")
    (tmp_path / "one" / "imgs").mkdir()
    with pytest.raises(DatasetError, match=r"images/ and imgs/"):
        find_pairs(tmp_path / "one")
    (tmp_path / "two" / "images").mkdir(parents=True)
    (tmp_path / "two" / "masks").mkdir()
    with pytest.raises(DatasetError):
        find_pairs(tmp_path / "two")
    save(tmp_path / "three" / "train" / "a_01.jpg")
    save(tmp_path / "three" / "train_masks" / "a_01_mask.gif")
    with pytest.raises(DatasetError, match="three, two"):
        find_pairs(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="needs named pipes")
def test_a_table_that_is_a_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a_01.jpg")
    os.mkfifo(tmp_path / "train_masks.csv")
    with pytest.raises(DatasetError):
        find_pairs(tmp_path)


def test_how_masks_were_read_is_said_in_a_few_lines() -> None:
    assert describe_rules({}) == []
    assert describe_rules({"a": 1, "b": 7}) == ["b: 7", "a: 1"]
    assert describe_rules(dict.fromkeys("abcdefg", 1))[4:] == ["e: 1", "in 2 other ways: 2"]
    assert describe_odd({}) is None
    assert describe_odd({"x": "gray"}) == "1 mask looks odd. x: gray"
    assert describe_odd(dict.fromkeys("vwxyz", "gray")) == (
        "5 masks look odd. v: gray; w: gray; x: gray; and 2 more, see `carmask check`"
    )


def test_real_carvana_photos(carvana: Path) -> None:
    dataset = find_pairs(carvana)
    assert (dataset.layout, len(dataset.pairs), dataset.problems) == ("carvana", 1008, ())
    views = [list(dataset.group_of.values()).count(car) for car in set(dataset.group_of.values())]
    assert sorted(views) == [4] * 10 + [8] + [16] * 60
    assert {pair.view for pair in dataset.pairs} == {f"{view:02d}" for view in range(1, 17)}


def test_real_run_lengths_and_mask_files_are_the_same_masks(carvana: Path, tmp_path: Path) -> None:
    for name in ("train", "train_masks.csv"):
        (tmp_path / name).symlink_to((carvana / name).resolve())
    from_table, from_files = find_pairs(tmp_path), find_pairs(carvana)
    assert ids(from_table) == ids(from_files)
    for place in range(0, 1008, 250):
        stored_HW = np.asarray(Image.open(from_files.pairs[place].mask))  # palette indices 0 and 1
        assert set(np.unique(stored_HW)) == {0, 1}
        np.testing.assert_array_equal(load_soft_mask(from_table.pairs[place]).soft_HW, stored_HW * 255)
        np.testing.assert_array_equal(load_soft_mask(from_files.pairs[place]).soft_HW, stored_HW * 255)


@pytest.mark.parametrize(
    ("items", "count", "wanted"),
    [("", 3, ""), ("abc", 0, ""), ("abc", 1, "a"), ("abc", 3, "abc"), ("abc", 7, "abc"), ("abcdefgh", 3, "acf")],
)
def test_items_are_taken_evenly(items: str, count: int, wanted: str) -> None:
    assert "".join(spread(items, count)) == wanted


def test_photos_without_a_vehicle_beside_the_others(tmp_path: Path) -> None:
    for stem in ("03a857ce842d_01", "03a857ce842d_16"):
        save(tmp_path / "images" / f"{stem}.jpg")
        save(tmp_path / "masks" / f"{stem}.png")
    for name in ("sky.jpg", "deep/er/dog.png", "twice.jpg", "twice.png"):
        save(tmp_path / "no_vehicle" / name, size_HW=(5, 9))
    dataset = find_pairs(tmp_path)
    assert [(pair.id, pair.group, pair.mask is None) for pair in dataset.pairs] == [
        ("03a857ce842d_01", "03a857ce842d", False),
        ("03a857ce842d_16", "03a857ce842d", False),
        ("no_vehicle/deep/er/dog", "no_vehicle/deep/er/dog", True),
        ("no_vehicle/sky", "no_vehicle/sky", True),
    ]
    assert problems(dataset) == [("no_vehicle/twice", "ambiguous")]
    reading = load_soft_mask(replace(dataset.pairs[2], foreground=0, ignore=0))
    assert (reading.soft_HW.shape, reading.soft_HW.any(), reading.known_HW) == ((5, 9), False, None)

    # A pattern has to match the photos with a vehicle; one that also matches others groups them too.
    assert find_pairs(tmp_path, group_pattern=r"_(\d\d)").group_of["no_vehicle/sky"] == "no_vehicle/sky"
    assert find_pairs(tmp_path, group_pattern=r"/s|d_").group_of["no_vehicle/sky"] == "/s"
    with pytest.raises(DatasetError, match="03a857ce842d_16"):
        find_pairs(tmp_path, group_pattern="_01|sky|dog")

    save(tmp_path / "images" / "no_vehicle" / "sky.jpg")
    save(tmp_path / "masks" / "no_vehicle" / "sky.png")
    dataset = find_pairs(tmp_path)
    assert ("no_vehicle/sky", "ambiguous") in problems(dataset)
    assert {pair.id: pair.mask for pair in dataset.pairs}["no_vehicle/sky"] == tmp_path / "masks/no_vehicle/sky.png"


def test_a_folder_of_photos_without_a_vehicle(tmp_path: Path) -> None:
    for name in ("images/sky.jpg", "images/a/dog.png", "elsewhere.jpg"):
        save(tmp_path / name)
    for root in (tmp_path, tmp_path / "images"):
        dataset = find_pairs(root, empty=True)
        assert [(pair.id, pair.mask, pair.group) for pair in dataset.pairs] == [
            ("a/dog", None, "a/dog"),
            ("sky", None, "sky"),
        ]
        assert dataset.problems == ()
    (tmp_path / "images").rename(tmp_path / "others")
    assert ids(find_pairs(tmp_path, empty=True)) == ["elsewhere", "others/a/dog", "others/sky"]
    with pytest.raises(DatasetError, match="sky"):
        find_pairs(tmp_path, empty=True, group_pattern="dog|where")
    with pytest.raises(DatasetError):
        find_pairs(tmp_path / "elsewhere.jpg", empty=True)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DatasetError):
        find_pairs(tmp_path / "nothing", empty=True)


def test_photos_with_masks_are_not_taken_for_photos_without_a_vehicle(tmp_path: Path) -> None:
    save(tmp_path / "images" / "car.jpg")
    save(tmp_path / "masks" / "car.png")
    with pytest.raises(DatasetError):
        find_pairs(tmp_path, empty=True)


def test_only_photos_without_a_vehicle_in_a_data_set(tmp_path: Path) -> None:
    save(tmp_path / "no_vehicle" / "sky.jpg")
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    assert ids(find_pairs(tmp_path)) == ["no_vehicle/sky"]
