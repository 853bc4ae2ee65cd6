"""`carmask predict`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from carmask.cli.console import print_error
from carmask.cli.options import BatchSize, Flag, LookOptions, NetworkOptions, Source
from carmask.cli.results import ResultReporter
from carmask.errors import CarmaskError
from carmask.imaging import Vehicles
from carmask.pipeline.kinds import Kind, OutputStyle, choose_kind, is_picture

if TYPE_CHECKING:
    # It brings OpenCV, which --help does not wait for.
    from carmask.imaging.masks import Regions
    from carmask.pipeline.outputs import Plan
    from carmask.pipeline.summary import RunSummary
    from carmask.segmenter import Segmenter

_NETWORK = NetworkOptions()
_LOOK = LookOptions()


def predict(
    source: Source,
    destination: Source,
    *more: Source,
    kind: Annotated[Kind | None, Parameter(alias="-k")] = None,
    look: LookOptions = _LOOK,
    vehicles: Vehicles = "all",
    min_area: str = "0",
    network: NetworkOptions = _NETWORK,
    batch_size: BatchSize = 4,
    overwrite: Flag = False,
    shard: str = "1/1",
    cluster: str | None = None,
    review: str | None = None,
    review_below: float | None = None,
    json: Flag = False,
) -> int:
    """Cut vehicles out of photos, at each photo's own size and orientation.

    To continue a run that was stopped or killed, run the same command again. It keeps results that were made with the
    same settings from the same photos. A photo without a vehicle has a result too: an empty mask, or a cut-out that
    shows only the background. no_vehicle.txt beside the results lists these photos.

    The exit status is 0 if every photo was done, and 2 if some could not be read or written. failures.csv beside the
    results lists those.

    Args:
        source: A photo; a folder with all its sub-folders; a pattern in quotes ('photos/**/*.jpg'); a list of photos
            (.txt with one path per line, or a .parquet table with a column path); a URL of any of these
            (s3://bucket/photos), which needs fsspec; or - for a photo or a list on standard input.
        destination: A folder for the results, with the same sub-folders as the source; the name of one photo's result,
            or - for standard output; or the name of a table. All but - may be in an object store (s3://bucket/masks).
            Pictures that are already there do not count as photos.
        more: If you give several photos or folders, the destination comes last.
        kind: mask: 1-bit PNG. soft: probability as 8-bit PNG. cutout: the vehicle on another background. overlay: the
            mask drawn over the photo. compare: the photo with its mask below. polygons: outlines as GeoJSON. labelme:
            outlines for LabelMe. yolo: labels/ and data.yaml for YOLO. carvana-csv: one table of run lengths (.csv or
            .csv.gz). coco: one file of COCO annotations (.json). cvat: one file for CVAT (.xml). label-studio: one file
            of predictions for Label Studio (.json). parquet: one table of run lengths, boxes, coverage, seconds and
            errors (.parquet), which needs pyarrow. Default: a table if the destination is a .csv, .json.gz, .xml or
            .parquet, otherwise mask.
        look: How cut-outs look.
        vehicles: Keep all regions of a mask, or only one: the largest, or the one in the center, which has the pixel
            nearest to the middle of the photo. For center, regions with less than 5% of the largest one's area do not
            count.
        min_area: Remove regions of a mask smaller than this: pixels (400), or a share of the photo (0.5%).
        network: Which network, and how it runs.
        batch_size: Number of photos in a batch.
        overwrite: Make all results again, and replace other files with the same names.
        shard: Do only one part of the photos: 2/4 is the second of four. For several machines with the same photos and
            the same destination. Names of tables and lists contain the part.
        cluster: Run on a Ray cluster: its address (host:port), or auto for the cluster of this machine, or for this
            machine alone if it has none. Needs carmask[cluster]. All machines need access to the photos, and to the
            destination if results are files.
        review: Also write review.html, a page with the most doubtful photos: a share (5%) or a number (100) of those
            with the lowest expected Dice, including those that an earlier run has done. On the page you accept or
            reject masks, and export the decisions for `carmask review apply`.
        review_below: Also write review.html, with all photos whose expected Dice is below this (0.97).
        json: Print a line of JSON for each photo, and a summary at the end.
    """
    # Slow imports happen here, so that --help does not wait for them.
    from carmask.imaging.masks import Area, Regions
    from carmask.pipeline.jobs import Shard
    from carmask.pipeline.outputs import plan_outputs
    from carmask.pipeline.predict import predict_photos
    from carmask.pipeline.sources import find_photos_of_all
    from carmask.review.choice import ReviewChoice

    regions = Regions(vehicles, Area.parse(min_area))
    choice = ReviewChoice.parse(review, review_below)
    sources, results = (source, destination, *more)[:-1], (source, destination, *more)[-1]
    part = Shard.parse(shard)
    chosen = look.read()
    kind = choose_kind(kind or ("cutout" if look.look is not None else None), results)
    photos = find_photos_of_all(
        sources,
        results=results if is_picture(kind) else None,
        # There is none where it was closed.
        read_stdin=sys.stdin.buffer.read if sys.stdin else None,
    )
    plan = plan_outputs(photos, results, kind, look=chosen, shard=part)
    reporter = ResultReporter(plan, json)
    if choice is not None:
        _check_review(plan)
    # Of photos that a cluster predicts, this machine draws the review.
    segmenter = network.load() if cluster is None or choice is not None else None
    if cluster is not None:
        summary = _predict_on_cluster(cluster, reporter, network, segmenter, regions, batch_size, overwrite=overwrite)
    else:
        assert segmenter is not None
        reporter.say(f"{segmenter.name}: {segmenter.describe_engine()}")
        reporter.say_skipped()
        with reporter.running("cutting out"):
            summary = predict_photos(
                plan, segmenter, regions=regions, batch_size=batch_size, overwrite=overwrite, follow=reporter.follow
            )
    status = reporter.finish(summary)
    if choice is not None and segmenter is not None:
        from carmask.review.review import write_review

        with reporter.running("drawing the review") as progress:
            written = write_review(
                plan, segmenter, choice, summary.scores, regions=regions, batch_size=batch_size, progress=progress
            )
        reporter.say_review(written)
    return status


def _check_review(plan: "Plan") -> None:
    from carmask.review.page import refuse_foreign_page

    path = plan.list_file("review")
    if path is None:
        raise CarmaskError("--review: needs several photos; leave it out for one photo")
    if not isinstance(path, Path):
        raise CarmaskError(
            "--review: needs results on this machine; copy them to a folder, and run again with that folder"
        )
    refuse_foreign_page(path)


def _predict_on_cluster(
    address: str,
    reporter: ResultReporter,
    network: NetworkOptions,
    reviewer: "Segmenter | None",
    regions: "Regions",
    batch_size: int,
    *,
    overwrite: bool,
) -> "RunSummary":
    """Carry out the same plan on a Ray cluster; the reviewer of this machine must find the same masks."""
    from carmask.pipeline.cluster.connection import connect
    from carmask.pipeline.cluster.job import ClusterError, ClusterJob, report_of
    from carmask.pipeline.summary import collect_outcomes

    plan = reporter.plan
    if isinstance(plan.output, OutputStyle) and plan.output.look.scale == "same-car":
        raise ClusterError(
            "--scale same-car: needs one machine; make masks with --cluster, and compose them with `carmask convert`"
        )
    if plan.of_one:
        raise ClusterError("--cluster: needs several photos; leave it out for one photo")
    keywords = {"tta": network.tta, "tile": network.tile, "threshold": network.threshold}
    root = plan.jobs.photos.root
    job = ClusterJob.plan(network.model, root, options=network.run, regions=regions, **keywords)
    with connect(address, _end_at_once) as ray:
        # Imports pyarrow, which comes with Ray.
        from carmask.pipeline.cluster.workers import RayWorkers

        workers = RayWorkers(ray, job)
        if reviewer is not None:
            report_of(reviewer, regions).require(workers.provenance)
        reporter.say(workers.describe())
        reporter.say_skipped()
        with reporter.running("cutting out"), plan.open_sink(workers.provenance, overwrite=overwrite) as sink:
            return collect_outcomes(workers.predict(sink, batch_size=batch_size), plan, sink, reporter.follow)


def _end_at_once(message: str) -> None:
    """End the process as if it was killed: calls of Ray would wait forever. What is done is recorded."""
    console = Console(stderr=True)
    if console.show_cursor():
        console.line()  # below the progress bar
    status = print_error(message)
    sys.stdout.flush()
    os._exit(status)
