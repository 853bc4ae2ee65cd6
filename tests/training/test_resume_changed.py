"""Runs that go on with more epochs, or with photos in another place."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from carmask.errors import CarmaskError
from carmask.training.config import TrainSettings
from carmask.training.experiments import ExperimentResult, run_experiment
from carmask.training.run_folder import RunFolder
from noise_pairs import run
from tiny_runs import SMALL, TINY, assert_same_training, train


def begin(settings: TrainSettings, run: Path, *, all_folds: bool = False) -> ExperimentResult:
    """Begin with a run, and stop before its end."""
    while not run.exists():
        # The first times photos are decoded.
        started = run_experiment(settings, resume="auto", all_folds=all_folds, max_minutes=1e-9)
    assert not started.finished
    return started


def test_more_epochs_at_a_constant_rate_are_those_of_a_longer_run(
    finished: tuple[RunFolder, str], make: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("typed", "auto"):
        short, _ = train(make(SMALL, epochs=1, name=name))
        if name == "typed":
            assert run(capsys, "train", "--resume", str(short.path), "--epochs", "3")[0] == 0
        else:
            assert run_experiment(make(SMALL, epochs=3, name=name), resume="auto").finished
        assert_same_training(short, finished[0])
        assert TrainSettings.from_yaml(short.config).epochs == 3


def test_a_damaged_record_of_the_machine_does_not_keep_a_run_from_going_on(make: Any, tmp_path: Path) -> None:
    settings = make(TINY)
    folder = RunFolder(tmp_path)
    folder.config.write_text(settings.to_yaml())
    for damage in (b"", b'{"python": "3.1', b"\xff\xfe"):
        folder.environment.write_bytes(damage)
        folder.record_resumption(settings)
        assert len(json.loads(folder.environment.read_bytes())["resumed"]) == 1


def test_more_epochs_are_refused_where_the_rate_depends_on_their_number(make: Any) -> None:
    short, _ = train(make(TINY))
    before = short.config.read_bytes()
    with pytest.raises(CarmaskError, match=f"one-cycle.*--init {short.path}"):
        run_experiment(resume=short.path, epochs=3)
    assert short.config.read_bytes() == before


@pytest.mark.parametrize("as_typed", [True, False])
def test_photos_may_move_but_not_change(
    tiny: Path, make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, as_typed: bool
) -> None:
    moved = shutil.copytree(tiny, tmp_path / "old")
    settings = make(TINY, data=moved, name="run")
    started = begin(settings, settings.runs / "run")
    moved = moved.rename(tmp_path / "new")
    other = shutil.copytree(tiny, tmp_path / "other")
    for file in sorted(other.glob("train/*"))[:2]:
        file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(CarmaskError, match="photos"):
        run_experiment(resume=started.folder, moved_to=other)
    if as_typed:
        assert run(capsys, "train", str(moved), "--resume", str(started.folder))[0] == 0
    else:
        assert run_experiment(settings.model_copy(update={"data": moved}), resume="auto").finished
    whole, _ = train(make(TINY, name="whole"))
    assert_same_training(RunFolder(started.folder), whole)
    assert TrainSettings.from_yaml(RunFolder(started.folder).config).data == moved
    # From now on it finds them alone.
    assert run_experiment(resume=started.folder).finished


def test_the_photos_of_folds_may_move(tiny: Path, make: Any, tmp_path: Path) -> None:
    moved = shutil.copytree(tiny, tmp_path / "old")
    settings = make(TINY, data=moved, name="folds")
    started = begin(settings, settings.runs / "folds" / "fold-0", all_folds=True)
    moved = moved.rename(tmp_path / "new")
    result = run_experiment(resume=started.folder, moved_to=moved)
    assert result.finished
    assert {TrainSettings.from_yaml(RunFolder(fold).config).data for fold in result.folder.glob("fold-?")} == {moved}


def test_other_settings_of_a_run_to_resume_are_refused(
    finished: tuple[RunFolder, str], tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(finished[0].path)
    for options in (["--optimizer.lr", "1e-3"], ["--preset", "fast"], [str(tiny), "--seed", "3"], ["--all-folds"]):
        status, _, errors = run(capsys, "train", "--resume", folder, *options)
        assert status == 1
        assert "--resume" in errors
    assert run(capsys, "train", "--epochs", "3")[0] == 1
