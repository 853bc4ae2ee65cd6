import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from carmask.cli.evaluate import evaluate_command
from carmask.cli.network import NetworkOptions
from carmask.data.pairs import find_pairs
from carmask.data.split import Split, SplitError
from carmask.errors import CarmaskError
from carmask.evaluation.evaluate import evaluate_selection
from carmask.evaluation.selection import FoldsError, Selection, read_folds, select_out_of_fold
from carmask.exporting.export import export
from carmask.models.network import Network
from carmask.models.series_file import SeriesError, SeriesFile, fold_folders, stages_folder
from carmask.runtime.options import RunOptions
from carmask.segmenter import Segmenter
from carmask.training.run import RunError, RunFolder
from carmask.training.series import (
    SeriesOutcome,
    is_series,
    resume_series,
    stage_settings,
    train_or_resume_series,
    train_series,
)
from carmask.training.settings import SettingsError, TrainSettings
from tiny_runs import TINY, assert_same_training, tiny_settings, train

FOLDS = 2
# Of each run.
STEPS = 2
LARGER: dict[str, Any] = {"input": {"height_px": 48, "width_px": 48}, "optimizer": {"lr": 1e-3}}
STAGED = {**TINY, "stages": ({}, LARGER)}
# So little time that each turn is one photo, one step or one validation.
NO_TIME = 1e-9


def settings_of(recipe: dict[str, Any], *, data: Path, cache: Path, runs: Path, **given: Any) -> TrainSettings:
    dataset = {"cache": cache, "folds": FOLDS, **given.pop("dataset", {})}
    return tiny_settings(recipe, data=data, cache=cache, runs=runs, dataset=dataset, **given)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def make(tiny: Path, cache_folder: Path, runs: Path) -> Any:
    def settings(recipe: dict[str, Any], **given: Any) -> TrainSettings:
        return settings_of(recipe, **{"data": tiny, "cache": cache_folder, "runs": runs, **given})

    return settings


@pytest.fixture(scope="module")
def whole(tiny: Path, cache_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Two folds in two stages each, undisturbed, and what was said. Not to be changed."""
    folder = tmp_path_factory.mktemp("series")
    said = io.StringIO()
    settings = settings_of(STAGED, data=tiny, cache=cache_folder, runs=folder, name="whole")
    outcome = train_series(settings, FOLDS, Console(file=said, width=300))
    assert outcome == SeriesOutcome(folder / "whole", finished=True)
    yield outcome.folder, said.getvalue()
    shutil.rmtree(folder)


def test_every_car_is_held_out_once(whole: tuple[Path, str], tiny: Path) -> None:
    folder, said = whole
    held_out: list[str] = []
    for fold, run in enumerate(fold_folders(folder)):
        settings, split = TrainSettings.from_yaml(run / "config.yaml"), Split.load(run / "split.json")
        assert (settings.dataset.folds, settings.dataset.fold) == (split.folds, split.fold) == (FOLDS, fold)
        assert split == Split.load(stages_folder(run) / "1" / "split.json")
        assert not {split.group_of[id_] for id_ in split.train} & {split.group_of[id_] for id_ in split.validation}
        held_out += split.validation
    assert sorted(held_out) == [pair.id for pair in find_pairs(tiny).pairs]
    assert "series    run 4 of 4" in said
    assert f"carmask evaluate {tiny} --model {folder}" in said


def test_each_run_is_an_ordinary_one_and_starts_from_the_one_before(whole: tuple[Path, str], make: Any) -> None:
    folder, _ = whole
    second = {"dataset": {"fold": 1}}
    first_stage, _ = train(make(TINY, name="first", **second))
    assert_same_training(first_stage, RunFolder(folder / "fold-1.stages" / "1"))
    last_stage, _ = train(make(TINY, name="last", init=first_stage.path, **LARGER, **second))
    assert_same_training(last_stage, RunFolder(folder / "fold-1"))
    assert Network.load(folder / "fold-1").card.geometry.size_HW == (48, 48)
    assert Network.load(folder / "fold-1.stages" / "1").card.geometry.size_HW == (32, 32)


def test_stopped_at_every_step_it_comes_to_the_same(whole: tuple[Path, str], make: Any) -> None:
    settings = make(STAGED, name="stopped")
    turns = 1
    while not (outcome := train_or_resume_series(settings, FOLDS, quiet(), max_minutes=NO_TIME)).finished:
        turns += 1
    assert turns == FOLDS * 2 * (STEPS + 1), "a turn for each step, and one for each validation"
    for run in ("fold-0.stages/1", "fold-0", "fold-1.stages/1", "fold-1"):
        assert_same_training(RunFolder(outcome.folder / run), RunFolder(whole[0] / run))
    before = {run: (run / "checkpoint.pt").stat().st_mtime_ns for run in fold_folders(outcome.folder)}
    assert resume_series(outcome.folder, quiet()).finished
    assert before == {run: (run / "checkpoint.pt").stat().st_mtime_ns for run in before}, "finished runs are kept"

    for changed, folds in ((make(STAGED, name="stopped", seed=1), FOLDS), (settings, 3), (settings, None)):
        with pytest.raises(SeriesError, match=r"stopped: was begun with another (seed|number of folds);"):
            train_or_resume_series(changed, folds, quiet())
    with pytest.raises(RunError, match="--resume"):
        train_series(settings, FOLDS, quiet())


def test_a_run_in_stages_is_resumed_by_its_name(whole: tuple[Path, str], make: Any) -> None:
    settings = make(STAGED, name="staged")
    said = io.StringIO()
    outcome = train_series(settings, None, Console(file=said, width=300), max_minutes=NO_TIME)
    folder = settings.runs / "staged"
    assert outcome == SeriesOutcome(folder, finished=False)
    assert said.getvalue().rstrip().endswith(f"0 of 2 runs finished; go on with `carmask train --resume {folder}`")
    assert not folder.exists()
    assert is_series(folder)
    with pytest.raises(SeriesError, match="--name"):
        train_series(settings, None, quiet())
    assert resume_series(folder, quiet()).finished
    # The same network as the first of the folds.
    assert_same_training(RunFolder(folder), RunFolder(whole[0] / "fold-0"))
    assert sorted(path.name for path in settings.runs.iterdir()) == ["staged", "staged.stages"]
    assert len(Segmenter.load(folder).members) == 1


def test_what_changes_between_folds_is_noticed(tiny: Path, make: Any, tmp_path: Path) -> None:
    data = shutil.copytree(tiny, tmp_path / "data")
    settings = make({**TINY, "batch_size": None, "epoch_samples": 1}, data=data, name="changing")
    folder = train_series(settings, FOLDS, quiet(), max_minutes=NO_TIME).folder
    # A turn for each photo that is read, and those of the first run.
    while not SeriesFile.load(folder / "series.json").finished:
        resume_series(folder, quiet(), max_minutes=NO_TIME)
    assert SeriesFile.load(folder / "series.json").finished == ("fold-0",)
    # What was found for the first fold holds for all of them.
    config = folder / "fold-0" / "config.yaml"
    found = TrainSettings.from_yaml(config)
    config.write_text(found.model_copy(update={"batch_size": 2}).to_yaml())
    gone = data / "train" / "car0_01.jpg"
    gone.unlink()
    with pytest.raises(FoldsError, match=r"fold-0 and fold-1 were split differently: they do not agree on car0_01\. "):
        resume_series(folder, quiet())
    assert found.batch_size != 2
    assert TrainSettings.from_yaml(folder / "fold-1" / "config.yaml").batch_size == 2
    assert SeriesFile.load(folder / "series.json").finished == ("fold-0",)


def test_a_wrong_stage_is_refused_before_the_first_is_trained(make: Any) -> None:
    wrong = {
        r"stage 3: there is no setting 'optimizer\.lrr'; did you mean 'optimizer\.lr'": {"optimizer": {"lrr": 1}},
        "stage 3: epochs = 0": {"epochs": 0},
        "stage 3: name, preset cannot vary": {"preset": "deep", "name": "x"},
        "stage 3: batch_size 5": {"batch_size": 5, "accumulate": 2},
    }
    for message, stage in wrong.items():
        settings = make({**TINY, "stages": ({}, {"epochs": 2}, stage)}, name="wrong")
        for folds in (None, FOLDS):
            with pytest.raises(SettingsError, match=message):
                train_series(settings, folds, quiet())
        assert not settings.runs.exists()
    first, second = stage_settings(make(STAGED))
    assert (first.input.height_px, first.optimizer.lr) == (32, 3e-3)
    assert (second.input.height_px, second.optimizer.lr, second.optimizer.name) == (48, 1e-3, "adamw")


def test_impossible_folds_are_refused_and_leave_nothing(make: Any) -> None:
    refused: list[tuple[dict[str, Any], int | None, type[CarmaskError]]] = [
        ({}, 1, SettingsError),
        ({}, None, SettingsError),
        ({"dataset": {"fold": 1}}, FOLDS, SettingsError),
        ({"dataset": {"fraction": 0.3}}, FOLDS, SettingsError),
        ({}, 7, SplitError),
    ]
    for given, folds, error in refused:
        settings = make(TINY, name="refused", **given)
        with pytest.raises(error):
            train_series(settings, folds, quiet())
        assert not (settings.runs / "refused").exists()


def test_out_of_fold_figures_are_those_of_the_folds(whole: tuple[Path, str], tiny: Path, tmp_path: Path) -> None:
    folder, _ = whole
    runs = fold_folders(folder)
    pairs = find_pairs(tiny).pairs
    on_its_own = {}
    for run in runs:
        held_out = set(Split.load(run / "split.json").validation)
        chosen = [pair for pair in pairs if pair.id in held_out]
        network = Segmenter.load(run, RunOptions(precision="float32"))
        alone = evaluate_selection(Selection(tuple(chosen)), network, batch_size=5)
        on_its_own |= {row.id: (run.name, row.metrics) for row in alone.rows}

    splits = read_folds(runs)
    selection = select_out_of_fold(pairs, splits)
    assert selection is not None
    assert (selection.pairs, selection.warnings) == (tuple(pairs), ())
    ensemble = Segmenter.load(folder, RunOptions(precision="float32"))
    seen = []
    together = evaluate_selection(
        selection, ensemble, batch_size=5, progress=lambda done, total: seen.append((done, total))
    )
    assert [row.id for row in together.rows] == sorted(on_its_own)
    for row in together.rows:
        fold, metrics = on_its_own[row.id]
        assert (together.fold_of[row.id], asdict(row.metrics)) == (fold, pytest.approx(asdict(metrics), rel=1e-8))
    assert seen == [(done, 24) for done in range(1, 25)]

    options = NetworkOptions((str(folder),), RunOptions(precision="float32"))
    assert evaluate_command(tiny, network=options, worst=2, out=tmp_path) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["photos"], summary["part"], summary["model_name"]) == (24, "out-of-fold", "whole")
    assert "measured by the network of the fold that held it out" in summary["remarks"][0]
    for row in summary["by_fold"]:
        dice = [metrics.dice for name, metrics in on_its_own.values() if name == row["name"]]
        assert (row["photos"], row["dice"]) == (len(dice), pytest.approx(np.mean(dice)))
    assert "out of fold" in (tmp_path / "report.html").read_text()
    lines = (tmp_path / "per_image.csv").read_text().splitlines()
    assert lines[0].endswith(",error,fold")
    assert all(line.endswith(f",{on_its_own[line.split(',')[0]][0]}") for line in lines[1:])


def test_photos_that_no_fold_held_out_are_told(whole: tuple[Path, str], tiny: Path, tmp_path: Path) -> None:
    splits = read_folds(fold_folders(whole[0]))
    pairs = find_pairs(tiny).pairs
    of_first = [pair for pair in pairs if pair.id in splits["fold-0"].validation]
    found = select_out_of_fold([*of_first, *find_pairs(_renamed(tiny, tmp_path)).pairs], splits)
    assert found is not None
    assert found.pairs == tuple(of_first)
    assert found.warnings == (
        "fold-1: none of the 12 photos that it held out is in the data.",
        "4 photos of the data are in no fold and are left out: new_01, new_02, new_03 and 1 more.",
    )
    # By what is new altogether the average of the networks is measured.
    options = NetworkOptions((str(whole[0]),))
    assert evaluate_command(tmp_path / "renamed", network=options, worst=0, out=tmp_path / "out") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["photos"], summary["part"], len(summary["model"]["members"])) == (4, "all", FOLDS)
    assert summary["warnings"] == []


def _renamed(tiny: Path, tmp_path: Path) -> Path:
    """The first car of the tiny data set, as another one."""
    for folder in ("train", "train_masks"):
        (tmp_path / "renamed" / folder).mkdir(parents=True)
        for path in (tiny / folder).glob("car0_*"):
            shutil.copy(path, tmp_path / "renamed" / folder / path.name.replace("car0", "new"))
    return tmp_path / "renamed"


def test_a_folder_of_folds_is_an_ensemble(whole: tuple[Path, str], tiny: Path) -> None:
    photo = find_pairs(tiny).pairs[0].image
    runs = fold_folders(whole[0])
    probability_HW = Segmenter.load(whole[0], RunOptions(precision="float32"), tta="flip")(photo).probability
    listed_HW = Segmenter.load(runs, RunOptions(precision="float32"), tta="flip")(photo).probability
    np.testing.assert_array_equal(probability_HW, listed_HW)
    singles = [Segmenter.load(run, RunOptions(precision="float32"), tta="flip")(photo).probability for run in runs]
    assert np.abs(singles[0] - singles[1]).max() > 1e-3
    np.testing.assert_allclose(probability_HW, np.mean(singles, axis=0), atol=1e-6)


def test_where_one_network_is_wanted_a_fold_must_be_named(whole: tuple[Path, str]) -> None:
    for use in (Network.load, export):
        with pytest.raises(
            CarmaskError, match=r"whole: holds 2 folds, each with a network; name one, such as .*fold-0"
        ):
            use(whole[0])


def test_unfinished_or_damaged_folds_are_not_used(whole: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "part"
    folder.mkdir()
    file = SeriesFile.load(whole[0] / "series.json")
    file.model_copy(update={"finished": ("fold-0.stages/1", "fold-0", "fold-1.stages/1")}).save(folder / "series.json")
    with pytest.raises(
        SeriesError, match="part: fold-1 of 2 folds is not finished; go on with `carmask train --resume"
    ):
        Segmenter.load(folder)
    file.save(folder / "series.json")
    (folder / "fold-0").symlink_to(whole[0] / "fold-0")
    with pytest.raises(SeriesError, match="the run of fold-1 is gone"):
        Segmenter.load(folder)
    for damage, said in (
        ('{"folds": 1}', "cannot be understood"),
        ("{", "does not say"),
        ("[]", "cannot be understood"),
    ):
        (folder / "series.json").write_text(damage)
        for use in (Segmenter.load, Network.load, resume_series):
            with pytest.raises(SeriesError, match=rf"series\.json: {said}"):
                use(folder)
