"""Kill tiny trainings at random and in the middle of writing, and go on with each until it has finished.

Called by a test as a script: `python forked_kills.py ORDER.json`. The answer is printed as JSON. What no kill explains
ends it with an error: a run that nobody killed and that ends otherwise than with 0, a kill that never came.
"""

import ctypes
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forked_runs import end_of, start_processes
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from carmask.models.network import Network
from carmask.training.config import TrainSettings

# Of the time that steps, validations and writing take in all: kills come so soon after a turn's first step.
SOON = 0.4
# Which argument of an audited call is the path that counts; of others it is the first.
PATH_OF = {"os.rename": 1}


class Killing:
    """Runs of the same settings, in so many processes."""

    def __init__(self, settings: TrainSettings, processes: int, said: Path) -> None:
        self._settings = settings
        self._processes = processes
        self._said = said

    def undisturbed(self) -> float:
        """Make the run that nobody disturbs, named `whole`; how long it took from its first step on, in seconds."""
        turn = _Turn(self._named("whole"), self._processes, self._said)
        turn.wait_for_step()
        began_s = time.monotonic()
        turn.end()
        return time.monotonic() - began_s

    def at_random(self, kills: int, longest_s: float, rng: random.Random) -> dict[str, Any]:
        """Kill one process at a time, each so many seconds at most after its turn's first step, and go on.

        Kills that come after the run's end are not counted, and another run is begun for those that are left.
        """
        counted = runs = 0
        for _ in range(4 * kills):
            turn = _Turn(self._named(f"random-{runs}"), self._processes, self._said)
            if counted < kills and turn.wait_for_step():
                time.sleep(rng.uniform(0, longest_s))
                turn.kill(rng.randrange(self._processes))
            if turn.end():
                counted += 1
                continue
            runs += 1
            if counted == kills:
                return {"kills": counted, "runs": runs}
        raise RuntimeError(f"{4 * kills} turns, and only {counted} kills came in time, in {runs} runs")

    def while_writing(self, moments: list[dict[str, Any]]) -> list[dict[str, int]]:
        """Kill one run, named `writing`, at one moment after the other; which checkpoints and networks each has left.

        Of each the bytes: of a network those of its weights, 0 where there are none yet.
        """
        # TensorBoard's file would come to the limit first.
        settings = self._named("writing").model_copy(update={"tensorboard": False})
        left = []
        for moment in moments:
            turn = _Turn(settings, self._processes, self._said, lambda moment=moment: die_at(**moment))  # type: ignore[misc]
            if not turn.end():
                raise RuntimeError(f"the run has ended, and it never came to {moment}")
            folder = settings.runs / str(settings.name)
            networks = (place / "model.safetensors" for place in folder.glob("weights/*"))
            left.append(
                {file.name: file.stat().st_size for file in folder.glob("checkpoint*")}
                | {file.parent.name: file.stat().st_size if file.exists() else 0 for file in networks}
            )
        if _Turn(settings, self._processes, self._said).end():
            raise RuntimeError("was killed by nobody knows whom")
        return left

    def _named(self, name: str) -> TrainSettings:
        return self._settings.model_copy(update={"name": f"{name}-{self._processes}"})


class _Turn:
    """The processes of a run, from their start to their end."""

    def __init__(
        self, settings: TrainSettings, processes: int, said: Path, when_learning: Callable[[], None] = lambda: None
    ) -> None:
        """In the first process `when_learning` is called as soon as its first step is under way."""
        self._said = said
        self._steps, told = os.pipe()

        def first(rank: int) -> None:
            begun = False

            def tell(module: nn.Module, _inputs: object) -> None:
                nonlocal begun
                if isinstance(module, Network) and module.training and not begun:
                    begun = True
                    os.write(told, b".")
                    if rank == 0:
                        when_learning()

            register_module_forward_pre_hook(tell)

        self._children = start_processes(settings, processes, said, first=first)
        os.close(told)

    def wait_for_step(self) -> bool:
        """Wait until all have begun a step. Returns whether they have, or else have ended."""
        return all(os.read(self._steps, 1) for _ in self._children)

    def kill(self, rank: int) -> None:
        os.kill(self._children[rank], signal.SIGKILL)

    def end(self) -> bool:
        """Wait for the end of all. Returns whether one was killed, upon which others may end with a sentence.

        Raises:
            RuntimeError: what was not killed has ended in any other way.
        """
        ends = end_of(self._children)
        os.close(self._steps)
        killed = ends.count(-signal.SIGKILL)
        if killed > 1 or not set(ends) <= ({0, 1, -signal.SIGKILL} if killed else {0}):
            said = [self._said.with_name(f"{self._said.name}-{rank}.txt") for rank in range(len(ends))]
            raise RuntimeError("\n".join((f"ended {ends}", *(file.read_text() for file in said if file.exists()))))
        return killed == 1


def die_at(calls: list[tuple[str, str]], limit_bytes: int | None = None) -> None:
    """Have this process killed before the last of these calls, each (an audit event) with a file or folder of a name.

    Those before it must have come first. With a limit it is killed later: in the middle of writing, when the first file
    would be longer than so many bytes. Whoever writes a file sees it cut there; who reserves its whole length first, as
    safetensors does, has none of it.
    """
    awaited = list(calls)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not awaited or event != awaited[0][0] or Path(str(arguments[PATH_OF.get(event, 0)])).name != awaited[0][1]:
            return
        awaited.pop(0)
        if not awaited and limit_bytes is None:
            os.kill(os.getpid(), signal.SIGKILL)
        elif not awaited:
            # Python's own handlers wait until the call has returned; this one is called inside it.
            ctypes.CDLL(None).signal(signal.SIGXFSZ, _DIE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))

    sys.addaudithook(watch)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _DIE(_number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Do what the order says."""
    order = json.loads(Path(sys.argv[1]).read_text())
    settings = TrainSettings.model_validate(order["settings"])
    answer = {}
    for text, moments in order["moments"].items():
        processes = int(text)
        # One process learns from its batch in two parts; of two processes each has a half.
        divided = settings.model_copy(update={"accumulate": 2 // processes})
        killing = Killing(divided, processes, Path(order["said"]))
        longest_s = SOON * killing.undisturbed()
        rng = random.Random(processes)
        answer[processes] = {
            "random": killing.at_random(order["kills"], longest_s, rng),
            "writing": killing.while_writing(moments),
        }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
