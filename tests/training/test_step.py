"""What a step does when it goes wrong, or goes through in parts."""

import io
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from kornia.augmentation import AugmentationSequential
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from carmask.models.network import Network
from carmask.training.checkpoint import load_checkpoint
from carmask.training.memory import is_out_of_memory
from carmask.training.overfit import overfit_batch
from carmask.training.run import RunFolder
from carmask.training.step import TrainingError
from tiny_runs import FAST, SMALL, STEPS_IN_EPOCH, assert_same_training, rows, train, weights

NARROW = {**FAST, "network": {"widths": [4, 8]}}
# One epoch that is soon over.
SHORT = {**NARROW, "epochs": 1, "trackers": (), "input": {"height_px": 32, "width_px": 32}}


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


@contextmanager
def in_a_convolution(spoil: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """Let `spoil` do something to the output of an inner convolution of a Network, in each of its passes, from 1."""
    passes = 0

    def change(module: nn.Module, _inputs: object, x_BCHW: Tensor) -> Tensor | None:
        nonlocal passes
        if not isinstance(module, nn.Conv2d) or not module.training:
            return None
        # The one that leads to the lower level.
        if [module.in_channels, module.out_channels] != NARROW["network"]["widths"]:
            return None
        passes += 1
        return spoil(passes, x_BCHW)

    handle = register_module_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


def buffers_of(run: RunFolder) -> dict[str, Tensor]:
    """BatchNorm's running statistics in the checkpoint, those of the network and those that were averaged."""
    saved = load_checkpoint(run.checkpoint, pytest.fail)
    return {
        f"{which} {name}": tensor
        for which, tensors in (("network", saved["network"]), ("averaged", saved["averaged"]["network"]))
        for name, tensor in tensors.items()
        if "running" in name or "tracked" in name
    }


def test_a_step_that_is_left_out_leaves_nothing_in_batch_norm(make: Any) -> None:
    """It is spoilt in the second of its two parts, so that what the first one left is taken back too."""
    lost, accumulate = STEPS_IN_EPOCH, 2

    def spoil(number: int, x_BCHW: Tensor) -> Tensor | None:
        return x_BCHW * torch.nan if number == lost * accumulate else None

    with in_a_convolution(spoil):
        run, said = train(make(SHORT, accumulate=accumulate, name="lost"))
    assert f"step {lost - 1}: this step is left out" in said

    def stop(number: int, _: Tensor) -> None:
        if number == (lost - 1) * accumulate:
            signal.raise_signal(signal.SIGINT)

    # As a run is that was stopped before that step.
    with in_a_convolution(stop):
        stopped, said = train(make(SHORT, accumulate=accumulate, name="stopped"))
    assert f"stopped after step {lost - 1}" in said
    found, true = buffers_of(run), buffers_of(stopped)
    assert any("averaged" in name and "running_var" in name for name in found)
    for name, tensor in found.items():
        assert torch.equal(tensor, true[name]), name
    assert float(rows(run)[0]["dice"]) >= 0


def test_what_went_through_before_memory_ended_does_not_count_twice(make: Any) -> None:
    """A batch in two parts, of which the second fails, and then in four, as one that went through in four at once."""

    def end_memory(number: int, _: Tensor) -> None:
        if number == 2:
            raise torch.OutOfMemoryError("for a test")

    with in_a_convolution(end_memory):
        divided, said = train(make(SHORT, name="divided", accumulate=2))
    assert "out of memory at step 0: batches of 4 photos go through in 4 parts" in said
    whole, _ = train(make(SHORT, name="whole", accumulate=4))
    assert_same_training(divided, whole)


def test_two_in_a_row_are_the_end(make: Any) -> None:
    settings = make(NARROW, name="nan")
    with (
        broken_in_steps(6, 7),
        pytest.raises(TrainingError, match=r"steps 5 and 6: training has diverged.*--optimizer\.lr.*epoch 1 are kept"),
    ):
        train(settings)
    for file in settings.runs.rglob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(file).values()), file


def test_parts_of_a_batch_add_up_to_it(make: Any) -> None:
    """For a network without BatchNorm, which sees each part by itself."""
    recipe = {**SMALL, "epochs": 1, "optimizer": {"name": "sgd", "lr": 0.05}}
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


def test_memory_that_ends_where_parts_are_of_no_help_is_explained(make: Any) -> None:
    def end_memory(of: object, *_: object) -> None:
        if isinstance(of, AugmentationSequential | torch.optim.Optimizer):
            raise torch.OutOfMemoryError("for a test")

    for place, register in enumerate((register_module_forward_pre_hook, register_optimizer_step_pre_hook)):
        handle = register(end_memory)
        try:
            with pytest.raises(TrainingError, match=r"out of memory at step 0, .*for a test.*--batch-size"):
                train(make(SHORT, name=f"ended-{place}"))
        finally:
            handle.remove()


@pytest.mark.parametrize(
    ("said", "is_memory"),
    [
        ("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried", True),
        # oneDNN's words, of a step to which the system gave no memory.
        ("could not create a primitive", True),
        ("could not create a memory object", True),
        # Of a GPU's libraries, that ask for memory themselves.
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported", True),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`", False),
        ("could not create a primitive descriptor for a convolution forward propagation primitive", False),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_what_libraries_say_where_memory_ends_is_understood(said: str, is_memory: bool) -> None:
    assert is_out_of_memory(RuntimeError(said)) == is_memory


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


def test_one_batch_is_learned_by_heart_or_not(make: Any) -> None:
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
    settings = make(SMALL, optimizer={"name": "sgd", "lr": 1e-9}, network={"widths": [2, 2]})
    assert not overfit_batch(settings, Console(file=io.StringIO())).passed
