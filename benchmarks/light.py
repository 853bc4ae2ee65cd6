"""Dice in light, on grounds and in positions that no photo of the studio shows, made from its held-out photos.

    python benchmarks/light.py CARVANA MODEL NAME

MODEL is what `carmask evaluate --model` takes. Measures two views of each held-out car (docs/results) as it is, at
dusk, at night with the noise of a sensor, on a wet floor, white cars alone, and turned by 90 degrees, as a photo that
has lost its orientation. Writes docs/results/light-NAME.json.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from carmask.data.pairs import Pair, find_pairs, load_soft_mask
from carmask.data.split import Split
from carmask.evaluation.metrics import dice
from carmask.imaging.decode import decode_photo
from carmask.imaging.masks import box_of
from carmask.segmenter import Segmenter
from record import RESULTS, record

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]

VIEWS = ("02", "07")
# Share of the light that is left, and the noise's standard deviation, of 255.
LIGHT = {"dusk": (0.3, 2.0), "night": (0.08, 4.0)}
# How much of the vehicle a wet floor mirrors.
MIRRORED = 0.4
# Mean value of the pixels of a white car, of 255.
WHITE = 170


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("carvana", type=Path)
    parser.add_argument("model")
    parser.add_argument("name")
    given = parser.parse_args()
    segmenter = Segmenter.load(given.model)
    scores: dict[str, list[float]] = {}
    for pair in held_out(given.carvana):
        image_HWC, mask_HW = decode_photo(pair.image).image_HWC, load_soft_mask(pair).mask_HW
        for name, change in CHANGES.items():
            changed_HWC, truth_HW = change(image_HWC, mask_HW)
            found_HW = segmenter(np.ascontiguousarray(changed_HWC)).mask
            scores.setdefault(name, []).append(dice(np.ascontiguousarray(truth_HW), np.asarray(found_HW)))
        if image_HWC[mask_HW].mean() >= WHITE:
            scores.setdefault("white cars", []).append(scores["as they are"][-1])
    figures = {
        name: {"photos": len(values), "dice": round(fmean(values), 4), "worst": round(min(values), 4)}
        for name, values in scores.items()
    }
    record(f"light-{given.name}", {"model": Path(given.model).name, **figures})


def held_out(carvana: Path) -> list[Pair]:
    """Two photos of each car of fold 0."""
    _, validation = Split.load(RESULTS / "split-carvana-fold0of5.json").select(find_pairs(carvana).pairs)
    return [pair for pair in validation if pair.view in VIEWS]


def dim(image_HWC: Image, mask_HW: Mask, share: float, noise: float) -> tuple[Image, Mask]:
    """Leave a share of the light, and add noise."""
    noise_HWC = np.random.default_rng(0).normal(0, noise, image_HWC.shape)
    return (image_HWC * share + noise_HWC).clip(0, 255).astype(np.uint8), mask_HW


def wet_floor(image_HWC: Image, mask_HW: Mask) -> tuple[Image, Mask]:
    """Mirror the vehicle in the floor below it."""
    box = box_of(mask_HW)
    assert box is not None
    _, _, bottom, _ = box
    height = min(bottom, image_HWC.shape[0] - bottom)
    below = slice(bottom, bottom + height)
    vehicle_HWC, inside_HW = image_HWC[bottom - height : bottom][::-1], mask_HW[bottom - height : bottom][::-1]
    wet_HWC = image_HWC.astype(np.float32)
    mixed_HWC = (1 - MIRRORED) * wet_HWC[below] + MIRRORED * vehicle_HWC
    wet_HWC[below] = np.where(inside_HW[..., None], mixed_HWC, wet_HWC[below])
    return wet_HWC.astype(np.uint8), mask_HW


CHANGES: dict[str, Callable[[Image, Mask], tuple[Image, Mask]]] = {
    "as they are": lambda image_HWC, mask_HW: (image_HWC, mask_HW),
    **{
        name: lambda image_HWC, mask_HW, light=light: dim(image_HWC, mask_HW, *light)  # type: ignore[misc]
        for name, light in LIGHT.items()
    },
    "wet floor": wet_floor,
    "turned by 90 degrees": lambda image_HWC, mask_HW: (np.rot90(image_HWC), np.rot90(mask_HW)),
}


if __name__ == "__main__":
    main()
