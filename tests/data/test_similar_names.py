"""Names that differ in case or in how accents are stored, in photos, masks, tables, lists and splits."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from carmask.cli import main
from carmask.data.check import check_dataset
from carmask.data.own_split import find_own_split
from carmask.data.pairs import find_pairs
from carmask.data.split import Split
from carmask.evaluation.selection import TrainingSplit, select_pairs
from carmask.files import SimilarNames
from carmask.imaging.decode import UnreadableImage, read_size
from carmask.imaging.rle import encode_carvana

NAMES = ("café", "Müller", "plain", "Å", "가나")


def nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def nfd(name: str) -> str:
    return unicodedata.normalize("NFD", name)


def save_photo(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path)


def save_mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask_HW = np.zeros((20, 30), bool)
    mask_HW[5:15, 8:20] = True
    Image.fromarray(mask_HW).save(path)


def write(root: Path) -> Path:
    """Photos composed and masks decomposed, and one photo in capitals."""
    for seed, name in enumerate(NAMES):
        save_photo(root / "images" / f"{nfc(name)}.png", seed)
        save_mask(root / "masks" / f"{nfd(name)}.png")
    save_photo(root / "images/IMG_7.PNG", 50)
    save_mask(root / "masks/img_7_mask.png")
    return root


@given(name=st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/"), min_size=1))
def test_every_name_is_found_however_it_is_stored(name: str) -> None:
    others = ["other", "another"]
    for stored in (nfc(name), nfd(name)):
        names = SimilarNames([stored, *others])
        if stored not in others:
            assert names.find(nfd(name)) == names.find(nfc(name)) == stored


def test_the_most_similar_name_is_found() -> None:
    names = SimilarNames(["Café", nfd("café"), "a", "A", "b"])
    assert names.find("a") == "a"
    assert names.find(nfc("café")) == nfd("café")
    assert names.find("CAFÉ") is None, "two are alike but for case"
    assert names.find("x", "B") == "b"
    assert names.find("x") is None


def test_photos_and_masks(tmp_path: Path) -> None:
    dataset = find_pairs(write(tmp_path))
    assert not dataset.problems
    assert {pair.id for pair in dataset.pairs} == {*map(nfc, NAMES), "IMG_7"}
    assert all(
        isinstance(pair.mask, Path) and nfc(pair.mask.stem).lower().startswith(pair.id.lower())
        for pair in dataset.pairs
    )


def test_names_that_are_there_in_both_ways_are_not_mixed_up(tmp_path: Path) -> None:
    for store in (nfc, nfd):
        save_photo(tmp_path / "images" / store("é.png"))
        save_mask(tmp_path / "masks" / store("é.png"))
    if len(list((tmp_path / "masks").iterdir())) == 1:
        pytest.skip("this file system makes no difference")
    pairs = find_pairs(tmp_path).pairs
    assert len(pairs) == 2
    assert all(isinstance(pair.mask, Path) and pair.mask.stem == pair.id for pair in pairs)


def test_a_table_of_run_lengths(tmp_path: Path) -> None:
    for seed, name in enumerate(NAMES):
        save_photo(tmp_path / "train" / f"{nfd(name)}.png", seed)
    mask_HW = np.zeros((20, 30), bool)
    mask_HW[5:15, 8:20] = True
    rows = [f"{nfc(name).upper()}.png,{encode_carvana(mask_HW)}" for name in NAMES]
    (tmp_path / "train_masks.csv").write_text("\n".join(["img,rle_mask", *rows]), encoding="utf-8")
    dataset = find_pairs(tmp_path)
    assert not dataset.problems
    assert len(dataset.pairs) == len(NAMES)


def test_splits_and_lists_that_name_the_photos_otherwise(tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    pairs = find_pairs(data).pairs
    train, held_out = (nfd("café"), nfd("Müller"), "img_7"), ("plain", nfd("Å"), nfd("가나"))
    split = Split(seed=0, train=train, validation=held_out, group_of={id_: id_ for id_ in (*train, *held_out)})
    split.save(tmp_path / "split.json")
    selected = split.select(pairs)
    assert {pair.id for pair in selected[0]} == {nfc("café"), nfc("Müller"), "IMG_7"}
    assert {pair.id for pair in selected[1]} == {"plain", nfc("Å"), nfc("가나")}
    report = check_dataset(find_pairs(data), split=tmp_path / "split.json")
    assert (report.problems, report.side_sizes) == ((), (3, 3))

    trained_on = TrainingSplit.from_split(split).within(find_pairs(data))
    chosen = select_pairs(pairs, trained_on=trained_on)
    assert chosen.pairs == tuple(selected[1])
    assert not chosen.warnings
    assert select_pairs(pairs, part="all", trained_on=trained_on).warnings

    (data / "train.txt").write_text("\n".join(train), encoding="utf-8")
    (data / "val.txt").write_text("\n".join(f"{id_}.png" for id_ in held_out), encoding="utf-8")
    own = find_own_split(find_pairs(data))
    assert own is not None
    assert own.train == tuple(pair.id for pair in selected[0])


def test_convert_pairs_masks_with_photos(tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    with pytest.raises(SystemExit) as end:
        main(["convert", str(data / "masks"), str(tmp_path / "m.csv"), "--photos", str(data / "images")])
    assert end.value.code == 0
    assert len((tmp_path / "m.csv").read_text(encoding="utf-8").splitlines()) == 1 + len(NAMES) + 1


def test_a_missing_photo_s_double_is_named(tmp_path: Path) -> None:
    save_photo(tmp_path / nfc("café.png"))
    if (tmp_path / nfd("café.png")).exists():
        pytest.skip("this file system makes no difference")
    with pytest.raises(UnreadableImage) as error:
        read_size(tmp_path / nfd("café.png"))
    assert nfc("café.png") in error.value.cause
