"""`carmask evaluate`."""

from pathlib import Path

from carmask.cli.console import print_facts, print_problems, print_remark, print_table
from carmask.cli.options import BatchSize, Count, DataOptions, NetworkOptions
from carmask.environment import environment
from carmask.evaluation.evaluate import evaluate_selection, select
from carmask.evaluation.metric_labels import METRICS, format_metric
from carmask.evaluation.report import draw_worst, missing_for_page, write_report
from carmask.evaluation.results import Evaluation, Subject
from carmask.evaluation.selection import Part, Selection, find_run
from carmask.models.config import METRICS_OF_RUN
from carmask.progress import progress_bar
from carmask.runtime.locate import folder_of_folds

_NETWORK = NetworkOptions()
_OPTIONS = DataOptions()


def evaluate_command(
    data: Path,
    *,
    network: NetworkOptions = _NETWORK,
    split: Path | None = None,
    part: Part | None = None,
    out: Path | None = None,
    worst: Count = 20,
    batch_size: BatchSize = 4,
    options: DataOptions = _OPTIONS,
) -> int:
    """Measure a network on photos with masks, each at its own size, and write a report.

    By default it measures the photos that the network was not trained on. These are known for a training run's folder,
    for files exported from it, and for the packaged weights. For other networks it measures all photos. With a folder
    of folds, it measures each photo with the network that was not trained on its group, or with the average of all
    networks for --part all. The report lists photos without a vehicle apart: those in no_vehicle/ and those with an
    empty mask. The exit status is 2 if some photos could not be measured.

    Args:
        data: Folder in Carvana's layout, or with images/, masks/ and perhaps no_vehicle/. Or a folder with label files
            of COCO, LabelMe, CVAT, Label Studio, YOLO, Pascal VOC or Supervisely, or one such file.
        network: What is measured, and how it runs.
        split: A split.json to take the part from, instead of the network's own.
        part: Which photos to measure: the held-out ones (validation), those trained on (train), or all of them.
        out: Folder for report.html, summary.json and per_image.csv. Default: evaluation/DATA-PART, inside the run's
            folder if there is one.
        worst: How many of the worst photos the report shows, and how many photos without a vehicle in which one is
            found.
        batch_size: Number of photos in a batch.
        options: How photos and masks are found and read.
    """
    dataset = options.find(data)
    segmenter = network.load()
    folds = folder_of_folds(network.model[0]) if len(network.model) == 1 else None
    selection = select(dataset, segmenter, folds=folds, part=part, split=split)
    print_problems(dataset.problems)
    run = find_run(segmenter.members[0].place) if len(segmenter.members) == 1 else None
    home = run or folds
    # A network has the name of its preset.
    name = f"{home.resolve().name} ({segmenter.name})" if home else segmenter.name
    print_remark(f"{name}: {segmenter.describe_engine()}")
    _print_selection(selection)

    with progress_bar("measuring") as progress:
        evaluation = evaluate_selection(selection, segmenter, batch_size=batch_size, progress=progress)
    with progress_bar("drawing the worst") as progress:
        cases = draw_worst(evaluation, selection, segmenter, worst, progress=progress)

    subject = Subject(
        data=dataset.root.resolve().name,
        model=home.resolve().name if home else segmenter.name,
        description=segmenter.describe(),
        environment=environment(),
        group_word="car" if dataset.layout == "carvana" else "group",
    )
    folder = out or (home or Path()) / "evaluation" / f"{subject.data}-{evaluation.part}"
    report = write_report(folder, evaluation, subject, cases=cases, training_log=run / METRICS_OF_RUN if run else None)
    _print_evaluation(evaluation)
    rules = (("mask rule", rule) for rule in evaluation.mask_rules)
    print_facts([*evaluation.facts, *rules, ("report", str(report))])
    return 2 if evaluation.failures or dataset.problems else 0


def _print_selection(selection: Selection) -> None:
    count = len(selection.pairs)
    which = {"all": "all", "out-of-fold": "out of fold"}.get(selection.part, f"the {selection.part} part")
    print_remark(f"{count} photo{'s' * (count > 1)}, {which}.")
    for remark in selection.remarks:
        print_remark(remark)
    for warning in selection.warnings:
        print_remark(warning, warning=True)


def _print_evaluation(evaluation: Evaluation) -> None:
    if evaluation.failures:
        rows = ((failure.id, failure.file, failure.cause) for failure in evaluation.failures)
        title = f"{len(evaluation.failures)} not measured"
        print_table(title, ("photo", "file", "cause"), (), rows, style="bold red")
    if evaluation.vehicle_rows:
        _print_metrics(evaluation)
    if evaluation.by_fold:
        _print_folds(evaluation)
    if evaluation.odd_warning:
        print_remark(evaluation.odd_warning, warning=True)
    if missing := missing_for_page():
        print_remark(
            f"no report.html: it needs {' and '.join(missing)}; `pip install 'carmask[train]'` installs what is missing"
        )


def _print_metrics(evaluation: Evaluation) -> None:
    rows = []
    summaries = evaluation.summary
    for name, metric in evaluation.metrics.items():
        summary = summaries[name]
        values = (summary.mean, summary.median, summary.worst_5_percent, summary.worst)
        label = metric.label + (f" (undefined for {summary.undefined})" if summary.undefined else "")
        rows.append([label, *(format_metric(value, name) for value in values)])
    title = f"{len(evaluation.vehicle_rows)} photos, each at its own size"
    print_table(title, ["metric"], ["mean", "median", "95 % are as good as", "worst"], rows)


def _print_folds(evaluation: Evaluation) -> None:
    columns = ("dice", "worst_dice", "boundary_f1", "boundary_error_px")
    labels = [METRICS[name].label for name in columns[2:]]
    rows = [
        [row.name, str(row.photos), *(format_metric(getattr(row, name), name) for name in columns)]
        for row in evaluation.by_fold
    ]
    print_table("by fold", ["fold"], ["photos", "Dice", "worst Dice", *labels], rows)
