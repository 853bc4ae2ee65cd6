"""Training on several data sets: unknown pixels, photos without vehicles, cut-outs laid onto them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from rich.console import Console

from carmask.data.split import Split, SplitError
from carmask.errors import CarmaskError
from carmask.models.series_file import stages_folder
from carmask.training.config import TrainSettings
from carmask.training.data_loading import Batch, epoch_steps, iterate_batches
from carmask.training.datasets import TrainingData, load_data
from carmask.training.distributed import DistributedContext
from carmask.training.experiments import run_experiment
from carmask.training.overfit import overfit_batch
from carmask.training.run_folder import RunFolder
from carmask.training.train import train as train_network
from tiny_runs import TINY, assert_same_training, resume, rows, tiny_settings, train

SIZE_HW = (32, 48)
UNKNOWN = 128


def save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three data sets: partly labelled vehicles, cut-outs of one color, and blue photos without a vehicle."""
    folder = tmp_path_factory.mktemp("root")
    rng = np.random.default_rng(0)
    for number in range(12):
        image_HWC = rng.integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8)
        mask_HW = np.zeros(SIZE_HW, np.uint8)
        mask_HW[8:24, 10:40] = UNKNOWN
        mask_HW[10:20, 12:30] = 255
        save(folder / f"parts/images/{number:02}.png", image_HWC)
        save(folder / f"parts/masks/{number:02}.png", mask_HW)
        blue_HWC = np.full((*SIZE_HW, 3), (0, 0, 100 + 10 * number), np.uint8)
        save(folder / f"nothing/images/{number:02}.png", blue_HWC)
        red_HWC, alpha_HW = np.full((*SIZE_HW, 3), (250, 0, 0), np.uint8), np.zeros(SIZE_HW, np.uint8)
        cv2.ellipse(alpha_HW, (24, 16), (20, 8 + number % 4), 0, 0, 360, 255, -1)
        save(folder / f"cutouts/images/{number:02}.png", red_HWC)
        save(folder / f"cutouts/masks/{number:02}.png", alpha_HW)
    return folder


@pytest.fixture
def make(root: Path, cache_folder: Path, runs: Path) -> Any:
    def settings(**given: Any) -> TrainSettings:
        recipe: dict[str, Any] = {
            **TINY,
            "epochs": 2,
            "epoch_samples": None,
            "datasets": {
                "parts": {"path": "parts", "ignore": UNKNOWN, "weight": 1.5},
                "nothing": {"path": "nothing", "empty": True},
                "cutouts": {"path": "cutouts", "weight": 0, "cutouts": True},
            },
            "composite": {"probability": 0.7, "light": 0, "shadow": 0, "blur_px": 0},
        }
        return tiny_settings({**recipe, **given}, data=root, cache=cache_folder, runs=runs)

    return settings


def load(settings: TrainSettings) -> TrainingData:
    return load_data(settings, DistributedContext(), Console(quiet=True))


def batches(settings: TrainSettings, steps: Sequence[int]) -> list[Batch]:
    data = load(settings)
    ranges = (range(step, step + 1) for step in steps)
    device = torch.device("cpu")
    return [
        batch
        for steps_ in ranges
        for _, batch in iterate_batches(data, steps_, 8, 0, device, composite=settings.composite)
    ]


def test_each_data_set_is_split_for_itself_and_shown_by_its_weight(make: Any) -> None:
    settings = make()
    data = load(settings)
    assert {source.name for source in data.sources} == {"parts", "nothing", "cutouts"}
    names = [pair.id.split("/")[0] for pair in data.train]
    assert (names.count("parts"), names.count("nothing")) == (8, 8)
    assert len(data.validation) == 8
    assert len(data.cutouts) == 8
    assert epoch_steps(settings, data) == (8 * 1.5 + 8) / 4
    held_out = {pair.id for pair in data.validation}
    assert not held_out & {pair.id for pair in data.train}
    assert {id_.split("/")[0] for id_ in data.split.validation} == {"parts", "nothing", "cutouts"}


def test_unknown_pixels_arrive_as_unknown_and_vehicles_are_laid_onto_empty_photos_alone(make: Any) -> None:
    shown = {"composite": 0, "empty": 0, "parts": 0}
    for batch in batches(make(), range(6)):
        assert batch.known_B1HW is not None
        for image_CHW, soft_HW, known_HW in zip(
            batch.images_BCHW, batch.soft_B1HW[:, 0], batch.known_B1HW[:, 0], strict=True
        ):
            if (known_HW == 0).any():
                shown["parts"] += 1
                assert soft_HW[known_HW == 1].max() == 1
                continue
            shown["composite" if soft_HW.any() else "empty"] += 1
            # Red is the vehicle, blue the ground; nothing else is there, and the mask says which is which.
            share_HW = image_CHW[0] / (250 / 255)
            np.testing.assert_allclose(share_HW.numpy(), soft_HW.numpy(), atol=0.02)
    assert min(shown.values()) >= 4, shown


