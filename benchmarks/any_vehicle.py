"""What a network makes of photos from the studio, the street and the world, none of which it may have learned from.

    python benchmarks/any_vehicle.py SHARED MODEL NAME [--studio TWIN] [--studio-every 4] [--note] [--sheet OUT.png]

SHARED is the folder that holds carvana, street-cars and wild; docs/results/split-*.json say what is held out. MODEL is
what `carmask evaluate --model` takes. In the studio TWIN is measured instead, for a network that learned from all cars.
Measures as `carmask evaluate` does and writes docs/results/any_vehicle-NAME.json. With --note the figures of packaged
weights are also written into their own file, for their card (`carmask model MODEL --card`). OUT.png shows 48 held-out
photos with what was found; it is not to be committed.
"""

import argparse
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from math import isnan
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from carmask.data.pairs import Pair, find_pairs
from carmask.data.split import Split
from carmask.evaluation.evaluate import evaluate_selection
from carmask.evaluation.results import Evaluation
from carmask.evaluation.selection import Selection, find_training_split, select_pairs
from carmask.exporting.graph import note_held_out
from carmask.files import write_bytes_atomically
from carmask.imaging.decode import decode_photo
from carmask.imaging.draw import draw_overlay, sheet
from carmask.imaging.encode import encode_png
from carmask.models.card import HeldOut
from carmask.runtime.locate import locate
from carmask.segmenter import Segmenter
from carstudio import render_dataset
from record import RESULTS, record
from wild_composites import COUNT, Composite, figures_of_composites, make_composites
from wild_photos import VEHICLES_UNLABELED

STUDIO = "carvana"
STREET = "street-cars"
# The folders below SHARED that are measured, and how often each comes on the sheet.
PARTS = {
    STUDIO: 3,
    STREET: 5,
    "wild/street-small": 4,
    "wild/car-parts": 8,
    "wild/fire-trucks": 5,
    "wild/scenes": 10,
    "wild/no-vehicle": 8,
}
# Folders that only composites are made of.
MATERIAL = ("wild/backgrounds", "wild/cutouts")
COMPOSITES_ON_SHEET = 5
# Composites of rendered cars.
RENDERED = 48
# Mask values that mean unknown.
IGNORE = {"car-parts": 128}


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("model")
    parser.add_argument("name")
    parser.add_argument("--studio", help="network to measure in the studio")
    parser.add_argument("--studio-every", type=int, default=1, help="measure every n-th photo of the studio")
    parser.add_argument("--note", action="store_true", help="write the figures into the packaged network's file")
    parser.add_argument("--sheet", type=Path, help="picture to draw")
    given = parser.parse_args()
    segmenter = Segmenter.load(given.model)
    pairs = {Path(folder).name: held_out(given.shared / folder) for folder in (*PARTS, *MATERIAL)}
    in_studio = Segmenter.load(given.studio) if given.studio else segmenter
    parts = {STUDIO: figures_of_part(in_studio, STUDIO, pairs[STUDIO][:: given.studio_every])}
    for name in [Path(folder).name for folder in PARTS if folder != STUDIO]:
        parts[name] = figures_of_part(segmenter, name, pairs[name])
    if given.note:
        note_held_out(locate(given.model), [noted(name, part, segmenter) for name, part in parts.items()])
    parts["composites"] = figures_of_composites(segmenter, composites_of(pairs))
    parts["rendered"] = figures_of_composites(segmenter, rendered_composites(pairs))
    record(
        f"any_vehicle-{given.name}",
        {"model": Path(given.model).name, "engine": segmenter.describe_engine(), "twin": bool(given.studio), **parts},
    )
    if given.sheet:
        draw_sheet(segmenter, pairs, given.sheet)


def held_out(root: Path) -> list[Pair]:
    """The photos of a folder that its committed split holds out."""
    return parts_of(root)[1]


def parts_of(root: Path) -> tuple[list[Pair], list[Pair]]:
    """The photos of a folder that networks learn from, and those that its committed split holds out."""
    split = "carvana-fold0of5" if root.name == STUDIO else root.name
    pairs = find_pairs(root, ignore=IGNORE.get(root.name), empty=root.name in ("no-vehicle", "backgrounds")).pairs
    return Split.load(RESULTS / f"split-{split}.json").select(pairs)


