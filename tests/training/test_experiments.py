import io
import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from carmask.cli.evaluate import evaluate_command
from carmask.cli.options import NetworkOptions
from carmask.data.pairs import find_pairs
from carmask.data.split import Split, SplitError
from carmask.errors import CarmaskError
from carmask.evaluation.evaluate import evaluate_selection
from carmask.evaluation.folds import FoldsError, read_folds, select_out_of_fold
from carmask.evaluation.selection import Selection
from carmask.exporting.export import export
from carmask.models.network import Network
from carmask.models.series_file import SeriesError, SeriesFile, fold_folders, stages_folder
from carmask.runtime.options import RunOptions
from carmask.segmenter import Segmenter
from carmask.training.config import SettingsError, TrainSettings
from carmask.training.experiments import ExperimentResult, run_experiment
from carmask.training.run_folder import RunError, RunFolder
from carmask.training.series import stage_settings
from carmask.training.validation import ValidationResult, validate
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


def run_all(
    settings: TrainSettings | None = None, *, resume: Path | str | None = None, folds: bool = True, **given: Any
) -> ExperimentResult:
    """Run an experiment, by default of all folds."""
    given = {"console": Console(quiet=True), **given}
    return run_experiment(settings, resume=resume, all_folds=folds and settings is not None, **given)


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
    result = run_all(settings, console=Console(file=said, width=300))
    assert result == ExperimentResult(folder / "whole", finished=True)
    yield result.folder, said.getvalue()
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
    while not (result := run_all(settings, resume="auto", max_minutes=NO_TIME)).finished:
        turns += 1
    assert turns == FOLDS * 2 * (STEPS + 1), "a turn for each step, and one for each validation"
    for run in ("fold-0.stages/1", "fold-0", "fold-1.stages/1", "fold-1"):
        assert_same_training(RunFolder(result.folder / run), RunFolder(whole[0] / run))
    before = {run: (run / "checkpoint.pt").stat().st_mtime_ns for run in fold_folders(result.folder)}
    assert run_all(resume=result.folder).finished
    assert before == {run: (run / "checkpoint.pt").stat().st_mtime_ns for run in before}, "finished runs are kept"

    three = make(STAGED, name="stopped", dataset={"folds": 3})
    for changed, folds, name in (
        (make(STAGED, name="stopped", seed=1), True, "seed"),
        (three, True, r"dataset\.folds"),
        (settings, False, "--all-folds"),
    ):
        with pytest.raises(SettingsError, match=name):
            run_all(changed, resume="auto", folds=folds)
    with pytest.raises(RunError):
        run_all(settings)


def test_a_run_in_stages_is_resumed_by_its_name(whole: tuple[Path, str], make: Any) -> None:
    settings = make(STAGED, name="staged")
    folder = settings.runs / "staged"
    assert run_all(settings, folds=False, max_minutes=NO_TIME) == ExperimentResult(folder, finished=False)
    assert not folder.exists()
    with pytest.raises(SeriesError):
        run_all(settings, folds=False)
    assert run_all(resume=folder).finished
    # The same network as the first of the folds.
    assert_same_training(RunFolder(folder), RunFolder(whole[0] / "fold-0"))
    assert sorted(path.name for path in settings.runs.iterdir()) == ["staged", "staged.stages"]
    assert len(Segmenter.load(folder).members) == 1


def test_a_signal_during_the_last_validation_of_a_run_stops_the_series(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: Any) -> ValidationResult:
        signal.raise_signal(signal.SIGINT)
        return validate(*given)

    monkeypatch.setattr("carmask.training.train.validate", interrupted)
    result = run_all(make(STAGED, name="interrupted"), folds=False)
    assert not result.finished
    assert SeriesFile.load(stages_folder(result.folder) / "series.json").finished == ("1",)
    assert not result.folder.exists()


