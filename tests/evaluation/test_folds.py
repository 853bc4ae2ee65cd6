"""Which folds belong together."""

import pytest

from carmask.data.split import Split, make_fold_splits
from carmask.evaluation.folds import FoldsError, read_folds, refuse_mixed_folds

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
    refuse_mixed_folds(some)
    with pytest.raises(FoldsError, match=r"no fold holds out .* and 3 more: these are not all the folds"):
        read_folds(write(tmp_path, some))


def test_folds_that_were_split_differently_are_refused():
    fewer = {id_: group for id_, group in GROUP_OF.items() if id_ != "f_2"}
    regrouped = {**GROUP_OF, "f_2": "g"}
    for other, message in (
        (folds(folds=2), "into 3 folds by seed 0, and into 2 by seed 0"),
        (folds(seed=1), "into 3 folds by seed 0, and into 3 by seed 1"),
        (folds(group_of=fewer), "do not agree on f_2"),
        (folds(group_of=regrouped), "do not agree on f_2"),
    ):
        with pytest.raises(FoldsError, match=f"fold-0 and fold-1 were split differently: .*{message}"):
            refuse_mixed_folds({**folds(), "fold-1": other["fold-1"]})


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
    with pytest.raises(FoldsError, match=f"fold-0 and fold-1 overlap: both hold out {car}_0, {car}_1, {car}_2; "):
        refuse_mixed_folds({**dealt, "fold-1": greedy})
    with pytest.raises(FoldsError, match="fold-0 and fold-2 overlap"):
        refuse_mixed_folds({**dealt, "fold-2": dealt["fold-0"]})
