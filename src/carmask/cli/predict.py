"""`carmask predict`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from carmask.cli.console import print_line, progress_bar
from carmask.errors import CarmaskError
from carmask.pipeline.jobs import find_jobs, write_failures
from carmask.pipeline.predict import Kind
from carmask.pipeline.predict import predict as predict_photos
from carmask.segmenter import Segmenter

_SHOWN = 10


def predict(
    source: Path,
    destination: Path,
    *,
    model: Annotated[Path, Parameter(alias="-m")],
    kind: Annotated[Kind, Parameter(alias="-k")] = "mask",
    batch_size: int = 4,
    device: str = "auto",
) -> int:
    """Cut vehicles out of photos, at each photo's own size and orientation.

    Exit status 0 when every photo was cut out, 2 when some could not be read or written. Those of a folder are listed
    in failures.csv beside the results.

    Args:
        source: A photo, or a folder whose photos are taken with all sub-folders.
        destination: A folder for the results, in which the source's tree is mirrored; for one photo also a .png file.
            Where it lies inside the source, pictures in it are taken for results of before.
        model: The folder of a run (its best weights are taken) or of weights.
        kind: mask: 1-bit PNG. soft: probability as 8-bit PNG. cutout: the vehicle on a transparent ground.
            overlay: the mask laid over the photo. compare: the photo with its mask below.
        batch_size: Photos that pass through the network together.
        device: auto, cpu, cuda or cuda:1.

    """
    if batch_size < 1:
        raise CarmaskError(f"--batch-size {batch_size}: give 1 or more")
    jobs, unlisted = find_jobs(source, destination)
    segmenter = Segmenter.load(model, device=device)
    engine = segmenter.engine
    print_line(f"{segmenter.name}: {engine.name} on {engine.device} in {engine.precision}")
    with progress_bar("cutting out") as advance:
        outcome = predict_photos(jobs, segmenter, kind, batch_size=batch_size, progress=advance)
    failures = (*unlisted, *outcome.failures)
    _print_some([f"no vehicle found: {photo}" for photo in outcome.empty], "yellow")
    _print_some([failure.cause for failure in failures], "red")
    print_line(f"{outcome.done} of {len(jobs)} photo{'s' * (len(jobs) > 1)} written to {destination}")
    if source.is_dir():
        listed = destination / "failures.csv"
        write_failures(listed, failures)
        if failures:
            print_line(f"{len(failures)} failure{'s' * (len(failures) > 1)}, listed in {listed}")
    return 2 if failures else 0


def _print_some(lines: Sequence[str], style: str) -> None:
    for line in lines[:_SHOWN]:
        print_line(line, style)
    if len(lines) > _SHOWN:
        print_line(f"... and {len(lines) - _SHOWN} more", style)
