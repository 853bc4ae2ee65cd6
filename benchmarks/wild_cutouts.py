"""Make masks of cut-outs solid: without the ground's shadow, and with the windows.

    python benchmarks/wild_cutouts.py CUTOUTS OUT

Web sites cut cars out together with a translucent shadow, and leave their windows translucent. As truth, the first
calls ground a vehicle, the second calls a vehicle ground. Links the photos to OUT/images and writes masks to OUT/masks.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.data.pairs import find_pairs, load_soft_mask
from carmask.imaging.encode import encode_png

# Shadows and windows are more translucent than this, of 255, all but those that `wild_photos.LEFT_OUT` names.
_SOLID = 200
# Translucent regions with a median above this are windows; below, one sees the ground through a gap.
_TRANSLUCENT = 24
# Gaps in a window's frame up to this share of the photo's longer side are closed.
_GAP = 0.008


def solid_mask(soft_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the soft mask (uint8) with the windows opaque and with nothing translucent outside but a soft edge."""
    solid_HW = (soft_HW >= _SOLID).astype(np.uint8)
    gap_px = max(3, int(_GAP * max(soft_HW.shape)) | 1)
    closed_HW = cv2.morphologyEx(
        solid_HW, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap_px, gap_px))
    )
    count, regions_HW = cv2.connectedComponents(1 - closed_HW)
    outside = np.unique(np.concatenate([regions_HW[[0, -1]].ravel(), regions_HW[:, [0, -1]].ravel()]))
    for region in set(range(count)) - set(outside.tolist()):
        is_in_HW = regions_HW == region
        if np.median(soft_HW[is_in_HW]) >= _TRANSLUCENT:
            solid_HW[is_in_HW] = 1
    edge_HW = cv2.dilate(solid_HW, np.ones((3, 3), np.uint8))
    opaque_HW = np.where(soft_HW < _SOLID, 255, soft_HW)
    return np.where(solid_HW == 1, opaque_HW, soft_HW * edge_HW).astype(np.uint8)


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cutouts", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    for side in ("images", "masks"):
        (given.out / side).mkdir(parents=True, exist_ok=True)
    for pair in find_pairs(given.cutouts).pairs:
        (given.out / "images" / pair.image.name).symlink_to(pair.image.absolute())
        mask = encode_png(solid_mask(load_soft_mask(pair).soft_HW)[..., None])
        (given.out / "masks" / f"{pair.id}.png").write_bytes(mask)


if __name__ == "__main__":
    main()
