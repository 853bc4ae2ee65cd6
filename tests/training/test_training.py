import csv
import io
import json
import math
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from carmask.data.pairs import find_pairs
from carmask.data.split import Split, SplitError, make_split
from carmask.errors import CarmaskError
from carmask.evaluation.metrics import dice
from carmask.models.network import Network, NetworkConfig
from carmask.runtime.hardware import Hardware
from carmask.segmenter import Segmenter
from carmask.training import start
from carmask.training.averaging import AveragedWeights
from carmask.training.checkpoint import CheckpointError
from carmask.training.interrupt import Interrupt
from carmask.training.loop import TrainingError
from carmask.training.run import RunError, RunFolder
from carmask.training.settings import TrainSettings
from carmask.training.state import start_state
from conftest import write_tiny_dataset

# Sixteen photos of four cars to learn from, eight of two cars held out: four steps in an epoch.
STEPS_IN_EPOCH = 4
SMALL: dict[str, Any] = {
    "preset": "small",
    "epochs": 3,
    "batch_size": 4,
    "input": {"height_px": 32, "width_px": 32},
    "optimiser": {"lr": 1e-3},
}
# Everything that has a state of its own or draws at random: BatchNorm, averaged weights, schedule, augmentation.
FAST: dict[str, Any] = {"preset": "fast", "epochs": 2, "batch_size": 4, "input": {"height_px": 64, "width_px": 64}}
TIMES = {"images_per_s", "train_s", "validation_s"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    """Folder for runs, emptied after the test: a run's weights are large."""
    yield tmp_path / "runs"
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)


@pytest.fixture
def make(tiny: Path, cache: Path, runs: Path) -> Any:
    """Settings for the tiny data set, on one thread in float32, so that they say the same everywhere."""

    def make(recipe: dict[str, Any], **given: Any) -> TrainSettings:
        fixed = {
            "data": tiny,
            "runs": runs,
            "dataset": {"cache": cache, "folds": 3},
            "hardware": {"device": "cpu", "precision": "float32", "threads": 1},
        }
        return TrainSettings.model_validate({**fixed, **recipe, **given})

    return make


def train(settings: TrainSettings) -> tuple[RunFolder, str]:
    """Train; the run and what was said."""
    said = io.StringIO()
    run = start.train(settings, Console(file=said, width=200)).run
    return run, said.getvalue()


def resume(run: RunFolder) -> str:
    said = io.StringIO()
    assert start.resume(run.path, Console(file=said, width=200)).run == run
    return said.getvalue()


def rows(run: RunFolder) -> list[dict[str, str]]:
    with run.metrics.open(newline="") as file:
        return list(csv.DictReader(file))


def untimed(run: RunFolder) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows(run)]


def weights(run: RunFolder, which: str) -> dict[str, torch.Tensor]:
    return load_file(run.weights(which) / "model.safetensors")


def assert_same_training(run: RunFolder, other: RunFolder) -> None:
    assert untimed(run) == untimed(other)
    for which in ("last", "best"):
        one, another = weights(run, which), weights(other, which)
        assert one.keys() == another.keys()
        for name, tensor in one.items():
            assert torch.equal(tensor, another[name]), f"{which}: {name}"


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


@pytest.fixture(scope="module")
def finished(tiny: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunFolder, str]]:
    """A run of `small` that nobody disturbed."""
    folder = tmp_path_factory.mktemp("finished")
    settings = TrainSettings.model_validate(
        {
            "data": tiny,
            "runs": folder,
            "name": "whole",
            "dataset": {"cache": cache, "folds": 3},
            "hardware": {"device": "cpu", "precision": "float32", "threads": 1},
            **SMALL,
        }
    )
    yield train(settings)
    shutil.rmtree(folder)


def test_a_run_s_folder_explains_it(finished: tuple[RunFolder, str]) -> None:
    run, said = finished
    names = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    boards = {name for name in names if name.startswith("tensorboard/events")}
    assert len(boards) == 1
    weights_ = {
        f"weights/{which}/{name}" for which in ("best", "last") for name in ("config.json", "model.safetensors")
    }
    assert {name for name in names - boards if not name.endswith("README.md")} == {
        "config.yaml", "environment.json", "split.json", "checkpoint.pt", "metrics.csv", "curves.png",
        "samples/epoch_001.png", "samples/epoch_002.png", "samples/epoch_003.png", *weights_,
    }  # fmt: skip
    for name in names:
        if name.endswith(".png"):
            Image.open(run.path / name).load()
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    settings = TrainSettings.from_yaml(run.config)
    assert (settings.optimiser.lr, settings.epochs, settings.name) == (1e-3, 3, "whole")
    for part in (
        "16 of 4 groups",
        "8 of 2 held out",
        "2.07 M parameters",
        "float32",
        "3 epochs of 4 steps",
        str(run.path),
    ):
        assert part in said


