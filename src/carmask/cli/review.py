"""`carmask review`."""

from pathlib import Path
from typing import Literal

from carmask.cli.console import print_line
from carmask.cli.options import Flag


def review(
    action: Literal["apply"],  # noqa: ARG001 - the only one that there is
    decisions: Path,
    destination: Path | None = None,
    *,
    copy: Flag = False,
) -> None:
    """Turn the decisions of a review page into lists of photos, or into folders, for the next step.

    `carmask predict photos/ masks/ --review 5%` writes masks/review.html. Open it in a browser, decide on each photo,
    and export decisions.csv. Then `carmask review apply decisions.csv sorted/` writes sorted/accepted.txt,
    sorted/rejected.txt and sorted/to_correct.txt. `carmask predict` takes each of them as a list of photos.

    Args:
        action: apply, the only action.
        decisions: The table that the page exported.
        destination: The folder for the lists. Default: the table's name without its ending.
        copy: Also copy the photos and their results, to sorted/accepted/images and sorted/accepted/masks, which
            `carmask train` reads, and the same for the others.
    """
    # A slow import happens here, so that --help does not wait for it.
    from carmask.review.decisions import GROUPS, apply_decisions, read_decisions

    reviewed = read_decisions(decisions)
    destination = destination or decisions.with_suffix("")
    for decision, count in apply_decisions(reviewed, destination, copy=copy).items():
        place = destination / (GROUPS[decision] if copy else f"{GROUPS[decision]}.txt")
        print_line(f"{decision}: {count} photo{'s' * (count != 1)} in {place}")
