"""Give `carmask train` commands to two processes in working folders of their own, as on two machines.

Called by a test as a script: `python forked_machines.py ORDER.json`. Of each pair of folders in the order, each command
is given to both, one command after the other; the answer, printed as JSON, is how both ended each time. What they say
goes to a file of the name of the folder and .txt beside it.
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
    orders = json.loads(Path(sys.argv[1]).read_text())["pairs"]
    # Imported before a fork, as what `forked_runs` imports.
    assert experiments

    def work(folder: Path, command: list[str]) -> int:
        signal.alarm(PATIENCE_S)
        # Each is the first of its machine.
        os.environ["LOCAL_RANK"] = "0"
        os.chdir(folder)
        with folder.with_suffix(".txt").open("a") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        try:
            carmask.cli.main(command)
        except SystemExit as end:
            sys.stdout.flush()
            return int(end.code or 0)
        return 70

    answer = []
    for order in orders:
        folders, ends = [Path(folder) for folder in order["folders"]], list[list[int]]()
        for command in order["commands"]:
            ends.append(end_of(fork_processes(2, lambda rank: work(folders[rank], command))))  # noqa: B023 - ends in it
            if not {0, 130} >= set(ends[-1]):
                break
        answer.append(ends)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
