"""Damaged files of the formats that phones, cameras and old programs write: HEIC, AVIF, JPEG 2000, PNM, TGA, MPO."""

import struct
from collections.abc import Iterator

import numpy as np
import pillow_heif

from hostile_parts import Content, encoded, photo

_CUTS = 14
_FLIPS = 40
_SIDE_PX = 20_000

pillow_heif.register_heif_opener()


def whole_files() -> dict[str, bytes]:
    """One intact file of each format, by its suffix."""
    image = photo()
    return {
        ".heic": encoded(image, "HEIF"),
        ".avif": encoded(image, "AVIF", speed=10),
        ".jp2": encoded(image, "JPEG2000"),
        ".j2k": encoded(image, "JPEG2000", no_jp2=True),
        ".ppm": encoded(image, "PPM"),
        ".tga": encoded(image, "TGA", compression="tga_rle"),
        ".mpo": encoded(image, "MPO", save_all=True, append_images=[photo(seed=1)]),
    }


def damaged_formats() -> Iterator[Content]:
    """More than 300 files; what a flipped bit makes of one may be readable, and is noted as 'flipped'."""
    for suffix, data in whole_files().items():
        # The second picture of an MPO begins behind the first, which is all that is read.
        end = data.index(b"\xff\xd8\xff", 2) if suffix == ".mpo" else len(data)
        for size in np.linspace(1, end * 0.95, _CUTS).astype(int):
            yield f"cut_{size:06d}{suffix}", data[:size], False, f"first {size} of {len(data)} bytes"
        draw = np.random.default_rng(len(data))
        for number in range(_FLIPS):
            flipped = bytearray(data)
            for place in draw.integers(0, (512, end)[number % 2], 3):
                flipped[place % end] ^= 1 << int(draw.integers(8))
            yield f"flip_{number:02d}{suffix}", bytes(flipped), False, "flipped"
    yield from _giants()


def _giants() -> Iterator[Content]:
    files = whole_files()
    side = struct.pack(">II", _SIDE_PX, _SIDE_PX)
    for suffix in (".heic", ".avif"):
        size = files[suffix].index(b"ispe") + 8
        yield f"giant{suffix}", _with(files[suffix], size, side), False, "400 megapixels declared"
    lying = _with(files[".heic"], files[".heic"].index(b"ispe") + 8, struct.pack(">II", 8, 8))
    yield "smaller_than_it_says.heic", lying, False, "holds more pixels than it declares"
    header = files[".jp2"].index(b"ihdr") + 4
    yield "giant.jp2", _with(files[".jp2"], header, side), False, "400 megapixels declared"
    grid = files[".jp2"].index(b"\xff\x4f\xff\x51") + 8
    yield "smaller_than_it_says.jp2", _with(files[".jp2"], grid, side), False, "holds more pixels than it declares"
    grid = files[".j2k"].index(b"\xff\x4f\xff\x51") + 8
    yield "giant.j2k", _with(files[".j2k"], grid, side), False, "400 megapixels declared"
    yield "giant.ppm", b"P6 20000 20000 255\n" + bytes(100), False, "400 megapixels declared"
    yield "endless_comment.pgm", b"P5 #" + b"x" * 500_000, False, "a comment without end"
    yield "endless_number.pgm", b"P5 " + b"1" * 5_000, False, "a number without end"
    yield (
        "giant.tga",
        _with(files[".tga"], 12, struct.pack("<HH", _SIDE_PX, _SIDE_PX)),
        False,
        "400 megapixels declared",
    )


def _with(data: bytes, place: int, other: bytes) -> bytes:
    return data[:place] + other + data[place + len(other) :]
