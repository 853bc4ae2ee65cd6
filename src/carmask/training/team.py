"""The processes that train one network together, each with its share of every batch; most often there is one.

`torchrun` (or `carmask train --devices`) starts them and says in the environment who is who. The gradients of all are
averaged after each step, so that every process holds the same weights at any time; BatchNorm sees the whole batch.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from carmask.errors import CarmaskError, first_line
from carmask.training.synced_norm import SyncedBatchNorm

T = TypeVar("T")

# How long a process waits for the others where all have as much to do. The first one also writes and draws in between.
PATIENCE = timedelta(minutes=10)
# One process of each machine may fill a large cache while the others wait for it.
LONG_PATIENCE = timedelta(hours=6)


class TeamError(CarmaskError):
    """The processes of a team do not hold together; each finds that out."""


class TeamLost(TeamError):
    """Another process has ended, or cannot be reached, as far as this one can see."""


class Team:
    """One process's view of the team: `rank` of `count`, of which `local_rank` of `local_count` on this machine."""

    def __init__(
        self,
        rank: int = 0,
        count: int = 1,
        local_rank: int = 0,
        local_count: int = 1,
        *,
        patient: dist.ProcessGroup | None = None,
    ) -> None:
        self.rank = rank
        self.count = count
        self.local_rank = local_rank
        self.local_count = local_count
        # The same processes, for exchanges before which one of them may have long work of its own.
        self._patient = patient

    @property
    def is_first(self) -> bool:
        """Whether this is the one process that writes and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """The part of this process: every item is in the part of one."""
        return items[self.rank :: self.count]

    def slice_of_batch(self, batch_size: int) -> slice:
        """The part of each batch that this process learns from; all have as many photos.

        Raises:
            TeamError: the batch cannot be divided.

        """
        if batch_size % self.count:
            raise TeamError(
                f"batch_size {batch_size} cannot be divided among {self.count} processes; use a multiple of that"
            )
        size = batch_size // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` gives in the first process, for all."""
        if self.count == 1:
            return make()
        box = [make() if self.is_first else None]
        with told():
            dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def gather(self, item: T, *, patiently: bool = False) -> list[T]:
        """What each process has, in the order of the processes, for all; `patiently` where some work long before."""
        if self.count == 1:
            return [item]
        items: list[Any] = [None] * self.count
        with told():
            dist.all_gather_object(items, item, group=self._patient if patiently else None)
        return items

    def refuse_differences(self, item: object, what: str) -> None:
        """Refuse to go on where processes have seen different things.

        Raises:
            TeamError: `item` is not the same in all of them; `what` tells what it stands for.

        """
        if any(other != item for other in self.gather(item)):
            raise TeamError(f"{what} are not the same for all processes; give every machine the same files")

    def prepare(self, network: nn.Module) -> None:
        """Give all processes the same weights, and BatchNorm the statistics of the whole batch. Changes `network`."""
        if self.count == 1:
            return
        with told():
            for tensor in network.state_dict().values():
                dist.broadcast(tensor, src=0)
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, _synced(child))

    def average(self, parameters: Sequence[nn.Parameter], notes: Sequence[float]) -> list[float]:
        """Average the gradients of all processes, in place. Returns the averages of what each notes beside them."""
        if self.count == 1:
            return list(notes)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # One exchange for all, in an order that never changes, so that sums are the same to the last bit each time.
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), gradients[0].new_tensor(list(notes))])
        with told():
            dist.all_reduce(flat)
        flat /= self.count
        *means, averaged = torch.split(flat, [*(gradient.numel() for gradient in gradients), len(notes)])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))
        return [float(note) for note in averaged.tolist()]

    def stack(self, tensor_B: Tensor) -> Tensor:
        """The same-sized tensors of all processes, one after the other, for all."""
        if self.count == 1:
            return tensor_B
        parts = [torch.empty_like(tensor_B) for _ in range(self.count)]
        with told():
            dist.all_gather(parts, tensor_B)
        return torch.cat(parts)

    def leave(self) -> None:
        """End the exchange; nothing can be shared after that."""
        if self.count > 1:
            dist.destroy_process_group()


@contextmanager
def joined_team() -> Iterator[Team]:
    """The team that the environment tells of, as `torchrun` sets it; this process alone where it says nothing.

    Raises:
        TeamError: the environment does not say all that is needed, or the others cannot be reached.

    """
    count = _told_number("WORLD_SIZE", at_least=1) if "WORLD_SIZE" in os.environ else 1
    if count == 1:
        yield Team()
        return
    rank = _told_number("RANK", at_most=count - 1)
    local_rank = _told_number("LOCAL_RANK") if "LOCAL_RANK" in os.environ else 0
    local_count = _told_number("LOCAL_WORLD_SIZE", at_least=1) if "LOCAL_WORLD_SIZE" in os.environ else 1
    _told("MASTER_ADDR")
    _told_number("MASTER_PORT", at_most=65535)
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    with told():
        dist.init_process_group(backend, timeout=PATIENCE)
        patient = dist.new_group(backend="gloo", timeout=LONG_PATIENCE)
    team = Team(rank, count, local_rank, local_count, patient=patient)
    try:
        yield team
    finally:
        team.leave()


def _told(name: str) -> str:
    """What the environment says of the team."""
    value = os.environ.get(name, "")
    if not value:
        raise TeamError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']} says that several processes train together, but {name} is not set; "
            "start them with torchrun or `carmask train --devices`, which set it, or unset WORLD_SIZE to train alone"
        )
    return value


def _told_number(name: str, *, at_least: int = 0, at_most: float = math.inf) -> int:
    value = _told(name)
    if not value.isdecimal() or not at_least <= int(value) <= at_most:
        raise TeamError(
            f"{name}={value} in the environment is no number that it could be; start with torchrun or `carmask train "
            "--devices`, which set it, or unset WORLD_SIZE to train alone"
        )
    return int(value)


@contextmanager
def told() -> Iterator[None]:
    """Say in words that an exchange has failed.

    Raises:
        TeamLost: another process has ended, or cannot be reached.

    """
    try:
        yield
    except RuntimeError as error:
        if not _is_of_exchange(error):
            raise
        raise TeamLost(
            f"another process of this run has ended, or cannot be reached ({first_line(error)}); when the cause is "
            "gone, go on with `carmask train --resume`"
        ) from error


def _is_of_exchange(error: RuntimeError) -> bool:
    # Gloo's own failures are bare RuntimeErrors that name its source files.
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in ("gloo", "nccl", "by peer"))


def _synced(norm: nn.BatchNorm2d) -> nn.Module:
    """The same layer, its statistics taken over all processes."""
    # PyTorch's own refuses tensors on the CPU.
    if norm.weight.device.type == "cuda":
        synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(norm)  # type: ignore[no-untyped-call]
        return synced
    return SyncedBatchNorm.of(norm)
