"""One scale for all photos of a car: a first pass over the photos measures the boxes around their vehicles.

The boxes are noted in a journal, so that a killed run does not measure again, and only boxes are in memory.
"""

import re
from array import array
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path, PurePosixPath

from carmask.imaging.masks import Box
from carmask.pipeline.jobs import Job, PhotoOutcome
from carmask.pipeline.journal import Journal, read_entries, read_provenance
from carmask.pipeline.kinds import OutputStyle
from carmask.pipeline.origins import is_unchanged
from carmask.pipeline.outputs import Plan
from carmask.pipeline.provenance import Provenance
from carmask.pipeline.sinks import undone_in_folder
from carmask.result import Result

# Finds the vehicles of photos; the rows of its outcomes are what `measure_box` puts.
Measure = Callable[[Iterable[Job]], Generator[PhotoOutcome, None, None]]

_JOURNAL = ".carmask-boxes.jsonl"
# Names of the Carvana challenge's form: the car, and which of 16 views.
_VIEW = re.compile(r"(?P<car>.+)_(?:0[1-9]|1[0-6])")


def group_of(name: str) -> str:
    """Return what the photos of a car have in common: the name without the view (_01 to _16), or else the folder."""
    path = PurePosixPath(name)
    view = _VIEW.fullmatch(path.stem)
    return str(path.parent / view["car"]) if view else f"{path.parent}/"


def measure_box(_: Job, found: Result) -> Box | None:
    """Return the box around a vehicle that is placed on a canvas; None if there is none."""
    # Its tables take a while to build, and masks do not need them.
    from carmask.imaging.cutout import without_specks

    return without_specks(found.probability, found.threshold, found.box_px).box_px


def with_one_scale(plan: Plan, provenance: Provenance, measure: Measure, *, overwrite: bool) -> Plan:
    """Return the plan with the extent of each photo's group; the same plan if each vehicle has its own scale.

    Raises:
        CarmaskError: the destination holds other results or files, which stay without `overwrite`; the journal of the
            boxes cannot be written; or the networks cannot run.
    """
    output = plan.output
    if plan.of_one or not isinstance(output, OutputStyle) or output.kind != "cutout":
        return plan
    if output.look.canvas is None or output.look.scale != "same-car":
        return plan
    assert isinstance(plan.destination, Path), "the plan refuses stores"
    if not overwrite:
        # Measuring takes as long as the network: what would be refused afterwards is refused now.
        undone_in_folder(plan.destination, plan.jobs, plan.whole_provenance(provenance), overwrite=False)
    path = plan.destination / _JOURNAL
    known = {}
    since_ns = path.stat().st_mtime_ns if path.exists() else 0
    if read_provenance(path) == provenance:
        known = {entry["photo"]: entry for _, entry in read_entries(path)}
    extents: dict[str, tuple[int, int]] = {}

    def add(name: str, box_px: Iterable[int] | None) -> None:
        if box_px is not None:
            top, left, bottom, right = box_px
            tall, wide = extents.get(group_of(name), (0, 0))
            extents[group_of(name)] = max(tall, bottom - top), max(wide, right - left)

    todo = array("q")
    for job in plan.jobs:
        entry = known.get(job.name)
        if entry is not None and is_unchanged(job, entry["made_from"], since_ns):
            add(job.name, entry["box_px"])
        else:
            todo.append(job.position)
    with Journal(path, provenance) as journal, closing(measure(plan.jobs.only(todo))) as outcomes:
        for outcome in outcomes:
            # A photo that failed has no result either, and is tried and listed then.
            if outcome.cause is None:
                made_from = outcome.job.made_from
                journal.add({"photo": outcome.job.name, "made_from": made_from, "box_px": outcome.row})
                add(outcome.job.name, outcome.row)
    extent_of = {name: extents[group] for name in plan.jobs.photos.names if (group := group_of(name)) in extents}
    return replace(plan, jobs=replace(plan.jobs, extent_of=extent_of))