def test_held_out_cars_are_not_learnt_from(finished: tuple[RunFolder, str]) -> None:
    split = Split.load(finished[0].split)
    learnt, held_out = ({id_[:4] for id_ in side} for side in (split.train, split.validation))
    assert (len(learnt), len(held_out)) == (4, 2)
    assert not learnt & held_out


def test_metrics_have_a_row_for_each_epoch_and_the_loss_falls(finished: tuple[RunFolder, str]) -> None:
    table = rows(finished[0])
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert [int(row["step"]) for row in table] == [4, 8, 12]
    assert [int(row["photos"]) for row in table] == [16, 32, 48]
    losses = [float(row["train_loss"]) for row in table]
    assert losses[0] > losses[1] > losses[2]
    # A network that knows nothing says one half everywhere.
    assert losses[2] < math.log(2)
    assert all(float(row["images_per_s"]) > 0 for row in table)


def test_the_best_weights_are_those_of_the_best_epoch(finished: tuple[RunFolder, str]) -> None:
    run, said = finished
    scores = [float(row["dice"]) for row in rows(run)]
    best = Network.load(run.weights("best")).config
    assert best.training["epoch"] == 1 + scores.index(max(scores))
    assert best.training["held_out_dice"] == pytest.approx(max(scores), abs=1e-5)
    assert Network.load(run.weights("last")).config.training["epoch"] == 3
    assert f"best Dice {max(scores):.5f}" in said
    assert best.geometry.size_HW == (32, 32)


def test_the_dice_in_the_table_is_what_prediction_gives(finished: tuple[RunFolder, str], tiny: Path) -> None:
    run, _ = finished
    segmenter = Segmenter.load(run.weights("last"), device="cpu", precision="float32")
    _, held_out = Split.load(run.split).select(find_pairs(tiny).pairs)
    scores = []
    for pair in held_out:
        truth_HW = np.array(Image.open(pair.mask)) > 0
        scores.append(dice(truth_HW, segmenter(pair.image).mask_HW))
    row = rows(run)[-1]
    # One pixel of one photo more or less: a batch is summed in another order than a single photo.
    assert float(row["dice"]) == pytest.approx(np.mean(scores), abs=1e-4)
    assert float(row["dice_median"]) == pytest.approx(np.median(scores), abs=1e-3)
    assert float(row["dice_worst"]) == pytest.approx(min(scores), abs=1e-3)


def test_the_same_settings_give_the_same_weights(finished: tuple[RunFolder, str], make: Any) -> None:
    assert_same_training(train(make(SMALL))[0], finished[0])


def test_another_seed_gives_other_weights_on_the_same_split(finished: tuple[RunFolder, str], make: Any) -> None:
    run, _ = train(make(SMALL, seed=1, epochs=1))
    one, another = weights(run, "last"), weights(finished[0], "last")
    assert not any(torch.equal(tensor, another[name]) for name, tensor in one.items() if tensor.ndim > 1)
    assert Split.load(run.split) == Split.load(finished[0].split)


@pytest.mark.parametrize("step", [1, STEPS_IN_EPOCH + 2, 2 * STEPS_IN_EPOCH])
def test_interrupted_and_resumed_is_as_if_undisturbed(finished: tuple[RunFolder, str], make: Any, step: int) -> None:
    with interrupted_in_step(step):
        run, said = train(make(SMALL))
    assert f"stopped after step {step}" in said
    assert f"carmask train --resume {run.path}" in said
    assert len(rows(run)) == step // STEPS_IN_EPOCH if run.metrics.exists() else step < STEPS_IN_EPOCH
    assert "best Dice" in resume(run)
    assert_same_training(run, finished[0])


def test_resuming_restores_all_that_has_a_state(make: Any) -> None:
    whole, _ = train(make(FAST, name="whole"))
    assert weights(whole, "last").keys() >= {"unet.encoders.0.1.running_mean"}
    with interrupted_in_step(3):
        run, _ = train(make(FAST, name="parts"))
    with interrupted_in_step(3):
        assert "stopped after step 6" in resume(run)
    resume(run)
    assert_same_training(run, whole)
    # And once more: there is nothing left to do.
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


