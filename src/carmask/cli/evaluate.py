"""`carmask evaluate`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from carmask.cli.console import (
    print_complaints,
    print_facts,
    print_problems,
    print_remark,
    progress_bar,
    wide_console,
)
from carmask.data.pairs import find_pairs
from carmask.data.split import Split
from carmask.environment import environment
from carmask.errors import CarmaskError
from carmask.evaluation.cases import draw_cases
from carmask.evaluation.evaluate import evaluate
from carmask.evaluation.report import METRICS, Subject, format_figure, write_report
from carmask.evaluation.results import Evaluation
from carmask.evaluation.selection import Part, Selection, find_run, select_pairs
from carmask.segmenter import Segmenter


def evaluate_command(
    data: Path,
    *,
    model: Annotated[Path, Parameter(alias="-m")],
    split: Path | None = None,
    part: Part | None = None,
    out: Path | None = None,
    worst: int = 20,
    batch_size: int = 4,
    device: str = "auto",
    group_pattern: str | None = None,
    foreground: int | None = None,
) -> int:
    """Measure a network on photos with masks, each at its own size, and write a report.

    Where the model is a training run's folder, the photos that the run held out are measured. Exit status 2 when
    some photos could not be measured.

    Args:
        data: Folder in Carvana's layout, or with images/ and masks/.
        model: Folder of a training run, or of weights.
        split: A split.json to take the part from, where it is not the run's own.
        part: Which photos: the held-out ones (validation), those learnt from (train), or all of them.
        out: Folder for report.html, summary.json and per_image.csv; evaluation/DATA-PART if not given, inside the
            run's folder where there is one.
        worst: How many of the worst photos the report shows.
        batch_size: Photos that go through the network together.
        device: auto, cpu, cuda or cuda:1.
        group_pattern: Regular expression that finds a photo's group in its name; its capture group if it has one.
        foreground: Stored mask value that means foreground, where 0 and one other value is not the rule.

    """
    if worst < 0:
        raise CarmaskError(f"--worst {worst}: give 0 or more")
    if batch_size < 1:
        raise CarmaskError(f"--batch-size {batch_size}: give 1 or more")
    dataset = find_pairs(data, group_pattern=group_pattern)
    run = find_run(model)
    selection = select_pairs(
        dataset.pairs,
        part=part,
        split=Split.load(split) if split else None,
        trained=Split.load(run / "split.json") if run else None,
    )
    segmenter = Segmenter.load(model, device=device)
    print_problems(dataset.problems)
    _print_selection(selection)

    with progress_bar("measuring") as progress:
        evaluation = evaluate(
            selection.pairs, segmenter, foreground=foreground, batch_size=batch_size, progress=progress
        )
    with progress_bar("drawing the worst") as progress:
        pairs = {pair.id: pair for pair in selection.pairs}
        shown = evaluation.worst(worst)
        cases = draw_cases(shown, pairs, segmenter, foreground=foreground, progress=progress)

    data_name = dataset.root.resolve().name
    subject = Subject(
        data=data_name,
        model=(run or model.absolute()).name,
        part=selection.part,
        description=segmenter.describe(),
        environment=environment(),
        remarks=selection.remarks,
        warnings=selection.warnings,
        group_word="car" if dataset.layout == "carvana" else "group",
    )
    folder = out or (run or Path()) / "evaluation" / f"{data_name}-{selection.part}"
    page = write_report(folder, evaluation, subject, cases=cases, training_log=run / "metrics.csv" if run else None)
    if evaluation.failures:
        rows = ((failure.id, failure.file, failure.cause) for failure in evaluation.failures)
        print_complaints(f"{len(evaluation.failures)} not measured", ("photo", "file", "cause"), rows)
    _print_figures(evaluation)
    if evaluation.odd_warning:
        print_remark(evaluation.odd_warning, warning=True)
    print_facts([*(("mask rule", rule) for rule in evaluation.mask_rules), ("report", str(page))])
    return 2 if evaluation.failures or dataset.problems else 0


def _print_selection(selection: Selection) -> None:
    count = len(selection.pairs)
    which = "all" if selection.part == "all" else f"the {selection.part} part"
    print_remark(f"{count} photo{'s' * (count > 1)}, {which}.")
    for remark in selection.remarks:
        print_remark(remark)
    for warning in selection.warnings:
        print_remark(warning, warning=True)


def _print_figures(evaluation: Evaluation) -> None:
    table = Table(title=f"{len(evaluation.rows)} photos, each at its own size", title_justify="left")
    table.add_column("metric")
    for heading in ("mean", "median", "95 % are as good as", "worst"):
        table.add_column(heading, justify="right")
    for metric, figures in evaluation.summary.items():
        values = (figures.mean, figures.median, figures.worst_5_percent, figures.worst)
        name = METRICS[metric][0] + (f" (undefined for {figures.undefined})" if figures.undefined else "")
        table.add_row(name, *(format_figure(value, metric) for value in values))
    wide_console().print(table)
