"""Progress bars and lines on a console."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich import progress
from rich.console import Console
from rich.text import Text

Item = TypeVar("Item")

# Called with (done, total).
Progress = Callable[[int, int], None]


def say(console: Console, text: str, *, style: str = "") -> None:
    """Print a line as it is: never wrapped, with no markup in names, and escaped where the console cannot show it."""
    text = text.encode(console.encoding, "backslashreplace").decode(console.encoding)
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def progress_bar(what: str, *, unit: str | None = None, console: Console | None = None) -> Iterator[Progress]:
    """Show a progress bar while the block runs, on terminals only; the value is called with (done, total).

    unit: what is counted, e.g. "frames", to also show the speed in units per second. console: by default standard
    error, so that standard output can be piped.
    """
    console = console or Console(stderr=True)
    columns: list[progress.ProgressColumn] = [
        progress.TextColumn(what),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        *([_SpeedColumn(unit)] if unit else []),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
    ]
    with progress.Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        # Rich would print standard output above the bar; if a file or a program reads it, it must get every line.
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
    ) as bar:
        task = bar.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance


def counted(items: Iterable[Item], progress: Progress | None, total: int) -> Iterator[Item]:
    """Yield the items, of which there are `total`, and tell `progress` after each how many are done."""
    for done, item in enumerate(items, start=1):
        yield item
        if progress is not None:
            progress(done, total)


class _SpeedColumn(progress.ProgressColumn):
    """Units per second over the last half minute."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: progress.Task) -> Text:
        """Return the column's text, e.g. "41.5 frames/s"."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {self._unit}/s" if speed else f"- {self._unit}/s", style="progress.data.speed")
