"""`carmask predict`."""

import sys
from typing import Annotated

from cyclopts import Parameter

from carmask.cli.network import NetworkOptions
from carmask.cli.options import BatchSize, Flag
from carmask.cli.results import Reporter, Source
from carmask.errors import CarmaskError
from carmask.imaging import PictureFormat
from carmask.pipeline.kinds import Kind
from carmask.pipeline.urls import URL

_NETWORK = NetworkOptions()


def predict(
    source: Source,
    destination: Source,
    *more: Source,
    kind: Annotated[Kind | None, Parameter(alias="-k")] = None,
    format: Annotated[PictureFormat | None, Parameter(alias="-f")] = None,  # noqa: A002 - the option's name
    background: str = "transparent",
    crop: Flag = False,
    keep_largest: Flag = False,
    min_area: str = "0",
    network: NetworkOptions = _NETWORK,
    batch_size: BatchSize = 4,
    overwrite: Flag = False,
    shard: str = "1/1",
    cluster: str | None = None,
    json: Flag = False,
) -> int:
    """Cut vehicles out of photos, at each photo's own size and orientation.

    A killed run goes on where it stopped when the same command is given again: results that were made in the same way
    from the same photos are kept. A photo in which no vehicle is found has a result too: an empty mask, a cut-out that
    shows only the background; such photos are listed in no_vehicle.txt beside the results.

    Exit status 0 when every photo was cut out, 2 when some could not be read or written. Those are listed in
    failures.csv beside the results.

    Args:
        source: A photo; a folder, whose photos are taken with all sub-folders; a pattern in quotes ('photos/**/*.jpg');
            a list of photos (.txt, one path a line, or a .parquet table with a column path); an address of any of
            these (s3://bucket/photos), which needs fsspec; or - for a photo or a list on standard input.
        destination: A folder for the results, in which the source's tree is mirrored; the name of one photo's result,
            or - for standard output; the name of a table. Pictures in it are not taken for photos.
        more: With several photos or folders the destination comes last.
        kind: mask: 1-bit PNG. soft: probability as 8-bit PNG. cutout: the vehicle on another ground. overlay: the mask
            laid over the photo. compare: the photo with its mask below. polygons: outlines as GeoJSON. labelme:
            outlines for LabelMe. carvana-csv: one table of run lengths (.csv or .csv.gz). coco: one file of COCO
            annotations (.json). parquet: one table of run lengths, boxes, coverage, seconds and errors (.parquet),
            which needs pyarrow. If not given, a table where the destination is a .csv, .json.gz or .parquet, otherwise
            mask.
        format: Of cut-outs, overlays and comparisons: png, or webp, which is smaller and slower. As the destination's
            name says, otherwise png.
        background: Of cut-outs: transparent, a color (white, #00ff00), blur, or the path of a picture.
        crop: Cut-outs show no more than the box around the vehicle.
        keep_largest: Of a mask in several parts only the largest is kept.
        min_area: Smaller parts of a mask are dropped: pixels (400), or a share of the photo (0.5%).
        network: Which network, and how it runs.
        batch_size: Photos that pass through the network together.
        overwrite: Make all results anew, and replace other files of the same names.
        shard: Do one of several equal parts, 2/4 being the second of four: for several machines with the same photos
            and the same destination. Tables and lists have the part in their names.
        cluster: Let a Ray cluster do it: its address (host:port), or auto for the one that this machine belongs to; a
            machine that belongs to none is taken for one. Needs carmask[cluster]. Photos lie where all machines see
            them, and so do results that are files.
        json: Print a line of JSON for each photo, and one for all of them at the end.

    """
    # All that takes time to import is imported here, so that --help does not wait for it.
    from carmask.imaging.masks import Area, Regions
    from carmask.pipeline.jobs import Shard
    from carmask.pipeline.outputs import Wanted, make_plan
    from carmask.pipeline.predict import predict as predict_photos
    from carmask.pipeline.provenance import provenance_of

    regions = Regions(keep_largest, Area.parse(min_area))
    wanted = Wanted(kind, format, background, crop, Shard.parse(shard))
    sources, results = (source, destination, *more)[:-1], (source, destination, *more)[-1]
    if isinstance(results, URL):
        raise CarmaskError(f"{results}: results go to files, not to addresses; name a folder or a table")
    plan = make_plan(sources, results, wanted, read_stdin=sys.stdin.buffer.read)
    reporter = Reporter(plan, json)
    if cluster is not None:
        from carmask.cli.predict_cluster import predict_on_cluster

        return predict_on_cluster(cluster, reporter, network, regions, batch_size, overwrite=overwrite)
    segmenter = network.load()
    reporter.say(f"{segmenter.name}: {segmenter.describe_engine()}")
    reporter.say_left_out()
    with plan.open_sink(provenance_of(segmenter, regions), overwrite=overwrite) as store:
        outcomes = predict_photos(
            store.jobs, segmenter, store.put, regions=regions, batch_size=1 if plan.of_one else batch_size
        )
        return reporter.follow(outcomes, store, "cutting out")
