"""That the loop does what the settings say: seen from outside, by what a network is given and what it becomes."""

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from carmask.models.card import ModelCard
from carmask.models.network import Network
from carmask.training.checkpoint import before, load_checkpoint
from tiny_runs import SMALL, TINY, train, weights

# No variation, no norm, next to no weights.
PLAIN: dict[str, Any] = {**SMALL, "epochs": 2, "network": {"widths": [2, 2]}, "trackers": ()}
HEAD = "unet.head.weight"


@dataclass(frozen=True)
class Pass:
    """What went through a network, float32 0..1, and with which weights of its last layer."""

    is_training: bool
    x_BCHW: Tensor
    head: Tensor


@contextmanager
def watched() -> Iterator[list[Pass]]:
    passes: list[Pass] = []

    def note(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if isinstance(module, Network):
            passes.append(Pass(module.training, inputs[0].clone(), module.unet.head.weight.detach().clone()))

    handle = register_module_forward_pre_hook(note)
    try:
        yield passes
    finally:
        handle.remove()


def test_averaged_weights_are_measured_and_shipped(make: Any) -> None:
    with watched() as passes:
        run, _ = train(make(TINY, ema=0.9))
    saved = load_checkpoint(run.checkpoint, pytest.fail)
    averaged, learned = saved["averaged"]["network"], saved["network"]
    assert not torch.equal(averaged[HEAD], learned[HEAD])
    measuring = [one.head for one in passes if not one.is_training]
    assert measuring
    assert all(torch.equal(head, averaged[HEAD]) for head in measuring)
    for which in ("last", "best"):
        assert all(torch.equal(tensor, averaged[name]) for name, tensor in weights(run, which).items())


def test_a_step_goes_no_further_than_the_largest_norm_of_the_gradient(make: Any) -> None:
    def length(clip_norm: float) -> float:
        """How far one step of plain descent goes, at a learning rate of 1."""
        optimizer = {"name": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": clip_norm}
        run, _ = train(make({**PLAIN, "epochs": 1, "epoch_samples": 4, "optimizer": optimizer}, name=f"by-{clip_norm}"))
        new, old = (
            load_checkpoint(place, pytest.fail)["network"] for place in (run.checkpoint, before(run.checkpoint))
        )
        return math.sqrt(sum(float((new[name] - old[name]).double().square().sum()) for name in new))

    assert length(0.0) > 0.05
    assert length(0.01) == pytest.approx(0.01, rel=1e-3)


def test_photos_that_are_learned_badly_come_more_often_in_the_next_epoch(tiny: Path, make: Any, tmp_path: Path) -> None:
    # Of each car one view that is black and all vehicle, for a network that sees none anywhere and does not learn.
    data = shutil.copytree(tiny, tmp_path / "data")
    for photo in (data / "train").glob("*_01.jpg"):
        Image.new("RGB", (90, 60)).save(photo)
        whole_HW = np.full((60, 90), 255, np.uint8)
        whole_HW[0, 0] = 0
        Image.fromarray(whole_HW).save(data / "train_masks" / f"{photo.stem}_mask.gif")
    settings = make(
        PLAIN, data=data, epoch_samples=64, hard=1.0, optimizer={"name": "sgd", "lr": 1e-12}, init=tmp_path / "blind"
    )
    network = Network(ModelCard(name="small", unet=settings.unet(), geometry=settings.geometry()))
    nn.init.zeros_(network.unet.head.weight)
    nn.init.constant_(network.unet.head.bias, -5)
    network.save_pretrained(tmp_path / "blind")
    with watched() as passes:
        train(settings)
    learned_from = torch.cat([one.x_BCHW for one in passes if one.is_training])
    is_black = learned_from.mean((1, 2, 3)) < 0.05
    # First each photo as often as any other; then by its loss, which is 5 for the black ones and about 1.3 for others.
    assert int(is_black[:64].sum()) == 16
    assert int(is_black[64:].sum()) > 28
