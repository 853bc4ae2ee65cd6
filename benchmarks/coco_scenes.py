"""Make photos with masks of all vehicles, and photos without a vehicle, from COCO's panoptic annotations.

    python benchmarks/coco_scenes.py COCO OUT

COCO holds annotations/panoptic_<set>.json, annotations/panoptic_<set>/ with the pictures of segments, and the photos in
<set>/, as in COCO's own archives. The photos that docs/results/split-coco-scenes.json and split-coco-no-vehicle.json
name are linked to OUT/scenes/images and OUT/no-vehicle/images, as far as COCO has them; OUT/scenes/masks has their
masks. A crowd of vehicles, which COCO outlines only roughly, is unknown (128).
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carmask.data.split import Split
from carmask.imaging.decode import decode_photo
from carmask.imaging.encode import encode_png
from record import RESULTS

# Car, motorcycle, bus and truck.
VEHICLES = {3, 4, 6, 8}
VEHICLE, UNKNOWN = 255, 128


def vehicle_mask(segment_HW3: NDArray[np.uint8], segments: list[dict[str, int]]) -> NDArray[np.uint8]:
    """Return the mask (uint8: 0, 128, 255) of a picture of segments, whose colors are their numbers in base 256."""
    number_HW = segment_HW3.astype(np.uint32) @ np.array([1, 256, 256**2], np.uint32)
    mask_HW = np.zeros(number_HW.shape, np.uint8)
    for segment in segments:
        if segment["category_id"] in VEHICLES:
            mask_HW[number_HW == segment["id"]] = UNKNOWN if segment["iscrowd"] else VEHICLE
    return mask_HW


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("coco", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    folder_of = {
        id_: given.out / name
        for name in ("scenes", "no-vehicle")
        for id_ in Split.load(RESULTS / f"split-coco-{name}.json").train
    }
    written = 0
    for file in sorted((given.coco / "annotations").glob("panoptic_*.json")):
        photos = given.coco / file.stem.removeprefix("panoptic_")
        for annotation in json.loads(file.read_text())["annotations"]:
            png = Path(annotation["file_name"])
            folder = folder_of.get(f"coco_{png.stem}")
            photo = photos / f"{png.stem}.jpg"
            if folder is None or not photo.exists():
                continue
            picture = decode_photo((file.with_suffix("") / png).read_bytes()).image_HWC
            mask_HW = vehicle_mask(picture, annotation["segments_info"])
            is_scene = folder.name == "scenes"
            if mask_HW.any() != is_scene:
                raise SystemExit(f"{photo}: vehicles are labeled in it, or none are, against the split")
            for side in ("images", "masks") if is_scene else ("images",):
                (folder / side).mkdir(parents=True, exist_ok=True)
            (folder / "images" / f"coco_{photo.name}").symlink_to(photo.absolute())
            if is_scene:
                (folder / "masks" / f"coco_{png.name}").write_bytes(encode_png(mask_HW[..., None]))
            written += 1
    print(f"{written} of {len(folder_of)} photos written to {given.out}")


if __name__ == "__main__":
    main()
