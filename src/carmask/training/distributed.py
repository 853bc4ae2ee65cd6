"""Several processes that train one network together, each on its share of every batch.

`torchrun` or `carmask train --devices` starts them and sets RANK, WORLD_SIZE and the like. Gradients are averaged in
every step, so all processes hold the same weights; BatchNorm sees the whole batch.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from carmask.errors import CarmaskError, first_line

T = TypeVar("T")

# Between steps all processes have about as much to do; rank 0 also saves and draws.
TIMEOUT = timedelta(minutes=10)
# One process of each machine may decode all photos while the others wait.
SLOW_TIMEOUT = timedelta(hours=6)


class DistributedError(CarmaskError):
    """The processes cannot train together. Raised by each of them."""


class ProcessLostError(DistributedError):
    """Another process has ended or cannot be reached."""


@dataclass(frozen=True)
class DistributedContext:
    """The processes that train together, seen from this one; its fields are those of torch.distributed."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    # The same processes with a longer timeout.
    slow_group: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes the run's folder and prints."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's part of `items`; each item is in the part of exactly one process."""
        return items[self.rank :: self.world_size]

    def batch_slice(self, batch_size: int) -> slice:
        """Return this process's part of each batch; all parts have the same size.

        Raises:
            DistributedError: the batch cannot be divided.
        """
        if batch_size % self.world_size:
            raise DistributedError(
                f"batch_size {batch_size} cannot be divided among {self.world_size} processes; use a multiple of that"
            )
        size = batch_size // self.world_size
        return slice(self.rank * size, (self.rank + 1) * size)

    def broadcast_object(self, make: Callable[[], T]) -> T:
        """Call `make` on rank 0 and return its result on every rank."""
        if self.world_size == 1:
            return make()
        objects = [make() if self.is_main else None]
        with distributed_errors():
            dist.broadcast_object_list(objects, src=0)
        return objects[0]  # type: ignore[return-value]

    def all_gather_object(self, item: T, *, slow: bool = False) -> list[T]:
        """Return every process's `item`, by rank. slow: some processes may work for hours before they call this."""
        if self.world_size == 1:
            return [item]
        items: list[Any] = [None] * self.world_size
        with distributed_errors():
            dist.all_gather_object(items, item, group=self.slow_group if slow else None)
        return items

    def prepare_network(self, network: nn.Module) -> None:
        """Copy rank 0's weights to all ranks and synchronize BatchNorm. Changes `network` in place."""
        if self.world_size == 1:
            return
        with distributed_errors():
            for tensor in network.state_dict().values():
                dist.broadcast(tensor, src=0)
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, _sync_batch_norm(child))

    def all_reduce_gradients(self, parameters: Sequence[nn.Parameter], values: Sequence[float]) -> list[float]:
        """Average the gradients of all processes in place. Returns the averages of `values`.

        Not by DistributedDataParallel, which sums in buckets whose order depends on timing and on the first steps: here
        one flat tensor is reduced in a fixed order, so a resumed run computes the same bits.
        """
        if self.world_size == 1:
            return list(values)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), gradients[0].new_tensor(list(values))])
        with distributed_errors():
            dist.all_reduce(flat)
        flat /= self.world_size
        *means, averages = torch.split(flat, [*(gradient.numel() for gradient in gradients), len(values)])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))
        return [float(average) for average in averages.tolist()]


@contextmanager
def init_distributed() -> Iterator[DistributedContext]:
    """Join the process group that the environment describes, as `torchrun` sets it; without WORLD_SIZE, stay alone.

    Raises:
        DistributedError: a variable is missing or wrong, or the other processes cannot be reached.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield DistributedContext()
        return
    rank, world_size, local_rank, local_world_size = _read_environment()
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    with distributed_errors():
        dist.init_process_group(backend, timeout=TIMEOUT)
        slow_group = dist.new_group(backend="gloo", timeout=SLOW_TIMEOUT)
    try:
        yield DistributedContext(rank, world_size, local_rank, local_world_size, slow_group)
    finally:
        dist.destroy_process_group()


@contextmanager
def distributed_errors() -> Iterator[None]:
    """Raise `ProcessLostError` where communication inside fails."""
    try:
        yield
    except RuntimeError as error:
        # Gloo's errors are plain RuntimeErrors that name its source files.
        is_communication = any(word in str(error).lower() for word in ("gloo", "nccl", "by peer"))
        if not (is_communication or isinstance(error, dist.DistError)):
            raise
        raise ProcessLostError(
            f"another process of this run has ended, or cannot be reached ({first_line(error)}); when the cause is "
            "gone, go on with `carmask train --resume`"
        ) from error


def _read_environment() -> tuple[int, int, int, int]:
    """Return rank, world size, local rank and local world size, checked: torch would wait long for wrong ones."""
    try:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
        values = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", **os.environ}
        rank, world_size, local_rank, local_world_size, _ = (int(values[name]) for name in names)
        if not (0 <= rank < world_size and values["MASTER_ADDR"]):
            raise ValueError(f"RANK {rank} of WORLD_SIZE {world_size}")
    except (KeyError, ValueError) as error:
        raise DistributedError(
            f"the environment describes several processes, but not correctly ({error}); start with torchrun or "
            "`carmask train --devices`, or unset WORLD_SIZE to train in one process"
        ) from error
    return rank, world_size, local_rank, local_world_size


def _sync_batch_norm(norm: nn.BatchNorm2d) -> nn.Module:
    if norm.weight.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-any-return, no-untyped-call]
    synced = CPUSyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    synced.to(norm.weight.device, norm.weight.dtype)
    synced.load_state_dict(norm.state_dict())
    return synced.train(norm.training)


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """SyncBatchNorm for tensors on the CPU, which PyTorch's own refuses."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalize `x_BCHW` (float); while training by mean and variance over all processes. Keeps the dtype."""
        if not self.training:
            return super().forward(x_BCHW)
        # Mean first, then variance: a mean of squares minus the square of a mean loses half of the digits.
        x = x_BCHW if x_BCHW.dtype == torch.float64 else x_BCHW.float()
        pixels = x.numel() // x.shape[1]
        sum_C1 = _all_reduce(torch.cat([x.sum((0, 2, 3)), x.new_tensor([float(pixels)])]))
        count = sum_C1[-1].detach()
        centered = x - (sum_C1[:-1] / count).view(1, -1, 1, 1)
        variance_C = _all_reduce(centered.square().sum((0, 2, 3))) / count
        self._update_statistics(sum_C1[:-1].detach() / count, variance_C.detach() * count / (count - 1))
        scale_C = self.weight * torch.rsqrt(variance_C + self.eps)
        y_BCHW: Tensor = (centered * scale_C.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x_BCHW.dtype)
        return y_BCHW

    @torch.no_grad()
    def _update_statistics(self, mean_C: Tensor, unbiased_variance_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean_C, self.momentum)
        self.running_var.lerp_(unbiased_variance_C, self.momentum)


class _AllReduce(torch.autograd.Function):
    """Sum over all processes, with gradient, as in torch.distributed.nn.functional, which is deprecated."""

    @staticmethod
    def forward(_context: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def _all_reduce(tensor: Tensor) -> Tensor:
    total: Tensor = _AllReduce.apply(tensor)  # type: ignore[no-untyped-call]
    return total
