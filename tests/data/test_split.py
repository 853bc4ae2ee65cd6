import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carmask.data.pairs import Pair
from carmask.data.split import Split, SplitError, make_fold_splits, make_split, split_folds
from noise_pairs import cut, make_pair, run

Data = tuple[dict[str, str], dict[str, float]]


@st.composite
def data_sets(draw: st.DrawFn) -> Data:
    """Draw groups of one to twenty photos and an area for every photo, in no order."""
    sizes = draw(st.lists(st.integers(1, 20), min_size=6, max_size=40))
    group_of = {f"g{group}_{view}": f"g{group}" for group, size in enumerate(sizes) for view in range(size)}
    rng = draw(st.randoms(use_true_random=False))
    coarse = draw(st.booleans())  # many equal areas
    area_of = {id_: round(rng.random(), 1 if coarse else 6) for id_ in group_of}
    return shuffled(group_of, rng), area_of


def shuffled(mapping: dict[str, str], rng: random.Random) -> dict[str, str]:
    keys = list(mapping)
    rng.shuffle(keys)
    return {key: mapping[key] for key in keys}


def carvana_like(seed: int = 0) -> Data:
    """Groups as in the 71 cars at hand: 60 of 16 views, 1 of 8, 10 of 4, with areas of 10 to 35 %."""
    rng = random.Random(seed)
    sizes = [16] * 60 + [8] + [4] * 10
    group_of = {f"car{car:02d}_{view:02d}": f"car{car:02d}" for car, size in enumerate(sizes) for view in range(size)}
    base = {f"car{car:02d}": rng.uniform(0.1, 0.35) for car in range(len(sizes))}
    return group_of, {id_: base[group] * rng.uniform(0.8, 1.2) for id_, group in group_of.items()}


@given(data_sets(), st.integers(2, 6), st.integers(0, 1000))
def test_folds_are_a_partition_that_tears_no_group(data: Data, folds: int, seed: int) -> None:
    group_of, area_of = data
    dealt = split_folds(group_of, area_of, folds=folds, seed=seed)
    assert len(dealt) == folds
    assert sorted(id_ for ids in dealt for id_ in ids) == sorted(group_of)
    assert all(ids == sorted(ids) for ids in dealt)
    groups = [{group_of[id_] for id_ in ids} for ids in dealt]
    assert sum(map(len, groups)) == len(set(group_of.values()))


@given(data_sets(), st.integers(2, 6), st.integers(0, 1000))
def test_folds_are_balanced_in_groups_and_photos(data: Data, folds: int, seed: int) -> None:
    group_of, area_of = data
    dealt = split_folds(group_of, area_of, folds=folds, seed=seed)
    groups = [len({group_of[id_] for id_ in ids}) for ids in dealt]
    photos = [len(ids) for ids in dealt]
    assert max(groups) - min(groups) <= 1
    assert max(photos) - min(photos) <= max(Counter(group_of.values()).values())


@given(data_sets(), st.integers(2, 6), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(data: Data, folds: int, seed: int, rng: random.Random) -> None:
    group_of, area_of = data
    once = split_folds(group_of, area_of, folds=folds, seed=seed)
    assert split_folds(shuffled(group_of, rng), area_of, folds=folds, seed=seed) == once
    fraction = make_split(group_of, area_of, fraction=0.3, seed=seed)
    assert make_split(shuffled(group_of, rng), area_of, fraction=0.3, seed=seed) == fraction


@given(data_sets(), st.integers(2, 6), st.integers(0, 1000))
def test_every_photo_is_held_out_by_one_fold(data: Data, folds: int, seed: int) -> None:
    group_of, area_of = data
    splits = make_fold_splits(group_of, area_of, folds=folds, seed=seed)
    assert Counter(id_ for split in splits for id_ in split.validation) == Counter(list(group_of))
    assert all(sorted(split.train + split.validation) == sorted(group_of) for split in splits)
    assert splits[1] == make_split(group_of, area_of, folds=folds, fold=1, seed=seed)


@given(data_sets(), st.floats(0.05, 0.95), st.integers(0, 1000))
def test_a_fraction_holds_out_that_part_of_the_groups(data: Data, fraction: float, seed: int) -> None:
    group_of, area_of = data
    split = make_split(group_of, area_of, fraction=fraction, seed=seed)
    count = len(set(group_of.values()))
    held_out = {group_of[id_] for id_ in split.validation}
    assert held_out.isdisjoint(group_of[id_] for id_ in split.train)
    assert abs(len(held_out) - fraction * count) <= 1
    assert sorted(split.train + split.validation) == sorted(group_of)


@given(st.integers(2, 7), st.integers(0, 1000), st.integers(8, 60))
def test_among_equal_groups_each_stretch_of_area_is_dealt_to_all_folds(folds: int, seed: int, count: int) -> None:
    group_of = {f"g{group:02d}_{view}": f"g{group:02d}" for group in range(count) for view in range(3)}
    area_of = {id_: int(group[1:]) / count for id_, group in group_of.items()}  # sorted by name is sorted by area
    dealt = split_folds(group_of, area_of, folds=folds, seed=seed)
    fold_of = {group_of[id_]: fold for fold, ids in enumerate(dealt) for id_ in ids}
    names = sorted(fold_of)
    for start in range(0, count, folds):
        stretch = [fold_of[name] for name in names[start : start + folds]]
        assert len(set(stretch)) == len(stretch)


@pytest.mark.parametrize("seed", range(5))
def test_carvana_folds_have_equal_cars_photos_and_areas(seed: int) -> None:
    group_of, area_of = carvana_like(seed)
    dealt = split_folds(group_of, area_of, folds=5, seed=seed)
    assert all(len(ids) in range(196, 209) for ids in dealt)  # 1,008 photos: 201.6 each
    assert sorted(len({group_of[id_] for id_ in ids}) for ids in dealt) == [14, 14, 14, 14, 15]
    means = [sum(area_of[id_] for id_ in ids) / len(ids) for ids in dealt]
    assert max(means) - min(means) < 0.02
    split = make_split(group_of, area_of, fraction=0.2, seed=seed)
    assert abs(len(split.validation) - 201.6) <= 16


def test_seeds_differ() -> None:
    group_of, area_of = carvana_like()
    splits = {make_split(group_of, area_of, seed=seed).validation for seed in range(5)}
    fractions = {make_split(group_of, area_of, fraction=0.2, seed=seed).validation for seed in range(5)}
    assert len(splits) == len(fractions) == 5


def test_a_split_stays_what_it_was() -> None:
    """A change here changes every recorded experiment: the seed alone no longer reproduces its split."""
    group_of = {f"g{group}_{view}": f"g{group}" for group in range(10) for view in range(2)}
    area_of = {id_: int(group[1:]) / 10 for id_, group in group_of.items()}
    split = make_split(group_of, area_of, folds=5, fold=0, seed=7)
    assert {group_of[id_] for id_ in split.validation} == {"g2", "g8"}


def test_saved_and_loaded(tmp_path: Path) -> None:
    group_of, area_of = carvana_like()
    split = make_split(group_of, area_of, folds=5, fold=2, seed=3)
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split
    content = json.loads((tmp_path / "split.json").read_text())
    assert content["validation"] == sorted(content["validation"])
    assert (content["seed"], content["folds"], content["fold"], content["fraction"]) == (3, 5, 2, None)
    assert content["group_of"] == group_of
    assert {"method", "carmask_version"} < content.keys()


def test_a_hand_edited_split_with_a_car_on_both_sides_is_refused(tmp_path: Path) -> None:
    group_of, area_of = carvana_like()
    path = tmp_path / "split.json"
    make_split(group_of, area_of).save(path)
    content = json.loads(path.read_text())
    moved = content["train"].pop()
    content["validation"].append(moved)
    path.write_text(json.dumps(content))
    with pytest.raises(SplitError, match=rf"split\.json.*{group_of[moved]}"):
        Split.load(path)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        ({"train": ["a_1", "b_1"]}, r"\bb\b"),
        ({"train": ["a_1", "a_1"]}, "a_1"),
        ({"validation": []}, "validation"),
        ({"validation": ["b_1", "c_1"]}, "c_1"),
        ({"group_of": {"a_1": "a", "b_1": "b", "c_1": "c"}}, "c_1"),
        ({"train": "a_1"}, "train"),
        ({"sede": 1}, "sede"),
        ({"seed": -1}, "seed"),
    ],
)
def test_faulty_splits_are_refused(tmp_path: Path, edit: dict[str, object], named: str) -> None:
    sound = {"seed": 0, "train": ["a_1"], "validation": ["b_1"], "group_of": {"a_1": "a", "b_1": "b"}}
    path = tmp_path / "split.json"
    path.write_text(json.dumps(sound))
    assert Split.load(path).train == ("a_1",)
    path.write_text(json.dumps(sound | edit))
    with pytest.raises(SplitError, match=named):
        Split.load(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"{", b"[]", b"[" * 100_000, b"null"])
