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

from carmask.training import team as team_module
from carmask.training.team import Team, TeamLost, joined_team

PATIENCE_S = 1.0


def gradients(team: Team) -> dict[str, Tensor]:
    """Of the mean loss over eight images, of which the second half is darker; and BatchNorm's running statistics."""
    # Of the first process's weights, whatever the others begin with.
    torch.manual_seed(team.rank)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1)).double()
    team.prepare(network)
    images_BCHW = torch.rand(8, 3, 12, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    images_BCHW[4:] /= 5
    loss_B = network(images_BCHW[team.slice_of_batch(8)]).square().mean((1, 2, 3))
    loss_B.mean().backward()
    (loss,) = team.average(list(network.parameters()), [float(loss_B.mean())])
    found = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    return {**found, **dict(network.named_buffers()), "loss": torch.tensor(loss)}


def work(folder: Path, rank: int, port: int) -> None:
    """One of two processes."""
    os.environ.update(WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    team_module.PATIENCE = timedelta(seconds=PATIENCE_S)
    with joined_team() as team:
        torch.save(gradients(team), folder / f"{rank}.pt")
        # One has work of its own for longer than that.
        time.sleep(1.25 * PATIENCE_S * rank)
        answers = team.gather("slow", patiently=True)
        if team.is_first:
            print(answers[1], "waited for", flush=True)
        time.sleep(1.25 * PATIENCE_S * rank)
        try:
            team.gather("slow")
        except TeamLost:
            if team.is_first:
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
    torch.save(gradients(Team()), target / "alone.pt")
    sys.exit(max(abs(process.exitcode or 0) for process in processes))
