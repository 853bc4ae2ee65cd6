"""What a step does when it goes wrong, or goes through in parts."""

import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from carmask.models.network import Network
from carmask.training.overfit import overfit_batch
from carmask.training.step import TrainingError, _is_out_of_memory
from tiny_runs import FAST, SMALL, rows, train, weights

NARROW = {**FAST, "network": {"widths": [4, 8]}}


@contextmanager
def broken_in_steps(*steps: int) -> Iterator[None]:
    """Let the network's logits be no numbers in these steps, counted from 1."""
    step = 0

    def spoil(module: nn.Module, _inputs: object, logits_B1HW: Tensor) -> Tensor | None:
        nonlocal step
        if not isinstance(module, Network) or not module.training:
            return None
        step += 1
        return logits_B1HW * torch.nan if step in steps else None

    handle = register_module_forward_hook(spoil)
    try:
        yield
    finally:
        handle.remove()


def test_a_step_that_is_not_a_number_is_left_out(make: Any) -> None:
    with broken_in_steps(2, 6):
        run, said = train(make(NARROW, epochs=2))
    for step in (1, 5):
        assert f"the gradient is not a number at step {step}: this step is left out" in said
    assert all(tensor.isfinite().all() for tensor in weights(run, "last").values())
    assert [float(row["train_loss"]) > 0 for row in rows(run)] == [True, True]


def test_two_in_a_row_are_the_end(make: Any) -> None:
    settings = make(NARROW, name="nan")
    with (
        broken_in_steps(6, 7),
        pytest.raises(TrainingError, match=r"steps 5 and 6: training has diverged.*--optimiser\.lr.*epoch 1 are kept"),
    ):
        train(settings)
    for file in settings.runs.rglob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(file).values()), file


def test_parts_of_a_batch_add_up_to_it(make: Any) -> None:
    """For a network without BatchNorm, which sees each part by itself."""
    recipe = {**SMALL, "epochs": 1, "optimiser": {"name": "sgd", "lr": 0.05}}
    whole, _ = train(make(recipe, name="whole"))
    parts, _ = train(make(recipe, name="parts", accumulate=4))
    for name, tensor in weights(whole, "last").items():
        torch.testing.assert_close(weights(parts, "last")[name], tensor, atol=1e-5, rtol=0)
    assert float(rows(parts)[0]["train_loss"]) == pytest.approx(float(rows(whole)[0]["train_loss"]), rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_the_bits_learn_too(make: Any, precision: str) -> None:
    settings = make(NARROW, epochs=6, hardware={"device": "cpu", "precision": precision, "threads": 1})
    run, said = train(settings)
    assert {"bf16": "bfloat16", "fp16": "float16"}[precision] in said
    losses = [float(row["train_loss"]) for row in rows(run)]
    assert losses[-1] < losses[0]
    saved = torch.load(io.BytesIO(run.checkpoint.read_bytes().partition(b"\n")[2]), weights_only=True)
    assert bool(saved["scaler"]) == (precision == "fp16")


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler")
def test_compiled_it_learns_the_same(make: Any) -> None:
    plain, _ = train(make(NARROW, name="plain", epochs=1))
    hardware = {"device": "cpu", "precision": "float32", "threads": 1, "compile": True}
    compiled, _ = train(make(NARROW, name="compiled", epochs=1, hardware=hardware))
    assert float(rows(compiled)[0]["train_loss"]) == pytest.approx(float(rows(plain)[0]["train_loss"]), rel=1e-3)
    assert weights(compiled, "last").keys() == weights(plain, "last").keys()


@pytest.mark.parametrize(
    ("said", "is_memory"),
    [
        ("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried", True),
        # oneDNN's words, of a step to which the system gave no memory.
        ("could not create a primitive", True),
        ("could not create a memory object", True),
        ("could not create a primitive descriptor for a convolution forward propagation primitive", False),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_what_libraries_say_where_memory_ends_is_understood(said: str, is_memory: bool) -> None:
    assert _is_out_of_memory(RuntimeError(said)) == is_memory


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_batch_too_large_for_memory_goes_through_in_parts(make: Any, tmp_path: Path) -> None:
    settings = make(
        FAST, name="large", epochs=1, batch_size=16, input={"height_px": 256, "width_px": 256},
        network={"widths": [16, 32], "stem": 1},
    )  # fmt: skip
    (tmp_path / "config.yaml").write_text(settings.to_yaml())
    script = (
        "import re, resource, sys\n"
        "from pathlib import Path\n"
        "from rich.console import Console\n"
        "from carmask.training import start, step\n"
        "from carmask.training.settings import TrainSettings\n"
        "whole = step.Stepper._gradients\n"
        "def with_little_memory(self, *args, **kwargs):\n"
        "    used = re.search(r'VmSize:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "    limit = (int(used) << 10) + (int(sys.argv[2]) << 20)\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        return whole(self, *args, **kwargs)\n"
        "    finally:\n"
        "        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "step.Stepper._gradients = with_little_memory\n"
        "start.train(TrainSettings.from_yaml(Path(sys.argv[1])), Console(width=300))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "config.yaml"), "500"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "out of memory at step 0: batches of 16 photos go through in 2 parts" in done.stdout
    assert "best Dice" in done.stdout


def test_one_batch_is_learnt_by_heart_or_not(make: Any) -> None:
    said = io.StringIO()
    settings = make(FAST, network={"widths": [8, 16, 32]})
    with broken_in_steps(3):
        outcome = overfit_batch(settings, Console(file=said, width=300))
    assert outcome.passed
    assert outcome.dice >= 0.98
    assert "the gradient is not a number at step 2: this step is left out" in said.getvalue()
    assert "Dice on the batch" in said.getvalue()
    assert not settings.runs.exists()


def test_what_cannot_learn_is_found_out(make: Any) -> None:
    settings = make(SMALL, optimiser={"name": "sgd", "lr": 1e-9}, network={"widths": [2, 2]})
    assert not overfit_batch(settings, Console(file=io.StringIO())).passed
