"""Which photos are measured, what is reported about the model's training, and which folds belong together."""

import pytest

from carmask.data.pairs import Dataset, Pair
from carmask.data.split import Split, make_fold_splits
from carmask.evaluation.folds import FoldsError, check_folds, read_folds, select_out_of_fold
from carmask.evaluation.results import EvaluationError
from carmask.evaluation.selection import TrainingSplit, find_run, find_training_split, select_pairs
from carmask.imaging.geometry import Geometry
from carmask.models.card import ModelCard
from carmask.models.config import UNetConfig


def some_pairs(tmp_path, *ids):
    return [Pair(id_, tmp_path / id_, "", id_.split("_")[0], id_.split("_")[1]) for id_ in ids]


def some_split(train, validation):
    group_of = {id_: id_.split("_")[0] for id_ in (*train, *validation)}
    return Split(seed=0, train=train, validation=validation, group_of=group_of)


def test_held_out_photos_are_measured_where_the_run_says_which(tmp_path):
    pairs = some_pairs(tmp_path, "a_1", "a_2", "b_1", "c_1")
    run = some_split(("a_1", "a_2"), ("b_1", "gone_1"))
    selection = select_pairs(pairs, trained_on=TrainingSplit.from_split(run))
    assert [pair.id for pair in selection.pairs] == ["b_1"]
    assert selection.part == "validation"
    assert selection.remarks[0].startswith("Held out")
    assert selection.warnings == ("1 of the split's 2 validation photos are not in the data.",)


def test_photos_that_were_trained_on_are_warned_of(tmp_path):
    pairs = some_pairs(tmp_path, "a_1", "a_2", "a_3", "b_1", "c_1")
    run = some_split(("a_1", "a_2"), ("b_1",))
    everything = select_pairs(pairs, part="all", trained_on=TrainingSplit.from_split(run))
    assert len(everything.pairs) == 5
    assert everything.warnings == (
        "2 of 5 photos were trained on; these figures are not held-out.",
        "1 of 5 photos are of groups that were trained on; these figures are not held-out.",
    )
    assert not any(remark.startswith("Held out") for remark in everything.remarks)
    other_split = some_split(("b_1",), ("a_2", "c_1"))
    chosen = select_pairs(pairs, split=TrainingSplit.from_split(other_split), trained_on=TrainingSplit.from_split(run))
    assert [pair.id for pair in chosen.pairs] == ["a_2", "c_1"]
    assert chosen.warnings == ("1 of 2 photos were trained on; these figures are not held-out.",)


def test_a_split_of_other_photos_is_not_followed(tmp_path):
    pairs = some_pairs(tmp_path, "x_1", "y_1")
    run = some_split(("a_1",), ("b_1",))
    selection = select_pairs(pairs, trained_on=TrainingSplit.from_split(run))
    assert (len(selection.pairs), selection.part) == (2, "all")
    assert "held out: all are measured" in selection.remarks[0]
    with pytest.raises(EvaluationError):
        select_pairs(pairs, part="validation", trained_on=TrainingSplit.from_split(run))


def test_without_any_split_all_photos_are_measured_and_nothing_is_claimed(tmp_path):
    pairs = some_pairs(tmp_path, "x_1", "y_1")
    selection = select_pairs(pairs)
    assert (len(selection.pairs), selection.part, selection.warnings) == (2, "all", ())
    assert "not known" in selection.remarks[0]
    with pytest.raises(EvaluationError):
        select_pairs(pairs, part="train")


def some_card(learned=(), held_out=()):
    geometry = Geometry(height_px=64, width_px=96)
    unet = UNetConfig(in_channels=3, widths=(4, 8))
    return ModelCard(name="x", unet=unet, geometry=geometry, train_groups=learned, held_out_groups=held_out)


