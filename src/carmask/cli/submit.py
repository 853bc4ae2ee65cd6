"""`carmask submit`."""

from pathlib import Path

from carmask.cli.console import print_facts, print_line
from carmask.progress import progress_bar

_SHOWN_MASKS = 5


def submit(table: Path, *, check: Path, truth: Path | None = None) -> int:
    """Check a submission to the Carvana challenge before you upload it.

    Every photo needs exactly one row, there must be no other rows, and runs must lie inside the photo. Exit status 1 if
    something is wrong. True masks that cannot be used are listed too, but do not change the exit status.

    Args:
        table: The submission, .csv or .csv.gz, with the header img,rle_mask.
        check: The folder of the photos.
        truth: True masks of some or all photos, a folder or a table of run lengths, to compute the mean Dice.
    """
    # A slow import happens here, so that --help does not wait for it.
    from carmask.pipeline.submission import check_submission

    with progress_bar("checking", unit="rows") as advance:
        report = check_submission(table, check, truth=truth, progress=advance)
    for line in report.first_problems:
        print_line(line, "red")
    count = report.problems.total()
    if count > len(report.first_problems):
        print_line(f"... and {count - len(report.first_problems)} more", "red")
    for line in report.unusable_masks[:_SHOWN_MASKS]:
        print_line(line, "yellow")
    facts = [
        ("photos", f"{report.photos} in {check}"),
        ("rows", f"{report.rows}" + (f", {report.empty} of them without a vehicle" if report.empty else "")),
    ]
    if report.mean_dice is not None and report.worst is not None:
        dice, photo = report.worst
        facts.append(("mean Dice", f"{report.mean_dice:.6f} over {len(report.dice)} photos; worst {dice:.4f}, {photo}"))
    if report.unusable_masks:
        facts.append(("true masks", f"{len(report.unusable_masks)} left out"))
    kinds = "; ".join(f"{kind}: {number}" for kind, number in report.problems.most_common())
    facts.append(("problems", kinds or "none"))
    print_facts(facts)
    return 1 if count else 0
