"""One training step: what it computes, and what happens when it fails."""

import io
import shutil
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
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from carmask.models.network import Network
from carmask.training.checkpoint import TrainingState
from carmask.training.data_loading import iterate_batches, seed_step
from carmask.training.distributed import DistributedContext
from carmask.training.loggers import RunLogger
from carmask.training.memory import is_out_of_memory
from carmask.training.overfit import overfit_batch
from carmask.training.setup import TrainingSetup, set_up_training
from carmask.training.stopping import TrainingError
from carmask.training.train import StepResult, train_step
from tiny_runs import FAST, SMALL

# With everything that has a state: BatchNorm, averaged weights, Adam.
NARROW: dict[str, Any] = {
    **FAST, "network": {"widths": [4, 8]}, "tensorboard": False, "input": {"height_px": 32, "width_px": 32}
}  # fmt: skip


class Steps:
    """Makes steps, one after the other, without a run."""

    def __init__(self, settings: Any) -> None:
        self.printed = io.StringIO()
        logger = RunLogger(Console(file=self.printed, width=300))
        self.setup: TrainingSetup
        self.state: TrainingState
        self.setup, self.state = set_up_training(settings, DistributedContext(), logger)
        self.state.network.train()

    def make(self, count: int = 1) -> list[StepResult]:
        settings, first = self.setup.settings, self.state.step
        results = []
        for step, batch in iterate_batches(
            self.setup.data, range(first, first + count), settings.batch_size or 1, settings.seed, torch.device("cpu")
        ):
            seed_step(settings.seed, step)
            results.append(train_step(self.setup, self.state, batch))
            self.state.step = step + 1
        return results

    def tensors(self) -> dict[str, Tensor]:
        """Weights and running statistics of the network and of the averaged one."""
        averaged = {} if self.state.averaged is None else self.state.averaged.state_dict()
        return {name: tensor.clone() for name, tensor in {**self.state.network.state_dict(), **averaged}.items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@contextmanager
def broken_in_passes(*passes: int) -> Iterator[None]:
    """Let the network's logits be NaN in these forward passes, counted from 1."""
    number = 0

    def spoil(module: nn.Module, _inputs: object, logits_B1HW: Tensor) -> Tensor | None:
        nonlocal number
        if not isinstance(module, Network) or not module.training:
            return None
        number += 1
        return logits_B1HW * torch.nan if number in passes else None

    handle = register_module_forward_hook(spoil)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def in_a_convolution(change: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """Call `change` with the output of an inner convolution in each of its passes, counted from 1."""
    passes = 0

    def hook(module: nn.Module, _inputs: object, x_BCHW: Tensor) -> Tensor | None:
        nonlocal passes
        # The one that leads to the lower level.
        if not isinstance(module, nn.Conv2d) or [module.in_channels, module.out_channels] != [4, 8]:
            return None
        passes += 1
        return change(passes, x_BCHW)

    handle = register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def test_a_step_without_a_finite_gradient_is_skipped_and_leaves_nothing_behind(make: Any) -> None:
    """NaN in the second of two parts, so that BatchNorm has to forget the first one too."""
    steps = Steps(make(NARROW, accumulate=2))
    steps.make(2)
    before = steps.tensors()
    assert any("running_var" in name for name in before)
    with in_a_convolution(lambda number, x_BCHW: x_BCHW * torch.nan if number == 2 else None):
        steps.make()
    assert_same(steps.tensors(), before)
    assert steps.state.skipped_steps == 1
    assert "warning" in steps.printed.getvalue()
    steps.make()
    assert steps.state.skipped_steps == 0
    after = steps.tensors()
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in after.items())


def test_two_skipped_steps_in_a_row_end_the_training(make: Any) -> None:
    steps = Steps(make(NARROW))
    with broken_in_passes(1, 3, 4):
        steps.make(3)
        with pytest.raises(TrainingError):
            steps.make()


def test_parts_that_went_through_before_memory_ran_out_do_not_count_twice(make: Any) -> None:
    """A batch in two parts, of which the second fails, and then in four, is one that ran in four parts at once."""

    def fail(number: int, _: Tensor) -> None:
        if number == 2:
            raise torch.OutOfMemoryError("for a test")

    divided, whole = Steps(make(NARROW, accumulate=2)), Steps(make(NARROW, accumulate=4))
    with in_a_convolution(fail):
        divided.make(3)
    assert divided.state.accumulate == 4
    whole.make(3)
    assert_same(divided.tensors(), whole.tensors())


def test_memory_for_less_than_one_photo_ends_the_training(make: Any) -> None:
    def fail(_number: int, _: Tensor) -> None:
        raise torch.OutOfMemoryError("for a test")

    steps = Steps(make(NARROW))
    with in_a_convolution(fail), pytest.raises(TrainingError):
        steps.make()
    assert steps.state.accumulate == 4


def test_one_of_several_processes_does_not_split_its_batch(make: Any) -> None:
    steps = Steps(make(NARROW))
    object.__setattr__(steps.setup, "distributed", DistributedContext(world_size=2))
    with (
        in_a_convolution(lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("for a test"))),
        pytest.raises(TrainingError),
    ):
        steps.make()


