"""Printing for all commands: results to standard output, remarks to standard error."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    # It imports numpy and Pillow, too slow for `carmask --help`.
    from carmask.data.layout import Problem


def plain(text: str, style: str = "") -> Text:
    """Return text without markup, with unprintable characters escaped: file names must not control the terminal."""
    return Text("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text), style)


def _wide_console() -> Console:
    """Return a console that never cuts or wraps lines that go to a file or another program."""
    console = Console()
    return console if console.is_terminal else Console(width=10_000)


def print_line(text: str, style: str = "") -> None:
    """Print one line without wrapping it."""
    Console().print(plain(text, style), soft_wrap=True)


def print_remark(text: str, *, warning: bool = False) -> None:
    """Print one line to standard error: a remark about a result that is not part of it."""
    line = Text("warning: ", "bold yellow") if warning else Text()
    Console(stderr=True).print(line.append_text(plain(text, "default")), soft_wrap=True)


def print_error(message: str) -> int:
    """Print why a command cannot continue to standard error; returns the exit status."""
    # Escaped line by line: file names in the message may hold control characters, but its line breaks are ours.
    lines = Text("\n").join(plain(line, "default") for line in message.split("\n"))
    Console(stderr=True).print(Text("error: ", "bold red").append_text(lines), soft_wrap=True)
    return 1


def print_table(
    title: str, words: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]], *, style: str = "italic"
) -> None:
    """Print a table. Long words are wrapped, not cut.

    Args:
        title: Above the table.
        words: Headings of the first columns, which are aligned to the left.
        numbers: Headings of the other columns, which are aligned to the right.
        rows: A text for each column.
        style: Of the title.
    """
    table = Table(title=title, title_justify="left", title_style=style)
    for heading in words:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*map(plain, row))
    _wide_console().print(table)


def print_problems(problems: Sequence["Problem"]) -> None:
    """Print a table of a data set's problems, or nothing if there are none."""
    if problems:
        title = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        rows = ((problem.subject, problem.kind, problem.detail) for problem in problems)
        print_table(title, ("where", "problem", "detail"), (), rows, style="bold red")


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print (name, value) pairs in two columns."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts:
        grid.add_row(name, plain(value))
    _wide_console().print(grid)