def test_an_exported_model_says_itself_what_it_held_out(tmp_path):
    trained_on = find_training_split([(tmp_path / "m.onnx", some_card(("a", "b"), ("c", "gone")))])
    pairs = some_pairs(tmp_path, "a_1", "b_1", "c_1", "c_2", "new_1")
    selection = select_pairs(pairs, trained_on=trained_on)
    assert [pair.id for pair in selection.pairs] == ["c_1", "c_2"]
    assert selection.part == "validation"
    assert selection.warnings == ()
    assert "1 of the split's 2 validation groups are not in the data." in selection.remarks
    assert any(remark.startswith("Held out") for remark in selection.remarks)
    assert any("best epoch" in remark for remark in selection.remarks)
    trained = select_pairs(pairs, part="train", trained_on=trained_on)
    assert [pair.id for pair in trained.pairs] == ["a_1", "b_1"]
    everything = select_pairs(pairs, part="all", trained_on=trained_on)
    assert everything.warnings == ("2 of 5 photos are of groups that were trained on; these figures are not held-out.",)
    new = select_pairs(pairs[-1:], trained_on=trained_on)
    assert (new.part, len(new.pairs), new.warnings) == ("all", 1, ())
    assert not any("best epoch" in remark for remark in new.remarks)
    other_split = TrainingSplit.from_split(some_split(("c_1",), ("a_1",)))
    by_other_split = select_pairs(pairs, split=other_split, trained_on=trained_on)
    assert by_other_split.warnings[-1].startswith("1 of 1 photos are of groups that were trained on")