def test_what_is_no_split_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "split.json"
    with pytest.raises(SplitError, match=r"split\.json"):
        Split.load(path)
    path.write_bytes(content)
    with pytest.raises(SplitError, match=r"split\.json"):
        Split.load(path)


def test_impossible_requests_are_refused() -> None:
    group_of, area_of = {"a": "a", "b": "b", "c": "c"}, {"a": 0.1, "b": 0.2, "c": 0.3}
    with pytest.raises(SplitError):
        make_split(group_of, area_of)
    with pytest.raises(SplitError):
        split_folds(group_of, area_of, folds=1, seed=0)
    with pytest.raises(SplitError):
        make_split(group_of, area_of, folds=3, fold=3)
    for fraction in (-0.1, 1.0, float("nan")):
        with pytest.raises(SplitError):
            make_split(group_of, area_of, fraction=fraction)
    with pytest.raises(SplitError):
        make_split(dict.fromkeys("abc", "x"), area_of, fraction=0.5)
    with pytest.raises(SplitError, match=r"\bb\b"):
        split_folds(group_of, {"a": 0.1, "c": 0.1}, folds=2, seed=0)
    with pytest.raises(SplitError, match=r"\bc\b"):
        split_folds(group_of, area_of | {"c": float("nan")}, folds=2, seed=0)
    with pytest.raises(SplitError):
        split_folds(group_of, area_of, folds=2, seed=-1)


def test_select_holds_the_split_against_the_data() -> None:
    split = Split(seed=0, train=("b", "a"), validation=("c",), group_of={"a": "1", "b": "2", "c": "3"})
    pairs = [
        Pair(id_, Path(f"{id_}.jpg"), Path(f"{id_}.png"), group) for id_, group in zip("dcba", "4321", strict=True)
    ]
    train, validation = split.select(pairs)
    assert [[pair.id for pair in side] for side in (train, validation)] == [["a", "b"], ["c"]]
    with pytest.raises(SplitError, match=r"\bc\b"):
        split.select(pairs[2:])
    with pytest.raises(SplitError, match=r"\b3\b"):
        split.select([*pairs[:3], Pair("a", Path("a.jpg"), Path("a.png"), "3")])


def test_split_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        make_pair(tmp_path / "data", f"car{number // 2}-{number % 2}", seed=number)
    by_car = ("--group-pattern", r"car\d")
    status, out, _ = run(capsys, "split", "data", *by_car, "--folds", "3", "--fold", "1", "--seed", "4")
    assert status == 0
    split = Split.load(tmp_path / "split.json")
    assert (split.folds, split.fold, split.seed, len(split.validation)) == (3, 1, 4, 4)
    assert len({split.group_of[id_] for id_ in split.validation}) == 2
    assert "25.00%" in out

    status, _, _ = run(capsys, "split", "data", *by_car, "--fraction", "0.5", "--out", "half/way.json")
    assert (status, len(Split.load(tmp_path / "half" / "way.json").train)) == (0, 6)

    status, _, _ = run(capsys, "split", "data", *by_car, "--folds", "3", "--all-folds", "--out", "k")
    folds = [Split.load(path) for path in sorted((tmp_path / "k").iterdir())]
    assert [path.name for path in sorted((tmp_path / "k").iterdir())] == ["fold_0.json", "fold_1.json", "fold_2.json"]
    assert len({id_ for fold in folds for id_ in fold.validation}) == 12

    assert run(capsys, "split", "data", *by_car, "--folds", "7")[0] == 1
    for exclusive in (
        ("--all-folds", "--fraction"),
        ("--fold", "--fraction"),
        ("--folds", "--fraction"),
        ("--all-folds", "--fold"),
    ):
        given = [
            word for name in exclusive for word in (name, *{"--fraction": ["0.5"], "--all-folds": []}.get(name, ["2"]))
        ]
        status, _, said = run(capsys, "split", "data", *given)
        assert status == 1
        assert all(name in said for name in exclusive)
    cut(tmp_path / "data" / "masks" / "car0-0.png", 40)
    status, out, _ = run(capsys, "split", "data", *by_car, "--folds", "2")
    assert status == 2
    assert "car0-0.png" in out
    assert "car0-0" not in Split.load(tmp_path / "split.json").group_of
