"""The best possible Dice of each input size: true masks are fitted to it and restored, without a network.

python benchmarks/geometry_ceiling.py [DATA]
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from carmask.data.pairs import Pair, find_pairs, load_soft_mask
from carmask.evaluation.metrics import dice
from carmask.imaging.geometry import Geometry, fit_mask, plan, restore
from carmask.imaging.mask_values import FOREGROUND_FROM
from carmask.progress import progress_bar
from record import CARVANA, record

GEOMETRIES = {
    "128 x 128": Geometry(height_px=128, width_px=128),
    "256 x 256": Geometry(height_px=256, width_px=256),
    "512 x 512": Geometry(height_px=512, width_px=512),
    "512 x 768, proportions kept": Geometry(height_px=512, width_px=768, keep_aspect=True),
    "1024 x 1024": Geometry(height_px=1024, width_px=1024),
}


# What many data loaders do, for comparison: a binary mask and nearest neighbor both ways, at 128 x 128. (OpenCV's plain
# INTER_NEAREST is even worse, because it uses the corners of pixels instead of their centers.)
BROKEN = "128 x 128, hard mask and nearest neighbor"


def ceilings(pair: Pair) -> list[float]:
    """Dice at the photo's own size for each geometry, and last for BROKEN."""
    cv2.setNumThreads(1)
    reading = load_soft_mask(pair)
    soft_HW = reading.soft_HW
    scores = []
    for geometry in GEOMETRIES.values():
        placement = plan((soft_HW.shape[0], soft_HW.shape[1]), geometry)
        probability_HW = fit_mask(soft_HW, placement).astype(np.float32) / np.float32(255)
        scores.append(dice(reading.mask_HW, restore(probability_HW, placement) >= 0.5))
    hard_HW = cv2.resize(soft_HW, (128, 128), interpolation=cv2.INTER_NEAREST_EXACT)
    back_HW = cv2.resize(hard_HW, soft_HW.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return [*scores, dice(reading.mask_HW, back_HW >= FOREGROUND_FROM)]


def main() -> None:
    """Measure every mask of the data set."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else CARVANA
    if not data.is_dir():
        sys.exit(f"{data}: not there; name the folder of Carvana photos")
    pairs = find_pairs(data).pairs
    with progress_bar("masks") as advance, ThreadPoolExecutor(2) as pool:
        scores_NG = np.empty((len(pairs), len(GEOMETRIES) + 1))
        for done, row in enumerate(pool.map(ceilings, pairs)):
            scores_NG[done] = row
            advance(done + 1, len(pairs))
    figures = {
        name: {"mean_dice": round(float(scores_N.mean()), 5), "worst_dice": round(float(scores_N.min()), 5)}
        for name, scores_N in zip([*GEOMETRIES, BROKEN], scores_NG.T, strict=True)
    }
    for name, values in figures.items():
        print(f"{name:<45} mean {values['mean_dice']:.5f}  worst {values['worst_dice']:.5f}")
    record("geometry_ceiling", {"masks": len(pairs), "data": data.resolve().name, "by_geometry": figures})


if __name__ == "__main__":
    main()
