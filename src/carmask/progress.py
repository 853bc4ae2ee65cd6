"""The progress bar that everything long shows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console
from rich.text import Text

# Called with (done, total).
Progress = Callable[[int, int], None]


@contextmanager
def progress_bar(console: Console, what: str, *, unit: str | None = None) -> Iterator[Progress]:
    """Show a bar while inside; what it gives is called with (done, total). Nothing is drawn but on a terminal.

    unit: what is counted, to show how many of them are done in a second.
    """
    columns: list[progress.ProgressColumn] = [
        progress.TextColumn(what),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        *([_SpeedColumn(unit)] if unit else []),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
    ]
    with progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance


class _SpeedColumn(progress.ProgressColumn):
    """How many are done in a second, as it has been over the last half minute."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: progress.Task) -> Text:
        """See rich's `ProgressColumn`."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {self._unit}/s" if speed else f"- {self._unit}/s", style="progress.data.speed")
