"""Draw docs/gallery.md's pictures from rendered cars with the packaged network.

python benchmarks/gallery.py DATA      DATA: made by `carmask studio DATA --cars 3`
"""

import argparse
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carmask.data.pairs import find_pairs
from carmask.files import write_bytes_atomically
from carmask.imaging.decode import decode_photo
from carmask.imaging.draw import sheet
from carmask.imaging.encode import encode_picture
from carmask.imaging.look import Look, load_look
from carmask.imaging.masks import Regions
from carmask.result import Result
from carmask.segmenter import Segmenter
from record import RESULTS

PICTURES = RESULTS.parent / "pictures"
TILE_WIDTH_PX = 400
QUALITY = 82


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    pairs = find_pairs(parser.parse_args().data).pairs
    cars = sorted({pair.group for pair in pairs})
    photo_of = {(cars.index(pair.group), pair.view): pair.image for pair in pairs}
    segment = Segmenter.load()

    def find(car: int, view: str) -> Result:
        found = segment(photo_of[car, view])
        probability_HW = Regions("largest").keep(found.probability, found.threshold)
        return Result(probability_HW, found.threshold, found.source)

    first = find(0, "03")
    mask_HW3 = np.repeat(first.mask[..., None].astype(np.uint8) * 255, 3, axis=2)
    photo_HW3 = decode_photo(photo_of[0, "03"]).image_HWC
    cutout_HW3 = np.asarray(first.cutout("#1d6f6f"))
    _save("first", [photo_HW3, mask_HW3, cutout_HW3, drawn(first, load_look("showroom"))], columns=4)

    names = ("cutout", "showroom", "marketplace")
    looks = [load_look(name).changed({"background": "white"} if name == "cutout" else {}) for name in names]
    _save("looks", [drawn(find(car, view), look) for car, view in ((1, "05"), (2, "03")) for look in looks], columns=3)

    showroom = load_look("showroom")
    shadows = ("none", "contact", "soft", "original")
    _save("shadows", [drawn(first, showroom.changed({"shadow": shadow})) for shadow in shadows], columns=4)

    views = [find(1, view) for view in ("01", "03", "05", "07")]
    boxes = [view.box_px for view in views if view.box_px is not None]
    extent_HW = max(box[2] - box[0] for box in boxes), max(box[3] - box[1] for box in boxes)
    fitted = [drawn(view, showroom) for view in views]
    alike = [drawn(view, showroom.changed({"scale": "same-car"}), extent_HW) for view in views]
    _save("scales", [*fitted, *alike], columns=4)


def drawn(found: Result, look: Look, extent_HW: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """The pixels of a look, before they are encoded for its file."""
    data = found.compose(look.changed({"format": "png"}), extent_HW=extent_HW)
    pixels_HW3: NDArray[np.uint8] = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    return pixels_HW3


def _save(name: str, tiles: list[NDArray[np.uint8]], *, columns: int) -> None:
    page_HWC = sheet([("", tile) for tile in tiles], columns=columns, tile_width_px=TILE_WIDTH_PX)
    path = PICTURES / f"{name}.jpg"
    write_bytes_atomically(path, encode_picture(page_HWC, "jpg", quality=QUALITY))
    print(f"{path}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
