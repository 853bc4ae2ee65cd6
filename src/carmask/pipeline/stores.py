"""Where results go: what takes them, and the simplest that does, the file of one photo."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from carmask.errors import CarmaskError
from carmask.files import write_bytes_atomically
from carmask.pipeline.jobs import Job, Jobs
from carmask.pipeline.kinds import STREAM
from carmask.pipeline.outcome import Extent, Outcome
from carmask.result import Result

# From a photo and what was found in it to the bytes of its result.
Render = Callable[[Job, Result], bytes]
# Keeps a result, or makes its row in a table.
Put = Callable[[Job, Result, Extent], Any]


class Store(Protocol):
    """Takes results from any thread, and then what became of each photo."""

    jobs: Jobs
    """What is still to be done."""
    empty_before: Sequence[int]
    """Positions of photos done before in which no vehicle was found."""
    before: int
    """How many were done before."""

    def put(self, job: Job, found: Result, extent: Extent) -> Any:
        """Keep the result of one photo, or make its row in a table.

        Raises:
            CarmaskError: the result cannot be drawn or written.

        """
        ...

    def branch(self) -> "Branch":
        """Return what puts results on other machines.

        Raises:
            CarmaskError: there is one result, and nothing to divide.

        """
        ...

    def take(self, outcome: Outcome) -> str | None:
        """Note what became of a photo, in one thread; where its result lies, if it has one.

        Raises:
            UnwritableFile: it cannot be noted.

        """
        ...

    def finish(self) -> None:
        """Put in order what all the results share. To be called when every job has been tried."""
        ...


class Branch(Protocol):
    """Puts results for a store on another machine, to which it can be sent."""

    def open(self) -> AbstractContextManager[Put]:
        """Give what puts results, in any thread, as long as the block lasts.

        Raises:
            CarmaskError: that machine does not see where the results go.

        """
        ...


class OneFile:
    """The result of one photo, in a file that is simply replaced, or on standard output."""

    def __init__(self, path: Path, jobs: Jobs, render: Render) -> None:
        self.jobs = jobs
        self.before = 0
        self.empty_before: Sequence[int] = ()
        self._path = path
        self._render = render

    def put(self, job: Job, found: Result, extent: Extent) -> None:  # noqa: ARG002 - of no use here
        """See `Store.put`."""
        data = self._render(job, found)
        if self._path == STREAM:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            write_bytes_atomically(self._path, data)

    def branch(self) -> Branch:
        """See `Store.branch`."""
        raise CarmaskError("--cluster: is for many photos; leave it out for one")

    def take(self, outcome: Outcome) -> str | None:
        """See `Store.take`."""
        return str(self._path) if outcome.cause is None else None

    def finish(self) -> None:
        """See `Store.finish`."""
