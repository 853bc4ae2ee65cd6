"""Composites that are the same at every run: held-out vehicles, cut out, on held-out photos without a vehicle.

Each vehicle is also measured for itself, by its kind and by its width as a share of the picture's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carmask.data.composite import CompositeSettings, Cutout, draw_widths_px, paste_cutout
from carmask.data.pairs import Pair, load_soft_mask
from carmask.evaluation.metrics import measure
from carmask.evaluation.outlines import BoolArray
from carmask.imaging.decode import decode_photo
from carmask.segmenter import Segmenter
from wild_cutouts import solid_mask

COUNT = 200
_SETTINGS = CompositeSettings(probability=1.0)
# Widths of vehicles as shares of the picture's width; wider ones reach beyond its border.
SIZES = {"5 % to 10 %": 0.10, "10 % to 20 %": 0.20, "20 % to 40 %": 0.40, "40 % to 70 %": 0.70, "70 % to 110 %": 9.0}
# A vehicle of which less than this share is visible says more of those in front of it.
_LEAST_VISIBLE = 0.2
# The surroundings of a vehicle in which wrong pixels are counted against it, as a share of its width and height.
_MARGIN = 0.1


@dataclass(frozen=True, eq=False)
class Vehicle:
    """A vehicle in a composite: its kind, its width as a share of the picture's, and which pixels show it."""

    kind: str
    width: float
    visible_HW: BoolArray


@dataclass(frozen=True, eq=False)
class Composite:
    """A picture (uint8 RGB), the truth, and the vehicles of which enough is visible."""

    image_HWC: NDArray[np.uint8]
    truth_HW: BoolArray
    vehicles: tuple[Vehicle, ...]


def make_composites(
    grounds: Sequence[Path], cutouts: Mapping[str, Sequence[Pair]], count: int = COUNT
) -> Iterator[Composite]:
    """Paste one to six vehicles of the kinds in `cutouts` onto each ground in turn, for `count` pictures."""
    choices = [(kind, pair) for kind, pairs in cutouts.items() for pair in pairs]
    order = np.random.default_rng(0).permutation(len(grounds))
    for number in range(count):
        rng = np.random.default_rng((0, number))
        ground = grounds[order[number % len(grounds)]]
        yield _compose(decode_photo(ground).image_HWC, choices, rng)


def _compose(image_HWC: NDArray[np.uint8], choices: Sequence[tuple[str, Pair]], rng: np.random.Generator) -> Composite:
    image_HWC = image_HWC.copy()
    soft_HW = np.zeros(image_HWC.shape[:2], np.uint8)
    pasted: list[tuple[str, float, BoolArray, int]] = []
    for width_px in draw_widths_px(rng, image_HWC.shape[1], _SETTINGS):
        kind, pair = choices[int(rng.integers(len(choices)))]
        own_HW = np.zeros_like(soft_HW)
        cutout = _cut_out(kind, pair)
        paste_cutout(image_HWC, own_HW, cutout, width_px, rng, _SETTINGS)
        in_front_HW = own_HW >= 128
        pasted = [(*vehicle[:2], vehicle[2] & ~in_front_HW, vehicle[3]) for vehicle in pasted]
        pasted.append((kind, width_px / image_HWC.shape[1], in_front_HW, int(in_front_HW.sum())))
        soft_HW = np.maximum(soft_HW, own_HW)
    vehicles = tuple(
        Vehicle(kind, width, visible_HW)
        for kind, width, visible_HW, area_px in pasted
        if visible_HW.sum() > _LEAST_VISIBLE * area_px
    )
    return Composite(image_HWC, soft_HW >= 128, vehicles)


def _cut_out(kind: str, pair: Pair) -> Cutout:
    soft_HW = load_soft_mask(pair).soft_HW
    cutout = Cutout.of(decode_photo(pair.image).image_HWC, solid_mask(soft_HW) if kind in ("car", "moto") else soft_HW)
    if cutout is None:
        raise SystemExit(f"{pair.mask}: shows no vehicle")
    return cutout


def figures_of_composites(segmenter: Segmenter, composites: Iterator[Composite]) -> dict[str, Any]:
    """Dice of whole pictures, and of each vehicle in its surroundings, where other vehicles count as unknown."""
    pictures, vehicles = [], []
    for composite in composites:
        mask_HW = segmenter(composite.image_HWC).mask
        pictures.append(measure(composite.truth_HW, mask_HW).dice)
        vehicles += [(vehicle, _dice_of_vehicle(vehicle, composite, mask_HW)) for vehicle in composite.vehicles]
    kinds = {vehicle.kind for vehicle, _ in vehicles}
    least = dict(zip(SIZES, (0.0, *SIZES.values()), strict=False))
    return {
        "photos": len(pictures),
        "dice": round(fmean(pictures), 5),
        "median_dice": round(median(pictures), 5),
        "worst_dice": round(min(pictures), 5),
        "vehicles": {
            **{kind: _mean([dice for one, dice in vehicles if one.kind == kind]) for kind in sorted(kinds)},
            **{
                size: _mean([dice for one, dice in vehicles if least[size] <= one.width < most])
                for size, most in SIZES.items()
            },
        },
    }


def _dice_of_vehicle(vehicle: Vehicle, composite: Composite, mask_HW: BoolArray) -> float:
    rows, columns = (np.flatnonzero(vehicle.visible_HW.any(axis=axis)) for axis in (1, 0))
    margins = [round(_MARGIN * len(places)) + 1 for places in (rows, columns)]
    box = tuple(
        slice(max(places[0] - margin, 0), places[-1] + 1 + margin)
        for places, margin in zip((rows, columns), margins, strict=True)
    )
    truth_HW = vehicle.visible_HW[box]
    return measure(truth_HW, mask_HW[box], truth_HW | ~composite.truth_HW[box]).dice


def _mean(values: Sequence[float]) -> dict[str, Any]:
    return {"count": len(values), "dice": round(fmean(values), 5)}
