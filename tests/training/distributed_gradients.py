"""Gradients of a small network in one process and in two, written to the folder that is given; called by a test."""

import multiprocessing
import os
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn

from carmask.training import distributed as distributed_module
from carmask.training.distributed import DistributedContext, ProcessLostError, init_distributed

TIMEOUT_S = 1.0


def gradients(distributed: DistributedContext) -> dict[str, Tensor]:
    """Of the mean loss over eight images, of which the second half is darker; and BatchNorm's running statistics."""
    # Of the first process's weights, whatever the others begin with.
    torch.manual_seed(distributed.rank)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1)).double()
    distributed.prepare_network(network)
    images_BCHW = torch.rand(8, 3, 12, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    images_BCHW[4:] /= 5
    loss_B = network(images_BCHW[distributed.batch_slice(8)]).square().mean((1, 2, 3))
    loss_B.mean().backward()
    (loss,) = distributed.all_reduce_gradients(list(network.parameters()), [float(loss_B.mean())])
    found = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    return {**found, **dict(network.named_buffers()), "loss": torch.tensor(loss)}


def work(folder: Path, rank: int, port: int) -> None:
    """One of two processes."""
    os.environ.update(WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    distributed_module.TIMEOUT = timedelta(seconds=TIMEOUT_S)
    with init_distributed() as distributed:
        torch.save(gradients(distributed), folder / f"{rank}.pt")
        # One has work of its own for longer than that.
        time.sleep(1.25 * TIMEOUT_S * rank)
        answers = distributed.all_gather_object("slow", slow=True)
        if distributed.is_main:
            print(answers[1], "waited for", flush=True)
        time.sleep(1.25 * TIMEOUT_S * rank)
        try:
            distributed.all_gather_object("slow")
        except ProcessLostError:
            if distributed.is_main:
                print("lost", flush=True)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    # Forked, because importing takes seconds; nothing is computed before.
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(target, rank, number)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    torch.save(gradients(DistributedContext()), target / "alone.pt")
    sys.exit(max(abs(process.exitcode or 0) for process in processes))