def test_a_batch_follows_from_its_step_alone(make: Any) -> None:
    together, again = batches(make(), [0, 1, 2]), batches(make(), [2])
    assert torch.equal(together[2].images_BCHW, again[0].images_BCHW)
    assert torch.equal(together[2].soft_B1HW, again[0].soft_B1HW)


def test_a_run_reports_each_data_set_and_resumes_exactly(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, printed = train(make(name="whole"))
    last = rows(whole)[-1]
    means = [float(last[f"dice_{name}"]) for name in ("parts", "nothing")]
    assert float(last["dice"]) == pytest.approx(sum(means) / 2)
    assert "nothing" in printed
    assert {id_.split("/")[0] for id_ in Split.load(whole.split).train} == {"parts", "nothing", "cutouts"}
    monkeypatch.setattr("carmask.training.stopping.StopRequest.is_set", lambda _: True)
    stopped = train_network(make(name="stopped"), console=Console(quiet=True))
    assert not stopped.finished
    monkeypatch.undo()
    resume(stopped.run)
    assert_same_training(whole, stopped.run)


def test_later_stages_hold_out_what_the_first_did(make: Any) -> None:
    settings = make(name="staged", epochs=1, stages=({}, {"optimizer": {"lr": 1e-4}}))
    result = run_experiment(settings, resume=None, console=Console(quiet=True))
    assert result.finished
    first = RunFolder(stages_folder(result.folder) / "1")
    assert Split.load(first.split) == Split.load(RunFolder(result.folder).split)


def test_a_split_of_other_data_sets_is_not_ignored(make: Any, tmp_path: Path, cache_folder: Path) -> None:
    file = tmp_path / "split.json"
    load(make(datasets={"nothing": {"path": "nothing", "empty": True}}, composite={"probability": 0})).split.save(file)
    with pytest.raises(SplitError, match="parts"):
        load(make(dataset={"split": file, "cache": cache_folder}))


def test_a_folder_of_photos_without_a_vehicle_can_be_added_to_one_data_set(
    tiny: Path, root: Path, cache_folder: Path
) -> None:
    settings = tiny_settings(TINY, data=tiny, cache=cache_folder, runs=root / "runs")
    dataset = settings.dataset.model_copy(update={"empty": root / "nothing"})
    data = load(settings.model_copy(update={"dataset": dataset}))
    names = {pair.id.split("/")[0] for pair in data.train}
    assert "no-vehicle" in names
    assert any(name.startswith("car") for name in names)


def test_a_batch_of_photos_without_a_vehicle_can_be_learned(make: Any) -> None:
    nothing = make(datasets={"nothing": {"path": "nothing", "empty": True}}, composite={"probability": 0})
    overfit_batch(nothing, Console(quiet=True))


@pytest.mark.parametrize(
    "datasets",
    [
        {"a b": {"path": "parts"}},
        {"worst": {"path": "parts", "cutouts": True}, "nothing": {"path": "nothing", "empty": True}},
        {"parts": {"path": "parts", "weight": 0, "cutouts": True}},
        {"parts": {"path": "parts", "cutouts": True}},
        {"nothing": {"path": "nothing", "empty": True}},
        {"parts": {"path": "parts", "weight": -1}},
        {"parts": {"path": "parts", "unknown": 128}},
    ],
)
def test_impossible_data_sets_are_refused(make: Any, datasets: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make(datasets=datasets)


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        *(({key: 128}, False) for key in ("ignore", "foreground")),
        *(({key: ["car"]}, False) for key in ("labels", "ignore_labels")),
        ({"group_pattern": "(.*)-"}, False),
        ({"empty": "nothing"}, False),
        ({"folds": 3, "fold": 1, "split_seed": 1, "own_split": False, "cache": "cache"}, True),
        ({"fraction": 0}, True),
    ],
)
def test_what_the_data_sets_have_themselves_is_not_ignored(make: Any, given: dict[str, Any], allowed: bool) -> None:
    if allowed:
        make(dataset=given)
    else:
        with pytest.raises(ValidationError, match=next(iter(given))):
            make(dataset=given)


@pytest.mark.parametrize("weight", [0.001, 1])
def test_what_leaves_nothing_to_show_is_refused(make: Any, weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """By weights that round to no photo, or without a photo to train on that has a cut-out."""
    monkeypatch.setattr("carmask.training.setup.load_data", lambda given, *_, **__: replace(load(given), cutouts=()))
    settings = make(datasets={"nothing": {"path": "nothing", "empty": True, "cutouts": True, "weight": weight}})
    with pytest.raises(CarmaskError, match="weights" if weight < 1 else "composite"):
        train(settings)
    assert not settings.runs.exists()


def test_a_data_set_that_is_missing_is_named(make: Any) -> None:
    with pytest.raises(CarmaskError, match="absent"):
        load(make(datasets={"parts": {"path": "absent"}}, composite={"probability": 0}))
