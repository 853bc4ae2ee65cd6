"""Damaged picture files, files that are no pictures, and pictures that declare more than they hold."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from hostile_parts import Content, encoded, photo, plain_pillow_reads, png_from_chunks

_FLIPS_PER_FILE = 12
_CUTS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.92)


def damaged_files() -> Iterator[Content]:
    """All of them."""
    for source in (_cuts, _flips, _impostors, _giants):
        yield from source()


def _bases() -> dict[str, tuple[str, bytes]]:
    image = photo()
    return {
        "jpeg": (".jpg", encoded(image, "JPEG", quality=90)),
        "jpeg_progressive": (".jpeg", encoded(image, "JPEG", quality=90, progressive=True)),
        "png": (".png", encoded(image, "PNG")),
        "gif": (".gif", encoded(image.quantize(64), "GIF")),
        "bmp": (".bmp", encoded(image, "BMP")),
        "tiff": (".tif", encoded(image, "TIFF")),
        "tiff_lzw": (".tiff", encoded(image, "TIFF", compression="tiff_lzw")),
        "webp": (".webp", encoded(image, "WEBP", quality=80)),
    }


def _cuts() -> Iterator[Content]:
    for name, (suffix, data) in _bases().items():
        yield f"empty_{name}{suffix}", b"", False, "empty file"
        for share in _CUTS:
            size = max(1, int(len(data) * share))
            yield f"cut_{name}_{size:05d}{suffix}", data[:size], False, f"first {size} of {len(data)} bytes"


def _flips() -> Iterator[Content]:
    for name, (suffix, data) in _bases().items():
        draw = np.random.default_rng(len(data))
        # Half of the flips hit the first 64 bytes, where the header is.
        places = [*draw.integers(0, 64, _FLIPS_PER_FILE // 2), *draw.integers(64, len(data), _FLIPS_PER_FILE // 2)]
        for place in sorted({int(place) for place in places}):
            bit = int(draw.integers(8))
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            yield (
                f"flip_{name}_{place:05d}{suffix}",
                bytes(flipped),
                plain_pillow_reads(bytes(flipped)),
                f"bit {bit} of byte {place} flipped",
            )


def _impostors() -> Iterator[Content]:
    noise = np.random.default_rng(7).bytes(4000)
    image = photo()
    for name, data in {
        "text.jpg": b"this is not a photo\n" * 20,
        "html.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "html_indented.png": b"\n\n  <HTML><head></head></HTML>",
        "pdf.jpg": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF",
        "svg.png": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "json.gif": b'{"error": "quota exceeded"}',
        "zip.tif": b"PK\x03\x04" + noise[:200],
        "photoshop.tiff": b"8BPS\0\1" + noise[:200],
        "heic.jpg": b"\0\0\0\x18ftypheic" + noise[:200],
        "jpeg_xl.jpg": b"\xff\x0a" + noise[:200],
        "zeros.jpg": bytes(5000),
        "zeros_short.png": bytes(3),
        "random.jpg": noise,
        "random_named_webp.webp": noise[::-1],
        "one_byte.bmp": b"B",
        "two_bytes.bmp": b"BM",
        "marker_only.jpg": b"\xff\xd8\xff",
        "signature_only.png": b"\x89PNG\r\n\x1a\n",
        "signature_only_gif.gif": b"GIF89a",
        "signature_only_tif.tif": b"II*\0",
        "signature_only_webp.webp": b"RIFF\x10\0\0\0WEBP",
        "wave_sound.webp": b"RIFF\x24\0\0\0WAVEfmt " + noise[:40],
        # Pillow could read these, but they are in no format that is read.
        "icon.png": encoded(image, "ICO"),
        "paintbrush.gif": encoded(image, "PCX"),
        "postscript.jpg": encoded(image, "EPS"),
    }.items():
        stem, suffix = name.rsplit(".", 1)
        yield f"impostor_{stem}.{suffix}", data, False, "not a picture in a format that is read"
    for name, image_format in {
        "png_named.jpg": "PNG",
        "jpeg_named.png": "JPEG",
        "gif_named.webp": "GIF",
        "tiff_named.bmp": "TIFF",
        "webp_named.gif": "WEBP",
        "bmp_named.tiff": "BMP",
        "portable_pixmap_named.jpg": "PPM",
        "targa_named.bmp": "TGA",
        "avif_named.jpg": "AVIF",
        "jpeg_2000_named.png": "JPEG2000",
    }.items():
        yield f"mislabeled_{name}", encoded(image, image_format), True, f"{image_format} under another suffix"


def _giants() -> Iterator[Content]:
    side = 20_000
    packer = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    yield "giant_png.png", png_from_chunks((b"IHDR", header), (b"IDAT", pixels)), False, "400 megapixels, valid"
    screen = struct.pack("<HHBBB", side, side, 0, 0, 0)
    frame = b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x44\x01\x00;"
    yield "giant_gif.gif", b"GIF89a" + screen + frame, False, "400 megapixels declared"
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    yield "giant_bmp.bmp", struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54) + info, False, "400 megapixels declared"
    strips = ((256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, side), (279, side**2))
    yield "giant_tiff.tif", _tiff(strips), False, "400 megapixels declared"
    small = ((256, 96), (257, 64), (258, 8), (259, 5), (262, 1), (277, 1))
    tiles = ((322, 60_000), (323, 60_000), (324, 8), (325, 99))
    yield "giant_tiles.tif", _tiff(small + tiles), False, "a small TIFF that declares a tile of 3,600 megapixels"
    jpeg = bytearray(encoded(photo(), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", side, side)
    yield "giant_jpeg.jpg", bytes(jpeg), False, "400 megapixels declared"
    canvas = b"\0\0\0\0" + 2 * (side - 1).to_bytes(3, "little")
    yield "giant_webp.webp", b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0" + canvas + bytes(10), False, "400 megapixels declared"
    lossless = b"\x2f" + (0x3FFF | 0x3FFF << 14).to_bytes(4, "little")
    yield (
        "giant_webp_lossless.webp",
        b"RIFF\x20\0\0\0WEBPVP8L\x14\0\0\0" + lossless + bytes(15),
        False,
        "268 megapixels declared",
    )
    yield (
        "bomb_in_text.png",
        png_from_chunks(
            (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
            (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000), 9)),
            (b"IDAT", zlib.compress(b"\0\0")),
        ),
        False,
        "text that unpacks to 80 MB",
    )


def _tiff(tags: tuple[tuple[int, int], ...]) -> bytes:
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(400)
