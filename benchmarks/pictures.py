"""Draw pictures of README and docs from predictions. Of real photos only the predicted masks are drawn.

python benchmarks/pictures.py demo data/studio  rendered cars, cut out by the packaged network -> docs/pictures/demo.png
python benchmarks/pictures.py masks RUN DATA    masks of held-out photos                    -> docs/pictures/masks.png
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carmask.data.pairs import find_pairs, load_soft_mask
from carmask.data.split import Split
from carmask.evaluation.metrics import dice
from carmask.files import write_bytes_atomically
from carmask.imaging.decode import decode_photo
from carmask.imaging.draw import sheet
from carmask.imaging.encode import encode_png
from carmask.imaging.look import load_look
from carmask.segmenter import Segmenter
from record import RESULTS

PICTURES = RESULTS.parent / "pictures"
COLUMNS, ROWS = 4, 2
TILE_WIDTH_PX = 240


def draw_demo(data: Path) -> None:
    """Photos of DATA from four sides, and what the packaged network makes of them: masks, cut-outs, and a showroom."""
    segment = Segmenter.load()
    look = load_look("showroom").changed({"canvas": "960x640"})
    pairs = {(pair.group, pair.view): pair for pair in find_pairs(data).pairs}
    cars = sorted({group for group, _ in pairs})
    photos, masks, cutouts, composed = [], [], [], []
    for number, view in enumerate(("03", "12", "14", "05")):
        pair = pairs[cars[number * len(cars) // COLUMNS + 1], view]
        result = segment(pair.image)
        photos.append(("", decode_photo(pair.image).image_HWC))
        masks.append(("", np.repeat(result.mask[..., None].astype(np.uint8) * 255, 3, axis=2)))
        cutouts.append(("", np.asarray(result.cutout("#1d6f6f"))))
        composed.append(("", decode_photo(result.compose(look)).image_HWC))
    _save("demo.png", sheet([*photos, *masks, *cutouts, *composed], columns=COLUMNS, tile_width_px=TILE_WIDTH_PX))


def draw_masks(run: Path, data: Path) -> None:
    """Predicted masks of held-out photos, spread over cars and views, with the Dice of each."""
    held_out = set(Split.load(run / "split.json").validation)
    pairs = [pair for pair in find_pairs(data).pairs if pair.id in held_out]
    segmenter = Segmenter.load(run)
    tiles = []
    for place in np.linspace(0, len(pairs) - 1, COLUMNS * ROWS).round().astype(int):
        pair = pairs[place]
        mask_HW = segmenter(pair.image).mask
        image_HWC = np.repeat(mask_HW[..., None].astype(np.uint8) * 255, 3, axis=2)
        tiles.append((f"view {pair.view}: Dice {dice(load_soft_mask(pair).mask_HW, mask_HW):.4f}", image_HWC))
    _save("masks.png", sheet(tiles, columns=COLUMNS, tile_width_px=TILE_WIDTH_PX))


def _save(name: str, image_HWC: NDArray[np.uint8]) -> None:
    write_bytes_atomically(PICTURES / name, encode_png(image_HWC))
    print(f"written to {PICTURES / name}")


def main() -> None:
    """Dispatch."""
    if len(sys.argv) == 3 and sys.argv[1] == "demo":
        draw_demo(Path(sys.argv[2]))
    elif len(sys.argv) == 4 and sys.argv[1] == "masks":
        draw_masks(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
