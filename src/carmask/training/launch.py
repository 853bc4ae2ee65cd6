"""Start several training processes on this machine, as `torchrun --standalone` does."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

import torch

from carmask.errors import CarmaskError
from carmask.limits import usable_cpus
from carmask.training.distributed import DistributedError

# How long processes may take to finish their step and write a checkpoint after a signal.
STOP_S = 120
WATCH_S = 0.3


def count_devices(wanted: str) -> int:
    """Number of processes for `--devices`: `auto` is one per GPU.

    Raises:
        CarmaskError: `wanted` is not a number.
    """
    if wanted == "auto":
        return max(1, torch.cuda.device_count())
    if not wanted.isdecimal() or int(wanted) < 1:
        raise CarmaskError(f"--devices {wanted}: give auto, or a number of processes")
    return int(wanted)


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `carmask` with these arguments in several processes. Returns the exit status.

    Raises:
        DistributedError: one of them was killed.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # It prints a page about every failure; here it is one sentence.
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)
    # Otherwise torchrun gives each process one thread, even if there are cores for more.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cpus() // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=WATCH_S,
        shutdown_timeout=STOP_S,
        signals_to_handle="SIGTERM,SIGINT,SIGHUP",
    )
    try:
        elastic_launch(config, sys.executable)("-m", "carmask", *arguments)
    except SignalException as error:
        return 128 + error.sigval
    except ChildFailedError as error:
        exit_codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        killed = [rank for rank, code in exit_codes.items() if code < 0]
        if not killed:
            return max(exit_codes.values())
        rank = min(killed)
        raise DistributedError(
            f"process {rank} of the run was ended by {signal.Signals(-exit_codes[rank]).name}, and the others were "
            "stopped; when the cause is gone, go on with `carmask train --resume`"
        ) from None
    return 0
