"""`carmask check`."""

from pathlib import Path
from statistics import fmean
from typing import Any

from carmask.cli.console import print_facts, print_problems
from carmask.cli.options import Count, DataOptions
from carmask.data.check import CheckReport, check_dataset
from carmask.data.contact_sheet import contact_sheet
from carmask.data.layout import DatasetError
from carmask.data.pairs import describe_rules
from carmask.errors import CarmaskError
from carmask.files import write_bytes_atomically
from carmask.imaging.encode import encode_png
from carmask.imaging.formats import describe_left_out
from carmask.imaging.geometry import size_text
from carmask.models.config import PresetName
from carmask.progress import progress_bar

_OPTIONS = DataOptions()
_SHOWN_SIZES = 5
_SHOWN_UNKNOWN = 5


def check(
    data: Path,
    *,
    split: Path | None = None,
    options: DataOptions = _OPTIONS,
    sheet: Path | None = None,
    photos: Count = 24,
    augmented: Path | None = None,
    preset: PresetName | None = None,
    config: Path | None = None,
) -> int:
    """Look for every problem in a folder of photos and masks.

    The exit status is 1 if there is any problem.

    Args:
        data: Folder in Carvana's layout, or with images/, masks/ and perhaps no_vehicle/. Or a folder with label files
            of COCO, LabelMe, CVAT, Label Studio, YOLO, Pascal VOC or Supervisely, or one such file.
        split: A split.json. The check also looks for pictures and groups that are on both of its sides. Default: the
            data's own folders or lists train and val, if there are any.
        options: How photos and masks are found and read.
        sheet: Where to save the contact sheet of photos and masks. Default: check/NAME.png, by the folder's name.
        photos: Number of photos on the contact sheet, those with problems first; 0 for no sheet.
        augmented: Where to save a sheet of augmented photos and masks, as training sees them. Needs PyTorch.
        preset: The preset whose augmentation the sheet of --augmented shows. Default: that of the config, or else
            `fast`.
        config: A YAML file of training settings, whose augmentation the sheet of --augmented shows.
    """
    for option, path in (("--sheet", sheet), ("--augmented", augmented)):
        if path and path.suffix.lower() != ".png":
            raise CarmaskError(f"{option} {path}: the sheet is a PNG; give a name that ends in .png")
    try:
        dataset = options.find(data)
    except DatasetError as error:
        print_problems(error.problems)
        raise
    with progress_bar("checking") as advance:
        report = check_dataset(dataset, split=split, progress=advance)
    written: Path | None = None
    if photos:
        written = sheet or Path("check") / f"{dataset.root.resolve().name}.png"
        image_HWC = contact_sheet(dataset, photos, doubtful=report.doubtful)
        write_bytes_atomically(written, encode_png(image_HWC))
    print_problems(report.problems)
    _print_summary(report, written)
    if augmented:
        _save_augmented(augmented, report, preset, config, options)
    return 1 if report.problems else 0


def _save_augmented(
    path: Path, report: CheckReport, preset: PresetName | None, config: Path | None, options: DataOptions
) -> None:
    pairs = [pair for pair in report.dataset.pairs if pair.id not in report.doubtful]
    if not pairs:
        raise CarmaskError(f"--augmented {path}: every pair has a problem; solve the problems first")
    # Torch takes a second to import, and the rest of the command does not need it.
    from carmask.training.config import TrainSettings
    from carmask.training.preview import augmented_sheet

    values = {name: value for name in ("foreground", "ignore") if (value := getattr(options, name)) is not None}
    given: dict[str, Any] = {"data": report.dataset.root}
    if config:
        given["config"] = config
    if preset or not config:
        given["preset"] = preset or "fast"
    settings = TrainSettings.model_validate(given)
    # Set only now: a run on several data sets, as the config may describe, takes no such values for all of them.
    settings = settings.model_copy(update={"dataset": settings.dataset.model_copy(update=values)})
    write_bytes_atomically(path, encode_png(augmented_sheet(pairs, settings)))


def _print_summary(report: CheckReport, sheet: Path | None) -> None:
    dataset = report.dataset
    groups = len({pair.group for pair in dataset.pairs})
    frequent = list(report.sizes.items())[:_SHOWN_SIZES]
    facts = [
        ("data", str(dataset.root)),
        ("layout", dataset.layout),
        ("pairs", f"{len(dataset.pairs)} in {groups} groups"),
        *(("photo size", f"{size_text(size_HW)}: {count}") for size_HW, count in frequent),
        *(("mask rule", rule) for rule in describe_rules(report.rules)),
    ]
    if len(report.sizes) > _SHOWN_SIZES:
        facts.insert(3, ("photo sizes", f"{len(report.sizes)} different ones, the most frequent:"))
    if without := {pair.id for pair in dataset.pairs if pair.mask is None}:
        facts.append(("photos without a vehicle", str(len(without))))
    if report.unknown_of:
        facts.append(("unknown pixels", _describe_unknown(report.unknown_of)))
    if areas := [area for id_, area in report.area_of.items() if id_ not in without]:
        mean, least, most = fmean(areas), min(areas), max(areas)
        facts.append(("mask area", f"mean {mean:.1%} of the picture, from {least:.1%} to {most:.1%}"))
    if any(report.side_sizes):
        facts.append(("split", f"{report.side_sizes[0]} to train on, {report.side_sizes[1]} held out"))
    if report.outside_split:
        facts.append(("note", f"the split leaves out {report.outside_split} pairs"))
    if dataset.left_out:
        facts.append(("left out", describe_left_out(dataset.left_out)))
    facts.append(("time", f"{report.seconds:.1f} s"))
    if sheet:
        facts.append(("contact sheet", str(sheet)))
    facts.append(("problems", str(len(report.problems)) if report.problems else "none"))
    print_facts(facts)


def _describe_unknown(unknown_of: dict[str, float]) -> str:
    most = sorted(unknown_of, key=lambda id_: -unknown_of[id_])[:_SHOWN_UNKNOWN]
    named = ", ".join(f"{id_} {unknown_of[id_]:.1%}" for id_ in most)
    mean = f"mean {fmean(unknown_of.values()):.1%} of the picture"
    return f"in {len(unknown_of)} masks, {mean}; most in {named}"
