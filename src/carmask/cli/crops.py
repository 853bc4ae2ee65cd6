"""`carmask crops`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from carmask.cli.console import print_line, print_problems
from carmask.cli.options import Count
from carmask.progress import counted, progress_bar


def crops(
    data: Path,
    out: Path,
    *,
    model: str | None = None,
    per_photo: Annotated[int, Parameter(validator=Number(gte=1))] = 24,
    split: Path | None = None,
    seed: Count = 0,
    foreground: int | None = None,
    ignore: int | None = None,
) -> int:
    """Write a data set for networks like `sharp`: crops along the outlines that another network finds.

    Each crop is an RGBA picture of 64 x 64 px, with the probability of the other network as its alpha. Train on them
    with `carmask train OUT --preset sharp --dataset.group-pattern '(.*)-'`.

    Args:
        data: Photos with masks.
        out: Folder for images/ and masks/, which must not be there yet, or be empty.
        model: The network that finds the outlines. Default: general.
        per_photo: The largest number of crops of a photo.
        split: Take only the training photos of this split.
        seed: The same photos, network and seed give the same crops.
        foreground: Stored mask value that means foreground, if masks have values other than 0 and one more.
        ignore: Stored mask value that means unknown; crops with such pixels are left out.
    """
    from carmask.data.pairs import find_pairs
    from carmask.data.split import Split
    from carmask.segmenter import Segmenter
    from carmask.training.crops import write_crops

    dataset = find_pairs(data, foreground=foreground, ignore=ignore)
    print_problems(dataset.problems)
    pairs = Split.load(split).select(dataset.pairs)[0] if split else dataset.pairs
    with progress_bar("cutting crops") as progress:
        written = write_crops(pairs, Segmenter.load(model), out, per_photo=per_photo, seed=seed)
        count = sum(counted(written, progress, len(pairs)))
    print_line(f"written: {count} crops of {len(pairs)} photos in {out}")
    return 0
