"""`carmask evaluate`."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from carmask.cli.console import (
    print_complaints,
    print_facts,
    print_problems,
    print_remark,
    progress_bar,
    wide_console,
)
from carmask.cli.network import NetworkOptions
from carmask.cli.options import BatchSize
from carmask.data.pairs import Dataset, find_pairs
from carmask.data.split import Split
from carmask.environment import environment
from carmask.errors import CarmaskError
from carmask.evaluation.cases import Case, draw_cases
from carmask.evaluation.folds import Share, evaluate_shares, read_folds, select_out_of_fold
from carmask.evaluation.report import METRICS, Subject, format_figure, missing_for_page, write_report
from carmask.evaluation.results import Evaluation
from carmask.evaluation.selection import Part, Selection, find_run, select_pairs, what_was_learned
from carmask.models.config import METRICS_OF_RUN
from carmask.models.series_file import fold_folders
from carmask.runtime.locate import folder_of_folds
from carmask.segmenter import Segmenter

_NETWORK = NetworkOptions()


def evaluate_command(
    data: Path,
    *,
    network: NetworkOptions = _NETWORK,
    split: Path | None = None,
    part: Part | None = None,
    out: Path | None = None,
    worst: int = 20,
    batch_size: BatchSize = 4,
    group_pattern: str | None = None,
    foreground: int | None = None,
) -> int:
    """Measure a network on photos with masks, each at its own size, and write a report.

    Where the model knows which photos it was not trained on, those are measured: a training run's folder, what was
    exported from it, or the packaged weights. Of a folder of folds, each photo is measured by the network that was not
    trained on its group, all in one report; with --part all, by the average of the networks. Exit status 2 when some
    photos could not be measured.

    Args:
        data: Folder in Carvana's layout, or with images/ and masks/.
        network: What is measured, and how it runs.
        split: A split.json to take the part from, where it is not the model's own.
        part: Which photos: the held-out ones (validation), those learned from (train), or all of them.
        out: Folder for report.html, summary.json and per_image.csv; evaluation/DATA-PART if not given, inside the
            run's folder where there is one.
        worst: How many of the worst photos the report shows.
        batch_size: Photos that go through the network together.
        group_pattern: Regular expression that finds a photo's group in its name; its capture group if it has one.
        foreground: Stored mask value that means foreground, where 0 and one other value is not the rule.

    """
    if worst < 0:
        raise CarmaskError(f"--worst {worst}: give 0 or more")
    dataset = find_pairs(data, group_pattern=group_pattern)
    segmenter = network.load()
    folds = folder_of_folds(network.model[0]) if len(network.model) == 1 else None
    selection, shares = _select(dataset, segmenter, folds, part, split)
    print_problems(dataset.problems)
    print_remark(f"{segmenter.name}: {segmenter.describe_engine()}")
    _print_selection(selection)

    with progress_bar("measuring") as progress:
        evaluation = evaluate_shares(shares, foreground=foreground, batch_size=batch_size, progress=progress)
    cases = _draw_worst(evaluation, shares, worst, foreground)

    run = find_run(segmenter.members[0].place) if len(segmenter.members) == 1 else None
    home = run or folds
    subject = _subject(dataset, segmenter, selection, home)
    folder = out or (home or Path()) / "evaluation" / f"{subject.data}-{selection.part}"
    written = write_report(folder, evaluation, subject, cases=cases, training_log=run / METRICS_OF_RUN if run else None)
    _print_outcome(evaluation, written)
    return 2 if evaluation.failures or dataset.problems else 0


def _select(
    dataset: Dataset, segmenter: Segmenter, folds: Path | None, part: Part | None, split: Path | None
) -> tuple[Selection, list[Share]]:
    """Choose the photos, and by which networks they are measured: by each fold's own, or by all together."""
    if folds is not None and part in (None, "validation") and split is None:
        splits = read_folds(fold_folders(folds))
        out_of_fold = select_out_of_fold(dataset.pairs, splits)
        if out_of_fold is not None:
            selection, by_fold = out_of_fold
            of_folds = zip(splits, segmenter.each(), strict=True)
            return selection, [Share(name, by_fold[name], alone) for name, alone in of_folds if name in by_fold]
    selection = select_pairs(
        dataset.pairs,
        part=part,
        split=Split.load(split) if split else None,
        learned=what_was_learned([(member.place, member.card) for member in segmenter.members]),
    )
    return selection, [Share("", selection.pairs, segmenter)]


def _subject(dataset: Dataset, segmenter: Segmenter, selection: Selection, home: Path | None) -> Subject:
    """What the report is about. `home` is the folder of the run or of the folds, where there is one."""
    return Subject(
        data=dataset.root.resolve().name,
        model=home.resolve().name if home else segmenter.name,
        part=selection.part,
        description=segmenter.describe(),
        environment=environment(),
        remarks=selection.remarks,
        warnings=selection.warnings,
        group_word="car" if dataset.layout == "carvana" else "group",
    )


def _draw_worst(evaluation: Evaluation, shares: Sequence[Share], worst: int, foreground: int | None) -> list[Case]:
    if missing_for_page():
        return []
    pairs = {pair.id: pair for share in shares for pair in share.pairs}
    segmenter_of = {pair.id: share.segmenter for share in shares for pair in share.pairs}
    rows = evaluation.worst(worst)
    cases: list[Case] = []
    with progress_bar("drawing the worst") as progress:
        for row in rows:
            cases += draw_cases([row], pairs, segmenter_of[row.id], foreground=foreground)
            progress(len(cases), len(rows))
    return cases


def _print_outcome(evaluation: Evaluation, written: Path) -> None:
    if evaluation.failures:
        rows = ((failure.id, failure.file, failure.cause) for failure in evaluation.failures)
        print_complaints(f"{len(evaluation.failures)} not measured", ("photo", "file", "cause"), rows)
    _print_figures(evaluation)
    if evaluation.odd_warning:
        print_remark(evaluation.odd_warning, warning=True)
    if missing := missing_for_page():
        print_remark(
            f"no report.html: it needs {' and '.join(missing)}; `pip install 'carmask[train]'` brings what is missing"
        )
    print_facts([*(("mask rule", rule) for rule in evaluation.mask_rules), ("report", str(written))])


def _print_selection(selection: Selection) -> None:
    count = len(selection.pairs)
    which = {"all": "all", "out-of-fold": "out of fold"}.get(selection.part, f"the {selection.part} part")
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
    if evaluation.by_fold:
        _print_folds(evaluation)


def _print_folds(evaluation: Evaluation) -> None:
    table = Table(title="by fold", title_justify="left")
    table.add_column("fold")
    for heading in ("photos", "Dice", "worst Dice", METRICS["boundary_f1"][0], METRICS["boundary_error_px"][0]):
        table.add_column(heading, justify="right")
    for row in evaluation.by_fold:
        figures = (row.dice, row.worst_dice, row.boundary_f1)
        error_px = format_figure(row.boundary_error_px, "boundary_error_px")
        table.add_row(row.name, str(row.photos), *(format_figure(value, "dice") for value in figures), error_px)
    wide_console().print(table)
