"""Run tiny trainings in processes of their own, forked from one that has imported all.

Called by tests as a script: `python forked_runs.py ORDER.json`. Forking saves the seconds that importing takes, so that
many runs fit into a test; nothing is computed before a fork. The answer is printed as JSON.
"""

import io
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

# And what a run imports when it comes to it: before a fork, for that takes seconds.
import kornia.augmentation
import torch
import torch._dynamo
import torch.utils.tensorboard
from rich.console import Console
from torch import nn

from carmask.environment import environment
from carmask.errors import CarmaskError
from carmask.models import hub_card
from carmask.training import distributed, experiments, loggers
from carmask.training.config import TrainSettings

# A process that waits for what will never come.
PATIENCE_S = 300


def fork(work: Callable[[], int], variables: dict[str, str]) -> int:
    """Do `work` in a child, which ends with its exit status. Returns the child's process id."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.environ.update(variables)
        status = work()
    except BaseException:  # noqa: BLE001 - nobody else would tell of it
        traceback.print_exc()
    finally:
        os._exit(status)


def start_processes(
    settings: TrainSettings,
    processes: int,
    said: Path,
    *,
    synced: bool = True,
    first: Callable[[int], None] = lambda _rank: None,
) -> list[int]:
    """Begin or go on with a run in so many processes; their ids. What each says goes to a file of its own.

    Each calls `first` with its rank before all else.
    """

    def work(rank: int) -> int:
        signal.alarm(PATIENCE_S)
        first(rank)
        spoken = io.StringIO()
        try:
            if not synced:
                distributed._sync_batch_norm = lambda norm: norm  # type: ignore[assignment]
            with distributed.init_distributed() as context:
                result = experiments.run_experiment(
                    settings, resume="auto", console=Console(file=spoken, width=300), distributed=context
                )
        except CarmaskError as error:
            spoken.write(f"{type(error).__name__}: {error}")
            return 1
        finally:
            said.with_name(f"{said.name}-{rank}.txt").write_text(spoken.getvalue())
        return 0 if result.finished else 130

    return fork_processes(processes, work)


def fork_processes(processes: int, work: Callable[[int], int]) -> list[int]:
    """Do `work(rank)` in so many children, whose environment says what `torchrun` would; their ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    return [
        fork(lambda rank=rank: work(rank), {**names, "RANK": str(rank), "LOCAL_RANK": str(rank)})  # type: ignore[misc]
        for rank in range(processes)
    ]


def end_of(children: list[int]) -> list[int]:
    """Exit status of each, negative for the signal that ended it."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def main() -> None:
    """Do what the order says: one run after the other."""
    ends = []
    for order in json.loads(Path(sys.argv[1]).read_text())["runs"]:
        settings, said = TrainSettings.model_validate(order["settings"]), Path(order["said"])
        ends.append(end_of(start_processes(settings, order["processes"], said, synced=order["synced"])))
    print(json.dumps(ends))


# Forks of other scripts, which import this one, need it too.
assert issubclass(nn.SyncBatchNorm, nn.Module)
assert not torch.cuda.is_initialized()
assert all((kornia.augmentation, torch._dynamo, torch.utils.tensorboard))
# What each run would ask Git for, the template of its model card, and curves, which take half a second to draw and at
# which nobody looks.
environment()
hub_card._template()
loggers.draw_curves = lambda _history: b""

if __name__ == "__main__":
    main()
