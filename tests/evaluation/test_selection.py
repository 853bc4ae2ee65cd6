"""Which photos are measured, and what is said of whether the model has learned from them."""

import pytest

from carmask.data.pairs import Pair
from carmask.data.split import Split
from carmask.evaluation.evaluate import EvaluationError
from carmask.evaluation.selection import Learned, find_run, select_pairs, what_was_learned
from carmask.imaging.geometry import Geometry
from carmask.runtime.card import ModelCard


def some_pairs(tmp_path, *ids):
    return [Pair(id_, tmp_path / id_, "", id_.split("_")[0], id_.split("_")[1]) for id_ in ids]


def some_split(train, validation):
    group_of = {id_: id_.split("_")[0] for id_ in (*train, *validation)}
    return Split(seed=0, train=train, validation=validation, group_of=group_of)


def test_held_out_photos_are_measured_where_the_run_says_which(tmp_path):
    pairs = some_pairs(tmp_path, "a_1", "a_2", "b_1", "c_1")
    run = some_split(("a_1", "a_2"), ("b_1", "gone_1"))
    selection = select_pairs(pairs, learned=Learned.from_split(run))
    assert [pair.id for pair in selection.pairs] == ["b_1"]
    assert selection.part == "validation"
    assert selection.remarks[0].startswith("Held out")
    assert selection.warnings == ("1 of the split's 2 validation photos are not in the data.",)


def test_photos_that_were_trained_on_are_warned_of(tmp_path):
    pairs = some_pairs(tmp_path, "a_1", "a_2", "a_3", "b_1", "c_1")
    run = some_split(("a_1", "a_2"), ("b_1",))
    everything = select_pairs(pairs, part="all", learned=Learned.from_split(run))
    assert len(everything.pairs) == 5
    assert everything.warnings == (
        "2 of 5 photos were trained on; these figures are not held-out.",
        "1 of 5 photos are of groups that were trained on; these figures are not held-out.",
    )
    assert not any(remark.startswith("Held out") for remark in everything.remarks)
    other_split = some_split(("b_1",), ("a_2", "c_1"))
    chosen = select_pairs(pairs, split=other_split, learned=Learned.from_split(run))
    assert [pair.id for pair in chosen.pairs] == ["a_2", "c_1"]
    assert chosen.warnings == ("1 of 2 photos were trained on; these figures are not held-out.",)


def test_a_split_of_other_photos_is_not_followed(tmp_path):
    pairs = some_pairs(tmp_path, "x_1", "y_1")
    run = some_split(("a_1",), ("b_1",))
    selection = select_pairs(pairs, learned=Learned.from_split(run))
    assert (len(selection.pairs), selection.part) == (2, "all")
    assert "held out: all are measured" in selection.remarks[0]
    with pytest.raises(EvaluationError, match="none of the 1 validation photos"):
        select_pairs(pairs, part="validation", learned=Learned.from_split(run))


def test_without_any_split_all_photos_are_measured_and_nothing_is_claimed(tmp_path):
    pairs = some_pairs(tmp_path, "x_1", "y_1")
    selection = select_pairs(pairs)
    assert (len(selection.pairs), selection.part, selection.warnings) == (2, "all", ())
    assert "not known" in selection.remarks[0]
    with pytest.raises(EvaluationError, match="--part all"):
        select_pairs(pairs, part="train")


def some_card(learned=(), held_out=()):
    geometry = Geometry(height_px=64, width_px=96)
    known = {"train_groups": learned, "held_out_groups": held_out}
    fixed = {"version": "1", "preset": None, "channels": 3, "stride_px": 8, "threshold": 0.5, "precision": "float32"}
    return ModelCard(name="x", geometry=geometry, **fixed, **known)


def test_an_exported_model_says_itself_what_it_held_out(tmp_path):
    learned = what_was_learned([(tmp_path / "m.onnx", some_card(("a", "b"), ("c", "gone")))])
    pairs = some_pairs(tmp_path, "a_1", "b_1", "c_1", "c_2", "new_1")
    selection = select_pairs(pairs, learned=learned)
    assert [pair.id for pair in selection.pairs] == ["c_1", "c_2"]
    assert selection.part == "validation"
    assert selection.warnings == ()
    assert "1 of the split's 2 validation groups are not in the data." in selection.remarks
    assert any(remark.startswith("Held out") for remark in selection.remarks)
    assert any("best epoch" in remark for remark in selection.remarks)
    trained = select_pairs(pairs, part="train", learned=learned)
    assert [pair.id for pair in trained.pairs] == ["a_1", "b_1"]
    everything = select_pairs(pairs, part="all", learned=learned)
    assert everything.warnings == ("2 of 5 photos are of groups that were trained on; these figures are not held-out.",)
    new = select_pairs(pairs[-1:], learned=learned)
    assert (new.part, len(new.pairs), new.warnings) == ("all", 1, ())
    assert not any("best epoch" in remark for remark in new.remarks)
    by_other_split = select_pairs(pairs, split=some_split(("c_1",), ("a_1",)), learned=learned)
    assert by_other_split.warnings[-1].startswith("1 of 1 photos are of groups that were trained on")


def test_several_models_have_held_out_what_none_has_learned_from(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    some_split(("a_1",), ("b_1", "c_1")).save(run / "split.json")
    card, place = some_card(("b",), ("a", "c")), tmp_path / "m.onnx"
    together = what_was_learned([(run, some_card()), (place, card)])
    assert together.train_groups == {"a", "b"}
    assert together.validation_groups == {"c"}
    pairs = some_pairs(tmp_path, "a_1", "b_1", "c_1")
    assert [pair.id for pair in select_pairs(pairs, learned=together).pairs] == ["c_1"]
    assert what_was_learned([(place, card), (place, some_card())]) is None
    assert what_was_learned([(run, some_card())]) == Learned.from_split(some_split(("a_1",), ("b_1", "c_1")))


def test_a_run_is_known_by_its_settings_and_split(tmp_path):
    run = tmp_path / "runs" / "one"
    (run / "weights" / "best").mkdir(parents=True)
    (tmp_path / "split.json").touch()
    assert find_run(run) is None, "a split.json in the working folder is not a run's"
    (run / "split.json").touch()
    (run / "config.yaml").touch()
    assert find_run(run) == find_run(run / "weights" / "best") == run