def test_several_models_have_held_out_what_none_has_learned_from(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    some_split(("a_1",), ("b_1", "c_1")).save(run / "split.json")
    card, place = some_card(("b",), ("a", "c")), tmp_path / "m.onnx"
    together = find_training_split([(run, some_card()), (place, card)])
    assert together.train.groups == {"a", "b"}
    assert together.validation.groups == {"c"}
    pairs = some_pairs(tmp_path, "a_1", "b_1", "c_1")
    assert [pair.id for pair in select_pairs(pairs, trained_on=together).pairs] == ["c_1"]
    assert find_training_split([(place, card), (place, some_card())]) is None
    assert find_training_split([(run, some_card())]) == TrainingSplit.from_split(some_split(("a_1",), ("b_1", "c_1")))


def test_a_run_is_known_by_its_settings_and_split(tmp_path):
    run = tmp_path / "runs" / "one"
    (run / "weights" / "best").mkdir(parents=True)
    (tmp_path / "split.json").touch()
    assert find_run(run) is None, "a split.json in the working folder is not a run's"
    (run / "split.json").touch()
    (run / "config.yaml").touch()
    assert find_run(run) == find_run(run / "weights" / "best") == run


GROUP_OF = {f"{car}_{view}": car for car in "abcdef" for view in range(3)}
AREA_OF = {id_: 0.1 + 0.01 * ord(car) for id_, car in GROUP_OF.items()}


def folds(**given):
    arguments = {"group_of": GROUP_OF, "area_of": AREA_OF, "folds": 3, "seed": 0, **given}
    return {f"fold-{fold}": split for fold, split in enumerate(make_fold_splits(**arguments))}


def write(folder, splits):
    for name, split in splits.items():
        split.save(folder / name / "split.json")
    return [folder / name for name in splits]


def test_the_folds_of_one_split_belong_together(tmp_path):
    assert read_folds(write(tmp_path, folds())) == folds()
    some = folds()
    some.popitem()
    check_folds(some)
    with pytest.raises(FoldsError):
        read_folds(write(tmp_path, some))


def test_folds_that_were_split_differently_are_refused():
    fewer = {id_: group for id_, group in GROUP_OF.items() if id_ != "f_2"}
    regrouped = {**GROUP_OF, "f_2": "g"}
    for other in (folds(folds=2), folds(seed=1), folds(group_of=fewer), folds(group_of=regrouped)):
        with pytest.raises(FoldsError, match="fold-0 and fold-1"):
            check_folds({**folds(), "fold-1": other["fold-1"]})


def test_folds_that_overlap_are_refused():
    dealt = folds()
    moved = dealt["fold-0"].validation[0]
    car = GROUP_OF[moved]
    of_car = {id_ for id_, group in GROUP_OF.items() if group == car}
    second = dealt["fold-1"]
    greedy = Split(
        seed=0,
        folds=3,
        fold=1,
        train=tuple(sorted(set(second.train) - of_car)),
        validation=tuple(sorted({*second.validation, *of_car})),
        group_of=second.group_of,
    )
    with pytest.raises(FoldsError, match=f"fold-0 and fold-1 .*{car}_0, {car}_1, {car}_2"):
        check_folds({**dealt, "fold-1": greedy})
    with pytest.raises(FoldsError, match="fold-0 and fold-2"):
        check_folds({**dealt, "fold-2": dealt["fold-0"]})


@pytest.fixture
def run_of_two(tmp_path):
    """A run on the data sets street (in the folder photos/cars) and parts, and on photos without a vehicle."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(
        f"data: {tmp_path / 'photos'}\ndatasets: {{street: {{path: cars}}, parts: {{path: parts}}}}\n"
        f"dataset: {{empty: {tmp_path / 'nothing'}}}\n"
    )
    train = ("street/a_1", "street/a_2", "parts/b_1", "no-vehicle/n_1")
    some_split(train, ("street/b_1", "parts/a_1", "no-vehicle/m_2")).save(run / "split.json")
    return run


@pytest.mark.parametrize(
    ("folder", "held_out"),
    [("photos/cars", "b_1"), ("photos/parts", "a_1"), ("nothing", "m_2"), ("moved/street", "b_1"), ("moved", None)],
)
@pytest.mark.parametrize("exported", [False, True])
def test_one_of_a_run_s_data_sets_is_known_by_its_place_or_name(tmp_path, run_of_two, folder, held_out, exported):
    if exported and not folder.endswith(("street", "parts")):
        held_out = None  # an exported model knows no paths
    pairs = some_pairs(tmp_path, "a_1", "a_2", "b_1", "m_2")
    dataset = Dataset(tmp_path / folder, "folders", tuple(pairs))
    card, place = some_card(), run_of_two
    if exported:
        card, place = some_card(("street/a", "parts/b"), ("street/b", "parts/a")), tmp_path / "m.onnx"
    trained_on = find_training_split([(place, card)], dataset)
    chosen = select_pairs(pairs, trained_on=trained_on)
    if held_out is None:
        assert len(chosen.pairs) == 4
    elif not exported:
        assert [pair.id for pair in chosen.pairs] == [held_out]
        assert not chosen.warnings
    else:
        assert {pair.group for pair in chosen.pairs} == {held_out[0]}
    leaks = select_pairs(pairs, part="all", trained_on=trained_on).warnings
    assert bool(leaks) == (held_out is not None and (exported or held_out != "m_2"))


def test_a_data_set_of_a_label_file_is_known_by_its_folder(tmp_path, run_of_two):
    (tmp_path / "photos" / "coco").mkdir(parents=True)
    (tmp_path / "photos" / "coco" / "labels.json").write_text("{}")
    config = run_of_two / "config.yaml"
    config.write_text(config.read_text().replace("path: cars", "path: coco/labels.json"))
    pairs = some_pairs(tmp_path, "a_1", "a_2", "b_1", "m_2")
    dataset = Dataset(tmp_path / "photos" / "coco", "coco", tuple(pairs))
    chosen = select_pairs(pairs, trained_on=find_training_split([(run_of_two, some_card())], dataset))
    assert [pair.id for pair in chosen.pairs] == ["b_1"]


def test_the_folds_of_several_data_sets_hold_out_photos_of_each(tmp_path, run_of_two):
    group_of = {f"street/{car}_1": f"street/{car}" for car in "abcd"}
    splits = {
        f"fold-{k}": split for k, split in enumerate(make_fold_splits(group_of, dict.fromkeys(group_of, 0.1), folds=2))
    }
    for name in splits:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text((run_of_two / "config.yaml").read_text())
    dataset = Dataset(tmp_path / "photos/cars", "folders", tuple(some_pairs(tmp_path, "a_1", "b_1", "c_1", "d_1")))
    found = select_out_of_fold(dataset, splits, tmp_path)
    assert found is not None
    assert {f"street/{id_}": fold for id_, fold in found.fold_of.items()} == {
        id_: fold for fold, split in splits.items() for id_ in split.validation
    }
    assert not found.warnings