def test_a_name_is_used_once(finished: tuple[RunFolder, str], make: Any) -> None:
    run, _ = finished
    before = run.config.read_bytes()
    with pytest.raises(RunError, match=r"whole: exists already.*--resume") as caught:
        train(make(SMALL, runs=run.path.parent, name="whole", epochs=1))
    assert "--name" in str(caught.value)
    assert run.config.read_bytes() == before


def test_the_batch_size_that_was_found_is_written_down(make: Any) -> None:
    run, said = train(make(SMALL, batch_size=None, epochs=1))
    # Half of sixteen photos, on any machine that can hold the network at all.
    assert TrainSettings.from_yaml(run.config).batch_size == 8
    assert "1 epochs of 2 steps of 8 photos" in said


def test_an_epoch_may_have_any_number_of_photos(make: Any) -> None:
    run, _ = train(make(SMALL, epochs=2, epoch_samples=6))
    assert [int(row["photos"]) for row in rows(run)] == [8, 16]


def test_training_stops_early_when_nothing_gets_better(make: Any) -> None:
    stuck = {**SMALL, "epochs": 9, "patience": 2, "optimiser": {"name": "sgd", "lr": 1e-12}}
    run, said = train(make(stuck))
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]
    assert "no better Dice for 2 epochs" in said
    assert Network.load(run.path).config.training["epoch"] == 1
    resume(run)
    assert len(rows(run)) == 3


@pytest.mark.parametrize("epoch_samples", [16, 400])
def test_a_diverged_run_says_what_to_do_and_keeps_no_broken_weights(make: Any, epoch_samples: int) -> None:
    wild = {**SMALL, "epochs": 20, "epoch_samples": epoch_samples, "optimiser": {"name": "sgd", "lr": 10}}
    settings = make(wild, name="wild")
    with pytest.raises(TrainingError, match=r"diverged.* --optimiser\.lr.* --optimiser\.clip-norm") as caught:
        train(settings)
    assert "  " not in str(caught.value)
    for file in settings.runs.rglob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(file).values()), file


def test_photos_that_cannot_be_used_are_named_and_left_out(tiny: Path, make: Any, tmp_path: Path) -> None:
    data = shutil.copytree(tiny, tmp_path / "data")
    os.truncate(data / "train" / "car1_02.jpg", 500)
    (data / "train_masks" / "car2_03_mask.gif").unlink()
    run, said = train(make(SMALL, data=data, epochs=1))
    split = Split.load(run.split)
    assert len(split.train) + len(split.validation) == 22
    assert not {"car1_02", "car2_03"} & {*split.train, *split.validation}
    with (run.path / "left_out.csv").open(newline="") as file:
        left_out = {Path(row["photo"]).stem: row["cause"] for row in csv.DictReader(file)}
    assert left_out.keys() == {"car1_02", "car2_03"}
    assert "car1_02.jpg" in left_out["car1_02"]
    for line in ("car1_02", "car2_03"):
        assert any("left out" in said_line and line in said_line for said_line in said.splitlines())


def some_split(data: Path) -> Split:
    pairs = find_pairs(data).pairs
    return make_split({pair.id: pair.group for pair in pairs}, {pair.id: 0.3 for pair in pairs}, folds=3)


def test_a_given_split_is_used(tiny: Path, make: Any, tmp_path: Path) -> None:
    split = some_split(tiny).model_copy(update={"seed": 12345})
    split.save(tmp_path / "split.json")
    run, _ = train(make(SMALL, epochs=1, dataset={"split": tmp_path / "split.json", "cache": tmp_path / "cache"}))
    assert Split.load(run.split) == split


def test_a_split_that_does_not_fit_the_data_is_refused_before_anything_is_made(
    tiny: Path, make: Any, tmp_path: Path
) -> None:
    text = some_split(tiny).model_dump_json().replace("car3_02", "car3_99")
    (tmp_path / "split.json").write_text(text)
    settings = make(SMALL, dataset={"split": tmp_path / "split.json", "cache": tmp_path / "cache"})
    with pytest.raises(SplitError, match="car3_99"):
        train(settings)
    assert not settings.runs.exists()


