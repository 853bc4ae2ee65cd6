"""Write the data set that a refiner learns from: crops along the outlines that another network finds."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.data.pairs import Pair, load_soft_mask
from carmask.errors import CarmaskError
from carmask.files import write_bytes_atomically
from carmask.imaging.color import to_srgb
from carmask.imaging.crops import cut_crops, cut_inputs, outline_cells, refined_size
from carmask.imaging.decode import MaskReading, Photo, decode_photo
from carmask.imaging.encode import encode_png
from carmask.imaging.geometry import resize, size_text
from carmask.runner import Prediction, run_segmenter
from carmask.segmenter import Segmenter

# Side of a crop: the input of `sharp`.
_CROP_PX = 64
# Half of the photos are reduced, down to this scale, so that the refiner sees blurred and sharp edges.
_SMALLEST = 0.4
# A network is surer of the photos it has learned than of others. Its logits are scaled and shifted at random, and its
# outline is moved by so many pixels (standard deviation), as it is off on photos that it does not know.
_LOGIT_SCALE, _LOGIT_SHIFT, _MOVE_PX = 0.5, 0.7, 1.2

_Extra = tuple[Photo, MaskReading]


def write_crops(
    pairs: Sequence[Pair],
    segmenter: Segmenter,
    out: Path,
    *,
    per_photo: int = 24,
    seed: int = 0,
) -> Iterator[int]:
    """Write at most `per_photo` crops of each photo as RGBA pictures, with the probability as alpha, and their masks.

    The files are `out`/images/ID-K.png and `out`/masks/ID-K.png. Crops with unknown pixels are left out. Yields the
    number of crops of each photo, in order. The same photos, network and seed give the same crops.

    Raises:
        CarmaskError: `out` has crops or other pictures already, a photo or mask cannot be read, they differ in size, or
            a file cannot be written.
    """
    for folder in (out / "images", out / "masks"):
        if folder.is_dir() and any(folder.iterdir()):
            raise CarmaskError(f"{folder}: is not empty, and crops of several runs must not mix; choose another folder")
    numbered = list(enumerate(pairs))

    def load(item: tuple[int, Pair]) -> tuple[Photo, _Extra]:
        pair = item[1]
        photo = decode_photo(pair.image)
        reading = load_soft_mask(pair, photo_HW=photo.size_HW)
        if reading.soft_HW.shape != photo.size_HW:
            sizes = f"{size_text(photo.size_HW)}, its mask {size_text(reading.soft_HW.shape)}"
            raise CarmaskError(f"{pair.image}: the photo is {sizes}; see `carmask check`")
        return photo, (photo, reading)

    def consume(found: Prediction[tuple[int, Pair], _Extra]) -> int:
        number, pair = found.item
        rng = np.random.default_rng((seed, number))
        crops, masks = _crops_of(found.probability_HW, *found.extra, count=per_photo, rng=rng)
        for place, (crop_HWC, mask_HW) in enumerate(zip(crops, masks, strict=True)):
            name = f"{pair.id}-{place}.png"
            write_bytes_atomically(out / "images" / name, encode_png(crop_HWC))
            write_bytes_atomically(out / "masks" / name, encode_png(mask_HW[..., None]))
        return len(crops)

    yield from run_segmenter(numbered, segmenter, load=load, consume=consume)


def _crops_of(
    probability_HW: NDArray[np.float32],
    photo: Photo,
    reading: MaskReading,
    *,
    count: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return crops (uint8 N x crop x crop x 4) and their masks (0 or 255, uint8 N x crop x crop) of one photo."""
    scale = 1.0 if rng.random() < 0.5 else rng.uniform(_SMALLEST, 1.0)
    height, width = (max(_CROP_PX, round(side * scale)) for side in refined_size(probability_HW.shape))
    size_HW = height, width
    probability_HW = resize(probability_HW, size_HW)
    # In the colors in which the refiner will see photos.
    image_HWC = to_srgb(resize(photo.image_HWC, size_HW), photo.icc_profile)
    soft_HW = resize(reading.soft_HW, size_HW)
    # Moved at random, since the outline is in the middle of a cell only where there is room.
    far_px = _CROP_PX // 4
    cells = [
        (min(max(0, top + down), height - 1), min(max(0, left + right), width - 1))
        for top, left in outline_cells(probability_HW, _CROP_PX)
        for down, right in [rng.integers(-far_px, far_px, 2, endpoint=True).tolist()]
    ]
    if reading.known_HW is not None:
        # Unlike the share of the known pixels, which rounding moves off 1, this is exactly 0 where all are known.
        unknown_share_HW = resize((~reading.known_HW).astype(np.float32), size_HW)
        unknown = cut_crops((unknown_share_HW > 0).view(np.uint8), cells, _CROP_PX)
        cells = [cell for cell, is_unknown_HW in zip(cells, unknown, strict=True) if not is_unknown_HW.any()]
    cells = [cells[place] for place in rng.permutation(len(cells))[:count]]
    crops = cut_inputs(image_HWC, _perturbed(probability_HW, rng), cells, _CROP_PX)
    # Of two values, since one crop cannot tell a soft mask from one of classes.
    mask_HW = (soft_HW >= 128).view(np.uint8) * np.uint8(255)
    return crops, cut_crops(mask_HW, cells, _CROP_PX)


def _perturbed(probability_HW: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    if rng.random() < 1 / 3:
        return probability_HW
    scale, shift = np.exp(_LOGIT_SCALE * rng.standard_normal()), _LOGIT_SHIFT * rng.standard_normal()
    clipped_HW = np.clip(probability_HW, 1e-4, 1 - 1e-4)
    logits_HW = np.log(clipped_HW / (1 - clipped_HW)) * scale + shift
    moved = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    moved[:, 2] = _MOVE_PX * rng.standard_normal(2)
    perturbed_HW = (1 / (1 + np.exp(-logits_HW))).astype(np.float32)
    result_HW: NDArray[np.float32] = cv2.warpAffine(
        perturbed_HW, moved, perturbed_HW.shape[::-1], borderMode=cv2.BORDER_REPLICATE
    )
    return result_HW
