"""Where results go: what takes them, and the simplest that does, the file of one photo."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from carmask.files import write_bytes_atomically
from carmask.pipeline.jobs import Job, Jobs
from carmask.pipeline.kinds import STREAM
from carmask.pipeline.outcome import Extent
from carmask.result import Result

# From a photo and what was found in it to the bytes of its result.
Render = Callable[[Job, Result], bytes]


class Store(Protocol):
    """Takes results from any thread."""

    jobs: Jobs
    """What is still to be done."""
    empty_before: Sequence[int]
    """Positions of photos done before in which no vehicle was found."""
    before: int
    """How many were done before."""

    def put(self, job: Job, found: Result, extent: Extent) -> str:
        """Keep the result of one photo; where it lies.

        Raises:
            CarmaskError: the result cannot be drawn or written.

        """
        ...

    def finish(self) -> None:
        """Put in order what all the results share. To be called when every job has been tried."""
        ...


class OneFile:
    """The result of one photo, in a file that is simply replaced, or on standard output."""

    def __init__(self, path: Path, jobs: Jobs, render: Render) -> None:
        self.jobs = jobs
        self.before = 0
        self.empty_before: Sequence[int] = ()
        self._path = path
        self._render = render

    def put(self, job: Job, found: Result, extent: Extent) -> str:  # noqa: ARG002 - of no use here
        """See `Store.put`."""
        data = self._render(job, found)
        if self._path == STREAM:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            write_bytes_atomically(self._path, data)
        return str(self._path)

    def finish(self) -> None:
        """See `Store.finish`."""