def figures_of_part(segmenter: Segmenter, name: str, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Figures of the held-out photos of one folder."""
    evaluation = evaluate_selection(Selection(tuple(pairs)), segmenter)
    if evaluation.failures:
        raise SystemExit(f"{name}: {evaluation.failures}")
    warnings = leaks(segmenter, name, pairs)
    if evaluation.no_vehicle:
        found = {key: round(value, 6) for key, value in asdict(evaluation.no_vehicle).items()}
        return {**found, "warnings": warnings}
    figures = {**_means(evaluation), "warnings": warnings}
    ids = {row.id for row in evaluation.rows}
    unlabeled = {id_ for of_reason in VEHICLES_UNLABELED.get(name, {}).values() for id_ in of_reason}
    if ids & unlabeled:
        figures["all_labeled"] = _means(evaluation, ids - unlabeled)
    if name == "scenes":
        # Of photos whose names begin with coco_, cars and motorcycles alone are labeled.
        coco = {id_ for id_ in ids if id_.startswith("coco_")}
        figures["cars_and_motorcycles"] = _means(evaluation, coco)
        figures["all_vehicles"] = _means(evaluation, ids - coco)
    return figures


def noted(name: str, figures: dict[str, Any], segmenter: Segmenter) -> HeldOut:
    """The figures of one folder as the network's card has them."""
    remarks = []
    if "share_empty" in figures:
        remarks = [
            "No photo shows a vehicle. Dice is the share of photos whose mask is empty, under 0.1 % of the picture; on "
            f"average {figures['false_area']:.2%} of the picture is taken for a vehicle."
        ]
    if "found" in figures:
        labeled = figures["all_labeled"]
        remarks = [
            f"Dice over the labeled pixels. Found are {figures['found']:.1%} of the cars; wrongly marked is "
            f"{figures['spilled']:.1%} of their area, in the {labeled['photos']} photos where all vehicles are labeled "
            f"{labeled['spilled']:.1%}."
        ]
    return HeldOut(
        data=name,
        photos=figures["photos"],
        groups=figures.get("groups"),
        dice=figures["share_empty"] if "share_empty" in figures else figures["dice"],
        median_dice=figures.get("median_dice"),
        worst_dice=figures.get("worst_dice"),
        boundary_error_px=figures.get("boundary_error_px"),
        engine=segmenter.describe_engine(),
        remarks=(*remarks, *figures["warnings"]),
    )


def leaks(segmenter: Segmenter, name: str, pairs: Sequence[Pair]) -> list[str]:
    """Warnings where the network learned from these photos, alone or as one data set of several."""
    trained_on = find_training_split([(member.place, member.card) for member in segmenter.networks])
    of_several = [replace(pair, id=f"{name}/{pair.id}", group=f"{name}/{pair.group}") for pair in pairs]
    return [
        warning
        for same in (pairs, of_several)
        for warning in select_pairs(same, part="all", trained_on=trained_on).warnings
    ]


def _means(evaluation: Evaluation, ids: Collection[str] | None = None) -> dict[str, Any]:
    rows = [row.metrics for row in evaluation.vehicle_rows if ids is None or row.id in ids]
    dice = [one.dice for one in rows]
    figures = {"dice": fmean(dice), "median_dice": median(dice), "worst_dice": min(dice)}
    if thin := [one.thin_recall for one in rows if not isnan(one.thin_recall)]:
        figures["thin_recall"] = fmean(thin)
    if evaluation.unknown:
        figures |= {"found": fmean(one.found for one in rows), "spilled": fmean(one.spilled for one in rows)}
    return {"photos": len(rows), **{key: round(value, 5) for key, value in figures.items()}}


def composites_of(pairs: dict[str, list[Pair]], count: int = COUNT) -> Iterator[Composite]:
    """The composites: cut-outs of web sites, and cars of the studio and the street, on grounds of two folders."""
    moto = [pair for pair in pairs["cutouts"] if pair.id.startswith("moto_")]
    studio = {pair.group: pair for pair in pairs[STUDIO]}
    return make_composites(
        grounds_of(pairs),
        {
            "car": [pair for pair in pairs["cutouts"] if pair not in moto],
            "moto": moto,
            "studio": list(studio.values()),
            "street": pairs[STREET],
        },
        count,
    )


def rendered_composites(pairs: dict[str, list[Pair]]) -> Iterator[Composite]:
    """Composites of rendered cars, which no network has learned from."""
    with tempfile.TemporaryDirectory() as folder:
        root = render_dataset(Path(folder) / "rendered", cars=6, views=4, size_HW=(640, 960)).root
        yield from make_composites(grounds_of(pairs), {"rendered": find_pairs(root).pairs}, RENDERED)


def grounds_of(pairs: dict[str, list[Pair]]) -> list[Path]:
    """The photos without a vehicle."""
    return [pair.image for name in ("no-vehicle", "backgrounds") for pair in pairs[name]]


def draw_sheet(segmenter: Segmenter, pairs: dict[str, list[Pair]], path: Path) -> None:
    """Draw what is found in some photos of each part, spread over its ids, and in some composites."""
    tiles = []
    for name, count in ((Path(folder).name, count) for folder, count in PARTS.items()):
        for place in np.linspace(0, len(pairs[name]) - 1, count).round().astype(int):
            pair = pairs[name][place]
            tiles.append((f"{name} {pair.id}", decode_photo(pair.image).image_HWC))
    composites = islice(composites_of(pairs), COMPOSITES_ON_SHEET)
    tiles += [(f"composite {number}", one.image_HWC) for number, one in enumerate(composites)]
    drawn = [(label, draw_overlay(image_HWC, segmenter(image_HWC).mask)) for label, image_HWC in tiles]
    write_bytes_atomically(path, encode_png(sheet(drawn, columns=8, tile_width_px=320)))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
