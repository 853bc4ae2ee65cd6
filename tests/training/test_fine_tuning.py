"""Training that starts from an exported network, such as the packaged one."""

from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from carmask.data.pairs import find_pairs
from carmask.data.split import Split
from carmask.evaluation.metrics import dice
from carmask.models.network import Network
from carmask.models.onnx_weights import fit_batch_norm
from carmask.models.series_file import fold_folders
from carmask.runtime.locate import packaged_models
from carmask.runtime.options import RunOptions
from carmask.segmenter import Segmenter
from carmask.training.config import TrainSettings
from carmask.training.experiments import run_experiment
from carmask.training.preset_defaults import FINE_TUNING_LR
from carmask.training.run_folder import RunFolder
from carstudio import render_dataset
from tiny_runs import train

FAST_FILE = packaged_models()["fast"]
# Two steps at a rate so low that nothing moves, on the smallest input of `fast`.
STILL: dict[str, Any] = {
    "epochs": 1,
    "epoch_samples": 8,
    "batch_size": 4,
    "tensorboard": False,
    "input": {"height_px": 64, "width_px": 64},
    "optimizer": {"lr": 1e-30},
}


def test_the_packaged_network_gets_better_on_other_cars_within_three_epochs(make: Any, tmp_path: Path) -> None:
    render_dataset(tmp_path / "cars", cars=20, views=1, size_HW=(96, 144))
    recipe = {"epochs": 3, "batch_size": 4, "input": {"height_px": 192, "width_px": 320}, "tensorboard": False}
    run, _ = train(make(recipe, data=tmp_path / "cars", init="fast", hardware={"device": "cpu"}))
    held_out = set(Split.load(run.split).validation)
    pairs = [pair for pair in find_pairs(tmp_path / "cars").pairs if pair.id in held_out]

    def measure(model: str | Path) -> float:
        segment = Segmenter.load(model, RunOptions(device="cpu"))
        return fmean(dice(segment(pair.image).mask, np.asarray(Image.open(pair.mask)) > 0) for pair in pairs)

    # The packaged network sees them at its own size, with four times as many pixels.
    before, after = measure("fast"), measure(run.path)
    assert before > 0.9
    assert after > before


def test_every_fold_and_its_stages_start_from_the_packaged_weights(make: Any) -> None:
    stages = [{"epochs": 1}, {"loss": {"name": "border"}}]
    settings = make(STILL, init="fast", name="series", stages=stages)
    settings = settings.model_copy(update={"dataset": settings.dataset.model_copy(update={"folds": 2})})
    result = run_experiment(settings, all_folds=True)
    assert result.finished
    packaged = Network.load(FAST_FILE)
    photos = packaged.card.training["photos_seen"]
    # Without photos this raises the weights alone.
    fit_batch_norm(packaged.eval(), [])
    folds = fold_folders(result.folder)
    for folder in folds:
        network = Network.load(folder)
        assert network.card.training["started_from"]["started_from"]["photos_seen"] == photos
        for name, parameter in packaged.named_parameters():
            # BatchNorm gets the statistics of these photos.
            if parameter.ndim > 1:
                torch.testing.assert_close(network.get_parameter(name), parameter, rtol=0, atol=1e-20)
    assert len(folds) == 2


def test_an_exported_network_brings_its_preset_and_a_low_learning_rate(tmp_path: Path) -> None:
    for init in ("fast", FAST_FILE, str(FAST_FILE)):
        settings = TrainSettings(data=tmp_path, init=init)
        assert (settings.preset, settings.batch_size, settings.optimizer.lr) == ("fast", 8, FINE_TUNING_LR)
        assert settings.with_absolute_paths().init == Path(init)
    assert TrainSettings(data=tmp_path, init="small").preset == "small"
    assert TrainSettings(data=tmp_path, init="fast", optimizer={"lr": 1e-3}).optimizer.lr == 1e-3
    assert TrainSettings(data=tmp_path, init="fast", preset="deep").preset == "deep"
    assert TrainSettings(data=tmp_path, init="fasst").preset == "small"


def test_a_folder_goes_before_the_packaged_weights_of_its_name(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = Network.load(FAST_FILE)
    torch.nn.init.normal_(network.unet.head.bias)
    network.save_pretrained("fast")
    settings = make(STILL, init="fast")
    assert settings.preset == "fast"
    run, _ = train(settings)
    assert torch.equal(Network.load(run.weights("last")).unet.head.bias, network.unet.head.bias)
    assert TrainSettings.from_yaml(RunFolder(run.path).config).init == tmp_path / "fast"
