"""Give `carmask train` commands to two processes in working folders of their own, as on two machines.

Called by a test as a script: `python forked_machines.py ORDER.json`. Each command is given to both, one command after
the other; the answer, printed as JSON, is how both ended each time. What they say goes to said-0.txt and said-1.txt in
the folder of the order.
"""

import json
import os
import signal
import sys
from pathlib import Path

from forked_runs import end_of, fork_processes

import carmask.cli
from carmask.training import experiments

# A process that waits for what the other will never send.
PATIENCE_S = 90


def main() -> None:
    """Do what the order says."""
    order_file = Path(sys.argv[1]).absolute()
    order = json.loads(order_file.read_text())
    # Imported before a fork, as what `forked_runs` imports.
    assert experiments

    def work(rank: int, command: list[str]) -> int:
        signal.alarm(PATIENCE_S)
        # Each is the first of its machine.
        os.environ["LOCAL_RANK"] = "0"
        os.chdir(order["folders"][rank])
        with order_file.with_name(f"said-{rank}.txt").open("a") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        try:
            carmask.cli.main(command)
        except SystemExit as end:
            sys.stdout.flush()
            return int(end.code or 0)
        return 70

    ends = []
    for command in order["commands"]:
        ends.append(end_of(fork_processes(2, lambda rank, command=command: work(rank, command))))  # type: ignore[misc]
        if not {0, 130} >= set(ends[-1]):
            break
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
