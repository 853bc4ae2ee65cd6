"""`carmask predict`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from carmask.pipeline.predict import Kind, find_jobs, write_failures
from carmask.pipeline.predict import predict as predict_photos
from carmask.progress import progress_bar
from carmask.segmenter import Segmenter

SHOWN_FAILURES = 10


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

    Exit status 0 when every photo was cut out, 2 when some could not be read (they are named in failures.csv).

    Args:
        source: A photo, or a folder whose photos are taken with all sub-folders.
        destination: A folder for the results, in which the source's tree is mirrored; for one photo also a .png file.
        model: The folder of a run (its best weights are taken) or of weights.
        kind: mask: 1-bit PNG. soft: probability as 8-bit PNG. cutout: the vehicle on a transparent ground.
            overlay: the mask laid over the photo. compare: the photo with its mask below.
        batch_size: Photos that pass through the network together.
        device: auto, cpu, cuda or cuda:1.

    """
    console = Console()
    jobs = find_jobs(source, destination)
    segmenter = Segmenter.load(model, device=device)
    engine = segmenter.engine
    console.print(f"{segmenter.name}: {engine.name} on {engine.device} in {engine.precision}", highlight=False)
    with progress_bar(console, "cutting out") as advance:
        outcome = predict_photos(jobs, segmenter, kind, batch_size=batch_size, progress=advance)
    # Beside the results, also where the result is one file of the caller's naming.
    failures_csv = (destination if jobs[0].result != destination else destination.parent) / "failures.csv"
    write_failures(failures_csv, outcome.failures)
    for photo in outcome.empty[:SHOWN_FAILURES]:
        console.print(f"no vehicle found: {photo}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    for failure in outcome.failures[:SHOWN_FAILURES]:
        console.print(failure.cause, style="red", highlight=False, markup=False, soft_wrap=True)
    if outcome.failures:
        failed = len(outcome.failures)
        console.print(
            f"{failed} of {len(jobs)} photos failed; all are in {failures_csv}", highlight=False, soft_wrap=True
        )
    console.print(f"{outcome.done} photos written to {destination}", highlight=False, soft_wrap=True)
    return 2 if outcome.failures else 0