@pytest.mark.parametrize("side", ["train", "validation"])
def test_a_side_without_a_usable_photo_is_refused(tiny: Path, make: Any, tmp_path: Path, side: str) -> None:
    data = shutil.copytree(tiny, tmp_path / "data")
    split = some_split(data)
    split.save(tmp_path / "split.json")
    for id_ in getattr(split, side):
        os.truncate(data / "train" / f"{id_}.jpg", 300)
    settings = make(SMALL, data=data, dataset={"split": tmp_path / "split.json", "cache": tmp_path / "cache"})
    with pytest.raises(CarmaskError, match="split"):
        train(settings)
    assert not settings.runs.exists()


def test_a_damaged_checkpoint_is_not_resumed_from(finished: tuple[RunFolder, str], tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(finished[0].path, tmp_path / "run"))
    content = run.checkpoint.read_bytes()
    damages = {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "text": b"hello",
    }
    for damage in damages.values():
        run.checkpoint.write_bytes(damage)
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt: damaged"):
            resume(run)
    for foreign in ({"network": {}}, {}, [1], torch.zeros(3)):
        torch.save(foreign, run.checkpoint)
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
            resume(run)
    run.checkpoint.unlink()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        resume(run)
    with pytest.raises(RunError, match="not the folder of a run"):
        start.resume(tmp_path)


def test_training_runs_in_bfloat16(make: Any) -> None:
    run, said = train(
        make(FAST, epochs=1, loss={"name": "border"}, hardware={"device": "cpu", "precision": "bf16", "threads": 1})
    )
    assert "bfloat16 (as asked" in said
    # Weights stay in float32; only what is computed with them is rounded.
    assert {tensor.dtype for tensor in weights(run, "last").values()} <= {torch.float32, torch.int64}
    assert math.isfinite(float(rows(run)[0]["train_loss"]))


def test_weight_decay_spares_biases_and_norms(make: Any) -> None:
    settings = make(FAST, optimiser={"weight_decay": 0.1})
    network = Network(NetworkConfig.from_preset("fast"))
    state = start_state(settings, network, Hardware(torch.device("cpu"), torch.float32, "as asked"), "")
    decay_of = {
        id(parameter): group["weight_decay"] for group in state.optimiser.param_groups for parameter in group["params"]
    }
    for name, parameter in network.named_parameters():
        is_kernel = name.endswith("weight") and parameter.ndim == 4
        assert decay_of.pop(id(parameter)) == (0.1 if is_kernel else 0.0), name
    assert not decay_of


def test_averaged_weights_follow_slowly() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    averaged = AveragedWeights(network, decay=0.8)
    wanted: NDArray[np.float64] = np.array(network[0].weight.item())
    for update in range(1, 60):
        nn.init.constant_(network[0].weight, update)
        network(torch.rand(2, 1, 4, 4))
        averaged.update(network)
        decay = min(0.8, update / (update + 9))
        wanted = decay * wanted + (1 - decay) * update
        assert averaged.network[0].weight.item() == pytest.approx(wanted, rel=1e-5)
    assert averaged.network[1].num_batches_tracked == 59
    assert averaged.network[1].running_mean != network[1].running_mean

    again = AveragedWeights(network, decay=0.8)
    again.load_state_dict(averaged.state_dict())
    for one in (averaged, again):
        one.update(network)
    assert torch.equal(again.network[0].weight, averaged.network[0].weight)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_a_wish_first_and_a_command_then(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        assert not interrupt.asked
        signal.raise_signal(number)
        assert interrupt.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_a_worker_s_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with Interrupt() as interrupt:
            seen.append((interrupt.asked, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_a_run_that_died_before_its_first_epoch_can_be_resumed(finished: tuple[RunFolder, str], make: Any) -> None:
    with interrupted_in_step(1, times=2), pytest.raises(KeyboardInterrupt):
        train(make(SMALL, name="died"))
    run = RunFolder.existing(make(SMALL, name="died").runs / "died")
    assert not run.metrics.exists()
    resume(run)
    assert_same_training(run, finished[0])
    assert len(json.loads((run.path / "environment.json").read_text())["resumed"]) == 1


def test_other_photos_are_not_resumed_with(make: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_tiny_dataset(data)
    with interrupted_in_step(1):
        run, _ = train(make(SMALL, data=data, name="changed"))
    photo = sorted((data / "train").glob("*.jpg"))[0]
    with Image.open(photo) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photo)
    with pytest.raises(CheckpointError, match="not those that the run began with"):
        resume(run)
