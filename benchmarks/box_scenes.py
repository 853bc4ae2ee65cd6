"""Make masks for photos in which only boxes are labeled: the network looks at every box enlarged.

    python benchmarks/box_scenes.py PHOTOS OUT [--model general]

PHOTOS is Roboflow's export of "Vehicles-OpenImages" in YOLO's form (CC BY 4.0, 416 x 416 px): folders with images/ and
labels/. OUT/images and OUT/masks get those in which a vehicle is found: docs/results/split-box-scenes.json has them.

The network finds a vehicle better when it fills the picture, and a box says where it ends. A mask that fills its box
is taken for truth. Otherwise most of the box is unknown (128), but not the middle of trucks and buses. All outside the
boxes is background, except where the network sees a vehicle without a box: that is unknown.

The export stretched the photos to squares. Each gets the aspect ratio of 4:3, 1:1 or 3:4 in which the masks fill the
boxes best.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.imaging.decode import decode_photo
from carmask.imaging.encode import encode_png
from carmask.imaging.masks import Box, box_of
from carmask.segmenter import Segmenter

VEHICLE, UNKNOWN = 255, 128
# Probabilities that are taken for truth where the mask fills the box, and where it does not.
SURE, SURER = 0.75, 0.93
# Outside of boxes, a probability above this is a vehicle that may have no box.
DOUBT = 0.2
# A mask fills its box if the box around the mask has this share of the area.
FILLED = 0.8
# The classes of trucks and buses (ambulance, bus, truck), and the share of their boxes' sides that is the middle.
BOXY, MIDDLE = {0, 1, 4}, 0.6
# What the network sees around a box, as a share of the box's sides. Smaller boxes are unknown.
MARGIN, LEAST_PX = 0.35, 12


def boxes_of(labels: Path, size_HW: tuple[int, int]) -> list[tuple[int, Box]]:
    """Return the class and (top, left, bottom, right) in pixels of each line `class x y width height`, four shares."""
    boxes = []
    for line in labels.read_text().splitlines():
        number, x, y, width, height = map(float, line.split())
        corners = ((y - height / 2), (x - width / 2), (y + height / 2), (x + width / 2))
        top, left, bottom, right = (
            round(min(max(at, 0), 1) * side_px) for at, side_px in zip(corners, size_HW * 2, strict=True)
        )
        boxes.append((int(number), (top, left, bottom, right)))
    return boxes


def mask_from_boxes(
    segmenter: Segmenter, image_HWC: NDArray[np.uint8], boxes: list[tuple[int, Box]]
) -> tuple[NDArray[np.uint8], float]:
    """Return the mask (uint8: 0, 128, 255), and the mean share of a box that its mask reaches across, 0..1."""
    mask_HW = np.where(segmenter(image_HWC).probability > DOUBT, UNKNOWN, 0).astype(np.uint8)
    reached = []
    # Large boxes first: of two vehicles, the one in front mostly has the smaller box.
    for number, box in sorted(boxes, key=lambda one: _area(one[1]), reverse=True):
        top, left, bottom, right = box
        inside_HW = mask_HW[top:bottom, left:right]
        if min(inside_HW.shape) < LEAST_PX:
            inside_HW[:] = UNKNOWN
            continue
        probability_HW = _enlarged(segmenter, image_HWC, box)
        reached.append(_reach(probability_HW >= 0.5))
        known_HW = inside_HW == VEHICLE
        inside_HW[:] = UNKNOWN
        if reached[-1] >= FILLED:
            inside_HW[probability_HW >= SURE] = VEHICLE
            inside_HW[probability_HW < 1 - SURE] = 0
        else:
            inside_HW[probability_HW >= SURER] = VEHICLE
            if number in BOXY:
                y_px, x_px = (round((1 - MIDDLE) / 2 * side_px) for side_px in inside_HW.shape)
                inside_HW[y_px:-y_px, x_px:-x_px] = VEHICLE
        inside_HW[known_HW] = VEHICLE
    return mask_HW, float(np.mean(reached or 0.0))


def _enlarged(segmenter: Segmenter, image_HWC: NDArray[np.uint8], box: Box) -> NDArray[np.float32]:
    """The probability in a box, from a look at the box and some ground around it."""
    top, left, bottom, right = box
    y_px, x_px = round(MARGIN * (bottom - top)), round(MARGIN * (right - left))
    from_y, from_x = max(top - y_px, 0), max(left - x_px, 0)
    around_HWC = image_HWC[from_y : bottom + y_px, from_x : right + x_px]
    probability_HW = segmenter(np.ascontiguousarray(around_HWC)).probability
    return probability_HW[top - from_y : bottom - from_y, left - from_x : right - from_x]


def _area(box: Box) -> int:
    top, left, bottom, right = box
    return (bottom - top) * (right - left)


def _reach(mask_HW: NDArray[np.bool_]) -> float:
    """The area of the box around a mask, as a share of the whole."""
    box = box_of(mask_HW)
    return _area(box) / mask_HW.size if box else 0.0


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="general")
    given = parser.parse_args()
    segmenter = Segmenter.load(given.model, tta="flip")
    for folder in ("images", "masks"):
        (given.out / folder).mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    for path in sorted(given.photos.glob("*/images/*.jpg")):
        name = path.stem.split("_jpg")[0]
        if name in seen:
            continue
        seen.add(name)
        labels = path.parent.with_name("labels") / f"{path.stem}.txt"
        square_HWC = decode_photo(path.read_bytes()).image_HWC
        side_px = square_HWC.shape[0]
        tries = []
        for size_HW in ((side_px, side_px * 4 // 3), (side_px, side_px), (side_px * 4 // 3, side_px)):
            image_HWC = cv2.resize(square_HWC, size_HW[::-1], interpolation=cv2.INTER_CUBIC)
            mask_HW, share = mask_from_boxes(segmenter, image_HWC, boxes_of(labels, size_HW))
            tries.append((share, image_HWC, mask_HW))
        share, image_HWC, mask_HW = max(tries, key=lambda one: one[0])
        if not (mask_HW == VEHICLE).any():
            continue
        (given.out / "images" / f"oi_{name}.png").write_bytes(encode_png(image_HWC))
        (given.out / "masks" / f"oi_{name}.png").write_bytes(encode_png(mask_HW[..., None]))
        print(name, image_HWC.shape[:2], f"{share:.2f}", flush=True)
    print(f"{len(seen)} photos")


if __name__ == "__main__":
    main()
