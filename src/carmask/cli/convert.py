"""`carmask convert`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from carmask.cli.options import Flag
from carmask.cli.results import Place, Reporter
from carmask.errors import CarmaskError
from carmask.imaging import PictureFormat
from carmask.pipeline.kinds import OF_PHOTO, Kind


def convert(
    source: Path,
    destination: Place,
    *,
    kind: Annotated[Kind | None, Parameter(alias="-k")] = None,
    photos: Path | None = None,
    foreground: int | None = None,
    format: Annotated[PictureFormat | None, Parameter(alias="-f")] = None,  # noqa: A002 - the option's name
    background: str = "transparent",
    crop: Flag = False,
    overwrite: Flag = False,
    json: Flag = False,
) -> int:
    """Write masks that are there already as another kind: what `predict` writes, without a network.

    A killed run goes on where it stopped. Exit status 2 when some masks could not be read or written; those are listed
    in failures.csv beside the results.

    Args:
        source: Masks: a folder, a file, a pattern in quotes or a list (.txt). car_mask.gif and car.png are masks of the
            photo car. Or a table of run lengths (.csv, .csv.gz).
        destination: A folder, the name of one result, - for standard output, or the name of a table.
        kind: As of `carmask predict`; a table where the destination is a .csv, .json.gz or .parquet, otherwise mask.
        photos: The folder of the photos. Needed for tables of run lengths, which do not say how large the masks are,
            and for kinds that show the photo. Without it a mask is taken for that of a .jpg.
        foreground: Stored mask value that means foreground, where 0 and one other value is not the rule.
        format: Of cut-outs, overlays and comparisons: png or webp.
        background: Of cut-outs: transparent, a color (white, #00ff00), blur, or the path of a picture.
        crop: Cut-outs show no more than the box around the mask.
        overwrite: Make all results anew, and replace other files of the same names.
        json: Print a line of JSON for each mask, and one for all of them at the end.

    """
    # All that takes time to import is imported here, so that --help does not wait for it.
    from carmask.pipeline.kinds import choose_kind, is_picture
    from carmask.pipeline.masks import find_masks
    from carmask.pipeline.outputs import Wanted, plan_for
    from carmask.pipeline.predict import convert as convert_masks

    kind = choose_kind(kind, destination)
    if photos is None and (kind in OF_PHOTO or kind == "labelme"):
        raise CarmaskError(f"--kind {kind}: needs the photos; name their folder with --photos")
    masks = find_masks(source, photos=photos, foreground=foreground, results=destination if is_picture(kind) else None)
    plan = plan_for(masks.photos, destination, kind, Wanted(kind, format, background, crop))
    reporter = Reporter(plan, json, "mask")
    with plan.open_sink(masks.describe(), overwrite=overwrite) as store:
        return reporter.follow(convert_masks(masks.readers(store.jobs), store.put), store, "converting")
