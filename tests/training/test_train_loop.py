"""The training loop does what the settings say, seen by what a network is given and what it becomes."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from carmask.models.network import Network
from carmask.runtime.engine import EngineError
from carmask.runtime.torch_engine import TorchEngine
from carmask.training.checkpoint import load_checkpoint, previous_checkpoint
from tiny_runs import SMALL, TINY, rows, train, weights

# No variation, no norm, next to no weights.
PLAIN: dict[str, Any] = {**SMALL, "epochs": 2, "network": {"widths": [2, 2]}, "tensorboard": False}
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
    averaged, learned = saved["averaged"], saved["network"]
    assert not torch.equal(averaged["module." + HEAD], learned[HEAD])
    measuring = [one.head for one in passes if not one.is_training]
    assert measuring
    assert all(torch.equal(head, averaged["module." + HEAD]) for head in measuring)
    for which in ("last", "best"):
        assert all(torch.equal(tensor, averaged["module." + name]) for name, tensor in weights(run, which).items())


def test_photos_are_measured_a_few_at_a_time_where_memory_runs_out(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = train(make(TINY, name="whole"))
    run_all = TorchEngine._run

    def run_few(engine: TorchEngine, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(images_NHWC) > 1:
            raise EngineError("out of memory, for a test")
        return run_all(engine, images_NHWC)

    monkeypatch.setattr(TorchEngine, "_run", run_few)
    few, _ = train(make(TINY, name="few"))
    assert float(rows(few)[0]["dice"]) == pytest.approx(float(rows(whole)[0]["dice"]), abs=1e-3)


def test_a_step_goes_no_further_than_the_largest_norm_of_the_gradient(make: Any) -> None:
    def length(clip_norm: float) -> float:
        """How far one step of plain descent goes, at a learning rate of 1."""
        optimizer = {"name": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": clip_norm}
        run, _ = train(make({**PLAIN, "epochs": 1, "epoch_samples": 4, "optimizer": optimizer}, name=f"by-{clip_norm}"))
        new, old = (
            load_checkpoint(place, pytest.fail)["network"]
            for place in (run.checkpoint, previous_checkpoint(run.checkpoint))
        )
        return math.sqrt(sum(float((new[name] - old[name]).double().square().sum()) for name in new))

    assert length(0.0) > 0.05
    assert length(0.01) == pytest.approx(0.01, rel=1e-3)
