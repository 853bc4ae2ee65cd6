"""`carmask check`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import fmean
from typing import IO, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from carmask import progress
from carmask.data.check import CheckReport, check_dataset, contact_sheet
from carmask.data.layout import DatasetError, Problem
from carmask.errors import CarmaskError
from carmask.imaging.encode import encode_png, write_bytes_atomically
from carmask.models.presets import PresetName

Key = TypeVar("Key")

_SHOWN = 5


def check(
    data: Path,
    *,
    split: Path | None = None,
    group_pattern: str | None = None,
    foreground: int | None = None,
    sheet: Path | None = None,
    photos: int = 24,
    augmented: Path | None = None,
    preset: PresetName = "fast",
    config: Path | None = None,
) -> int:
    """Look for every problem in a folder of photos and masks.

    Exit status 1 when something is wrong.

    Args:
        data: Folder in Carvana's layout, or with images/ and masks/.
        split: A split.json: look also for the same picture, or one group, in both of its halves.
        group_pattern: Regular expression that finds a photo's group in its name; its capture group if it has one.
        foreground: Stored mask value that means foreground, where 0 and one other value is not the rule.
        sheet: Where to save the contact sheet of photos and masks; check/NAME.png, by the folder's name, if not given.
        photos: Photos on the contact sheet, doubtful ones first; 0 for no sheet.
        augmented: Where to save a sheet of what training sees: photos and masks as they are varied. Needs PyTorch.
        preset: The network whose training is shown there.
        config: A YAML file of training settings that is shown there instead.

    """
    if photos < 0:
        raise CarmaskError(f"--photos {photos}: give 0 or more.")
    if sheet and sheet.suffix.lower() != ".png":
        raise CarmaskError(f"--sheet {sheet}: the contact sheet is a PNG; give a name that ends in .png.")
    try:
        with progress_bar("checking") as advance:
            report = check_dataset(
                data, group_pattern=group_pattern, foreground=foreground, split=split, progress=advance
            )
    except DatasetError as error:
        print_problems(error.problems)
        raise
    written: Path | None = None
    if photos:
        written = sheet or Path("check") / f"{report.dataset.root.resolve().name}.png"
        image_HWC = contact_sheet(report.dataset, photos, doubtful=report.doubtful, foreground=foreground)
        write_bytes_atomically(written, encode_png(image_HWC))
    if augmented:
        _save_augmented(augmented, report, preset, config)
    print_problems(report.problems)
    _print_summary(report, written)
    return 1 if report.problems else 0


def _save_augmented(path: Path, report: CheckReport, preset: PresetName, config: Path | None) -> None:
    # Kept out of the command's start: torch takes a second to import, and is not needed for the rest.
    from carmask.training.preview import augmented_sheet
    from carmask.training.settings import TrainSettings

    given = {"data": report.dataset.root, **({"config": config} if config else {"preset": preset})}
    doubtful = set(report.doubtful)
    pairs = [pair for pair in report.dataset.pairs if pair.id not in doubtful]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(path, encode_png(augmented_sheet(pairs, TrainSettings.model_validate(given))))


def progress_bar(what: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """Show a bar on standard error, so that what a command prints can be piped; gives what takes (done, total)."""
    return progress.progress_bar(Console(stderr=True), what)


def wide_console(file: IO[str] | None = None) -> Console:
    """Return a console that never shortens a line on its way into a file or another program."""
    console = Console(file=file or sys.stdout)
    return console if console.is_terminal else Console(file=console.file, width=10_000)


def print_problems(problems: Sequence[Problem], console: Console | None = None) -> None:
    """Print every problem in one table. Long names are folded, not cut."""
    if not problems:
        return
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    table = Table(title=count, title_justify="left", title_style="bold red")
    for heading in ("where", "problem", "detail"):
        table.add_column(heading, overflow="fold")
    for problem in problems:
        table.add_row(*(_plain(text) for text in (problem.subject, problem.kind, problem.detail)))
    (console or wide_console()).print(table)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts:
        grid.add_row(name, _plain(value))
    wide_console().print(grid)


def _print_summary(report: CheckReport, sheet: Path | None) -> None:
    dataset = report.dataset
    groups = len({pair.group for pair in dataset.pairs})
    facts = [
        ("data", str(dataset.root)),
        ("layout", dataset.layout),
        ("pairs", f"{len(dataset.pairs)} in {groups} groups"),
        *(("photo size", f"{height} x {width} px: {count}") for (height, width), count in _most(report.sizes)),
        *(("mask rule", f"{rule}: {count}") for rule, count in _most(report.rules)),
    ]
    if len(report.sizes) > _SHOWN:
        facts.insert(3, ("photo sizes", f"{len(report.sizes)} different ones, the most usual:"))
    if report.area_of:
        areas = report.area_of.values()
        mean, least, most = fmean(areas), min(areas), max(areas)
        facts.append(("mask area", f"mean {mean:.1%} of the picture, from {least:.1%} to {most:.1%}"))
    if report.outside_split:
        facts.append(("note", f"the split leaves out {report.outside_split} pairs"))
    facts.append(("time", f"{report.seconds:.1f} s"))
    if sheet:
        facts.append(("contact sheet", str(sheet)))
    facts.append(("problems", str(len(report.problems)) if report.problems else "none"))
    print_facts(facts)


def _most(counts: dict[Key, int]) -> list[tuple[Key, int]]:
    return list(counts.items())[:_SHOWN]


def _plain(text: str) -> Text:
    """Show a name as it is: no markup, and no control characters that could steer the terminal."""
    return Text("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))