def test_what_changes_between_folds_is_noticed(tiny: Path, make: Any, tmp_path: Path) -> None:
    data = shutil.copytree(tiny, tmp_path / "data")
    settings = make({**TINY, "batch_size": None, "epoch_samples": 1}, data=data, name="changing")
    folder = run_all(settings, max_minutes=NO_TIME).folder
    # A turn for each photo that is read, and those of the first run.
    while not SeriesFile.load(folder / "series.json").finished:
        run_all(resume=folder, max_minutes=NO_TIME)
    assert SeriesFile.load(folder / "series.json").finished == ("fold-0",)
    # What was found for the first fold holds for all of them.
    config = folder / "fold-0" / "config.yaml"
    found = TrainSettings.from_yaml(config)
    config.write_text(found.model_copy(update={"batch_size": 2}).to_yaml())
    gone = data / "train" / "car0_01.jpg"
    gone.unlink()
    with pytest.raises(FoldsError, match="car0_01"):
        run_all(resume=folder)
    assert found.batch_size != 2
    assert TrainSettings.from_yaml(folder / "fold-1" / "config.yaml").batch_size == 2
    assert SeriesFile.load(folder / "series.json").finished == ("fold-0",)


def test_a_wrong_stage_is_refused_before_the_first_is_trained(make: Any) -> None:
    wrong = {
        r"stage 3: .*optimizer\.lrr": {"optimizer": {"lrr": 1}},
        "stage 3: epochs": {"epochs": 0},
        "stage 3: name, preset": {"preset": "deep", "name": "x"},
        "stage 3: batch_size": {"batch_size": 5, "accumulate": 2},
    }
    for message, stage in wrong.items():
        settings = make({**TINY, "stages": ({}, {"epochs": 2}, stage)}, name="wrong")
        for folds in (False, True):
            with pytest.raises(SettingsError, match=message):
                run_all(settings, folds=folds)
        assert not settings.runs.exists()
    first, second = stage_settings(make(STAGED))
    assert (first.input.height_px, first.optimizer.lr) == (32, 3e-3)
    assert (second.input.height_px, second.optimizer.lr, second.optimizer.name) == (48, 1e-3, "adamw")


def test_impossible_folds_are_refused_and_leave_nothing(make: Any) -> None:
    refused: list[tuple[dict[str, Any], type[CarmaskError]]] = [
        ({"fold": 1}, SettingsError),
        ({"fraction": 0.3}, SettingsError),
        ({"folds": 7}, SplitError),
    ]
    of_datasets = make({**TINY, "datasets": {"cars": {"path": ".", "split": "split.json"}}}, name="refused")
    for settings, error in (
        *((make(TINY, name="refused", dataset=dataset), error) for dataset, error in refused),
        (of_datasets, SettingsError),
    ):
        with pytest.raises(error):
            run_all(settings)
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
    selection = select_out_of_fold(find_pairs(tiny), splits, folder)
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
    others = find_pairs(_renamed(tiny, tmp_path))
    mixed = replace(others, pairs=(*of_first, *others.pairs))
    found = select_out_of_fold(mixed, splits, whole[0])
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
        with pytest.raises(CarmaskError, match="fold-0"):
            use(whole[0])


def test_unfinished_or_damaged_folds_are_not_used(whole: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "part"
    folder.mkdir()
    file = SeriesFile.load(whole[0] / "series.json")
    file.model_copy(update={"finished": ("fold-0.stages/1", "fold-0", "fold-1.stages/1")}).save(folder / "series.json")
    with pytest.raises(SeriesError, match="fold-1"):
        Segmenter.load(folder)
    file.save(folder / "series.json")
    (folder / "fold-0").symlink_to(whole[0] / "fold-0")
    with pytest.raises(SeriesError, match="fold-1"):
        Segmenter.load(folder)
    for damage in ('{"folds": 1}', "{", "[]"):
        (folder / "series.json").write_text(damage)
        for use in (Segmenter.load, Network.load, lambda folder: run_all(resume=folder)):
            with pytest.raises(SeriesError, match=r"series\.json"):
                use(folder)
