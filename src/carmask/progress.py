"""The progress bar that everything long shows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console

# Called with (done, total).
Progress = Callable[[int, int], None]


@contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Progress]:
    """Show a bar while inside; what it gives is called with (done, total). Nothing is drawn but on a terminal."""
    columns = (
        progress.TextColumn(what),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance
