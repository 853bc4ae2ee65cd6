"""Pack data sets for a machine that is far away: photos fitted to the network's size, in files of a limited size.

    python gpu/pack.py ../shared/carvana --out pack --max-mib 32

Writes pack/carvana-1.zip and so on, and measures what fitting costs. Unpacked into one folder, they are a data set with
images/ and masks/ and the same ids, so that the same splits fit. Photos are never enlarged and keep their proportions.
Masks keep their soft edges, in lossless PNG.
"""

import argparse
import io
import sys
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from carmask.data.pairs import Pair, find_pairs, load_soft_mask
from carmask.errors import CarmaskError
from carmask.evaluation.metrics import dice
from carmask.files import write_bytes_atomically
from carmask.imaging.color import to_srgb
from carmask.imaging.decode import decode_mask, decode_photo
from carmask.imaging.geometry import Geometry, fit_image, fit_mask, plan, restore
from carmask.limits import usable_cpus
from carmask.runner import map_ahead

# What an archive needs for each file beside its content and twice its name.
ENTRY_BYTES = 128


@dataclass(frozen=True)
class PackedPair:
    """A fitted pair: its files, by their names in the archive, and what fitting costs.

    dice: of the fitted mask, brought back to the photo's own size. squared_error: mean of the photo's compression.
    """

    files: dict[str, bytes]
    dice: float
    squared_error: float

    @property
    def size_bytes(self) -> int:
        """What it adds to an archive."""
        return sum(len(content) + 2 * len(name.encode()) + ENTRY_BYTES for name, content in self.files.items())


def main() -> None:
    """Pack each data set, and print sizes and costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="folder in one of the two layouts that carmask train reads")
    parser.add_argument("--out", type=Path, required=True, help="folder for the archives")
    parser.add_argument("--max-mib", type=float, default=32, help="largest size of an archive")
    parser.add_argument("--height", type=int, default=640, help="largest height of a photo in pixels")
    parser.add_argument("--width", type=int, default=960, help="largest width of a photo in pixels")
    parser.add_argument("--quality", type=int, default=80, help="quality of the photos, in WebP")
    arguments = parser.parse_args()
    try:
        for data in arguments.data:
            pairs = find_pairs(data).pairs
            packed = pack(pairs, (arguments.height, arguments.width), arguments.quality)
            name = data.resolve().name
            write_archives(packed, len(pairs), arguments.out, name, int(arguments.max_mib * 2**20))
    except CarmaskError as error:
        sys.exit(str(error))


def pack(pairs: Sequence[Pair], largest_HW: tuple[int, int], quality: int) -> Iterator[PackedPair]:
    """Fit all pairs, several at once, in order."""
    with ThreadPoolExecutor(usable_cpus()) as pool:
        yield from map_ahead(pool, lambda pair: pack_pair(pair, largest_HW, quality), pairs, 4 * usable_cpus())


def pack_pair(pair: Pair, largest_HW: tuple[int, int], quality: int) -> PackedPair:
    """Fit one pair into `largest_HW`."""
    photo = decode_photo(pair.image)
    reading = load_soft_mask(pair, photo_HW=photo.size_HW)
    scale = min(1.0, *(largest / side for largest, side in zip(largest_HW, photo.size_HW, strict=True)))
    height, width = (max(16, round(side * scale)) for side in photo.size_HW)
    placement = plan(photo.size_HW, Geometry(height_px=height, width_px=width))
    # The profile of the colors does not travel with the pack.
    image_HWC = to_srgb(fit_image(photo.image_HWC, placement), photo.icc_profile)
    soft_HW = fit_mask(reading.soft_HW, placement)
    webp, png = io.BytesIO(), io.BytesIO()
    Image.fromarray(image_HWC).save(webp, "WEBP", quality=quality, method=6)
    Image.fromarray(soft_HW).save(png, "PNG", optimize=True)
    error_HWC = decode_photo(webp.getvalue()).image_HWC.astype(np.float32) - image_HWC
    back_HW = decode_mask(png.getvalue()).soft_HW.astype(np.float32) / np.float32(255)
    return PackedPair(
        {f"images/{pair.id}.webp": webp.getvalue(), f"masks/{pair.id}.png": png.getvalue()},
        dice(reading.mask_HW, restore(back_HW, placement) >= 0.5),
        float(np.square(error_HWC).mean()),
    )


def write_archives(packed: Iterator[PackedPair], count: int, out: Path, name: str, limit_bytes: int) -> None:
    """Write `count` pairs to as many archives as their size demands, and print what it costs."""
    parts: list[list[PackedPair]] = [[]]
    used_bytes = 0
    for number, pair in enumerate(packed, 1):
        if parts[-1] and used_bytes + pair.size_bytes > limit_bytes:
            parts.append([])
            used_bytes = 0
        parts[-1].append(pair)
        used_bytes += pair.size_bytes
        if number % 100 == 0:
            print(f"{number} of {count} photos", flush=True)
    for number, part in enumerate(parts, 1):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for pair in part:
                for file, content in pair.files.items():
                    archive.writestr(zipfile.ZipInfo(file), content)
        path = out / f"{name}-{number}.zip"
        write_bytes_atomically(path, buffer.getvalue())
        print(f"{path}: {len(part)} photos, {buffer.tell() / 2**20:.2f} MiB")
    pairs = [pair for part in parts for pair in part]
    scores = [pair.dice for pair in pairs]
    psnr_db = 10 * np.log10(255**2 / np.mean([pair.squared_error for pair in pairs]))
    print(f"Dice of the fitted masks at full size: mean {np.mean(scores):.5f}, worst {min(scores):.5f}")
    print(f"photos differ from fitted ones without compression by {psnr_db:.1f} dB (PSNR)")


if __name__ == "__main__":
    main()