def test_memory_that_runs_out_where_parts_do_not_help_is_explained(make: Any) -> None:
    def fail(of: object, *_: object) -> None:
        if isinstance(of, AugmentationSequential | torch.optim.Optimizer):
            raise torch.OutOfMemoryError("for a test")

    for register in (register_module_forward_pre_hook, register_optimizer_step_pre_hook):
        steps = Steps(make(NARROW))
        handle = register(fail)
        try:
            with pytest.raises(TrainingError):
                steps.make()
        finally:
            handle.remove()


def test_parts_of_a_batch_add_up_to_it(make: Any) -> None:
    """For a network without BatchNorm, which would see each part by itself."""
    recipe = {**SMALL, "optimizer": {"name": "sgd", "lr": 0.05}, "network": {"widths": [4, 8]}}
    whole, parts = Steps(make(recipe)), Steps(make(recipe, accumulate=4))
    for one, other in zip(whole.make(4), parts.make(4), strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-4)
    wanted = whole.tensors()
    for name, tensor in parts.tensors().items():
        torch.testing.assert_close(tensor, wanted[name], atol=1e-5, rtol=0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_too(make: Any, precision: str) -> None:
    hardware = {"device": "cpu", "precision": precision, "threads": 1}
    steps = Steps(
        make(NARROW, optimizer={"lr": 0.01}, augment={"flip": 0, "geometric": 0, "color": 0}, hardware=hardware)
    )
    results = steps.make(40)
    assert sum(result.loss for result in results[-8:]) < sum(result.loss for result in results[:8])
    assert {parameter.dtype for parameter in steps.state.network.parameters()} == {torch.float32}
    assert bool(steps.state.state_dict()["scaler"]) == (precision == "fp16")


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_it_learns_the_same(make: Any) -> None:
    from torch._inductor import config

    hardware = {"device": "cpu", "precision": "float32", "threads": 1, "compile": True}
    plain, compiled = Steps(make(NARROW)), Steps(make(NARROW, hardware=hardware))
    # The C++ compiler takes most of the time: here it neither vectorizes nor optimizes.
    quick = {"cpp.vec_isa_ok": False, "aot_inductor.debug_compile": True, "compile_threads": 1}
    with config.patch(quick):
        for one, other in zip(plain.make(2), compiled.make(2), strict=True):
            assert other.loss == pytest.approx(one.loss, rel=1e-3)
    assert plain.tensors().keys() == compiled.tensors().keys()


@pytest.mark.parametrize(
    ("message", "is_memory"),
    [
        ("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried", True),
        # Of oneDNN.
        ("could not create a primitive", True),
        ("could not create a memory object", True),
        # Of a GPU's libraries, which allocate memory themselves.
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        # Of PyTorch on Apple's GPUs.
        ("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max allowed: 9.07 GB).", True),
        ("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported", True),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`", False),
        ("could not create a primitive descriptor for a convolution forward propagation primitive", False),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_errors_of_libraries_that_ran_out_of_memory_are_recognized(message: str, is_memory: bool) -> None:
    assert is_out_of_memory(RuntimeError(message)) == is_memory


# Only parts of more than four photos run with little memory: how much address space a smaller one takes depends on how
# the C library has split the heap and on how many threads have just started, and differs from run to run.
LITTLE_MEMORY = """
import re, resource, sys
from pathlib import Path
from rich.console import Console
from carmask.training import checkpoint, loggers, train
from carmask.training.config import TrainSettings

whole = train.forward_backward

def with_little_memory(setup, state, batch):
    if len(batch.images_BCHW) <= 4 * state.accumulate:
        return whole(setup, state, batch)
    used = re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
    limit = (int(used) << 10) + (int(sys.argv[2]) << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        return whole(setup, state, batch)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

train.forward_backward = with_little_memory
loggers.draw_curves = lambda _history: b""  # takes a second
run = train.train(TrainSettings.from_yaml(Path(sys.argv[1])), console=Console(quiet=True)).run
print(checkpoint.load_checkpoint(run.checkpoint, print)["accumulate"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_a_batch_too_large_for_memory_runs_in_parts(make: Any, tmp_path: Path) -> None:
    settings = make(
        FAST, name="large", epochs=1, epoch_samples=16, batch_size=16, input={"height_px": 256, "width_px": 256},
        network={"widths": [16, 32], "stem": 1}, tensorboard=False,
    )  # fmt: skip
    (tmp_path / "config.yaml").write_text(settings.to_yaml())
    command = [sys.executable, "-c", LITTLE_MEMORY, str(tmp_path / "config.yaml"), "200"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) in (2, 4)


def test_one_batch_is_overfitted_or_not(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make(FAST, name="batch")
    with broken_in_passes(3):
        overfit_batch(settings, Console(quiet=True))
    assert not settings.runs.exists()
    stuck = make(SMALL, optimizer={"name": "sgd", "lr": 1e-9}, network={"widths": [2, 2]})
    monkeypatch.setattr("carmask.training.overfit.STEPS", 40)
    with pytest.raises(TrainingError):
        overfit_batch(stuck, Console(quiet=True))
