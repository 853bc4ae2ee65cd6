"""`carmask convert`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from carmask.cli.options import Flag, LookOptions, Source
from carmask.cli.results import ResultReporter
from carmask.errors import CarmaskError
from carmask.pipeline.kinds import OF_PHOTO, Kind, choose_kind, is_picture

_LOOK = LookOptions()


def convert(
    source: Path,
    destination: Source,
    *,
    kind: Annotated[Kind | None, Parameter(alias="-k")] = None,
    photos: Path | None = None,
    foreground: int | None = None,
    labels: str = "",
    ignore_labels: str = "",
    look: LookOptions = _LOOK,
    overwrite: Flag = False,
    json: Flag = False,
) -> int:
    """Write existing masks as another kind: the same files that `predict` writes, without a network.

    To continue a run that was stopped or killed, run the same command again. The exit status is 2 if some masks could
    not be read or written; failures.csv beside the results lists those.

    Args:
        source: Masks: a folder, a file, a pattern in quotes or a list (.txt). car_mask.gif and car.png are masks of the
            photo car. Or a table of run lengths (.csv, .csv.gz). Or labels of COCO, LabelMe, CVAT, Label Studio, YOLO,
            Pascal VOC or Supervisely: a file, or a folder, which may also contain the photos.
        destination: A folder, the name of one result, - for standard output, or the name of a table.
        kind: As in `carmask predict`. Default: a table if the destination is a .csv, .json.gz, .xml or .parquet,
            otherwise mask.
        photos: The folder of the photos. Tables of run lengths need it, because they do not contain the size of the
            masks. Kinds that show the photo need it too. Without it, the photo of a mask is assumed to be a .jpg.
        foreground: Stored mask value that means foreground, if masks have values other than 0 and one more.
        labels: Classes of label files that are vehicles: car,truck. Default: the classes that COCO's names call
            vehicles, or else the only class.
        ignore_labels: Classes of label files that mean unknown, which are background here.
        look: How cut-outs look.
        overwrite: Make all results again, and replace other files with the same names.
        json: Print a line of JSON for each mask, and a summary at the end.
    """
    # Slow imports happen here, so that --help does not wait for them.
    from carmask.pipeline.convert import convert_masks
    from carmask.pipeline.masks import find_masks
    from carmask.pipeline.outputs import plan_outputs

    chosen = look.read()
    kind = choose_kind(kind or ("cutout" if look.look is not None else None), destination)
    if photos is None and (kind in OF_PHOTO or kind == "labelme"):
        raise CarmaskError(f"--kind {kind}: needs the photos; give their folder with --photos")
    results = destination if is_picture(kind) and isinstance(destination, Path) else None
    masks = find_masks(
        source, photos=photos, foreground=foreground, results=results, labels=labels, ignore_labels=ignore_labels
    )
    plan = plan_outputs(masks.photos, destination, kind, look=chosen)
    reporter = ResultReporter(plan, json, "mask")
    with reporter.running("converting"):
        summary = convert_masks(masks, plan, overwrite=overwrite, follow=reporter.follow)
    return reporter.finish(summary)
