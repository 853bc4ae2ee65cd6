"""Damaged and hostile picture files, the same ones every time, for every test that reads folders.

`write_hostile_files(folder)` writes over 300 small files (under 3 MB together) and says of each whether it has to be
readable. All stems differ, so that a folder of them can stand as `images/` beside a folder `masks/`.
"""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

Content = tuple[str, bytes, bool, str]  # file name, bytes, readable, note

_FLIPS_PER_FILE = 12
_CUTS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.92)


@dataclass(frozen=True)
class HostileFile:
    """A path in the folder, whether its content is a readable picture, and what is special about it."""

    path: Path
    readable: bool
    note: str


def write_hostile_files(folder: Path) -> list[HostileFile]:
    """Write all files into `folder`, which is made if need be; returns them sorted by path."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    damaged = (_cuts, _flips, _impostors, _giants)
    unusual = (_odd_shapes, _odd_modes, _turned, _several_frames, _odd_extras, _names)
    for source in damaged + unusual:
        for name, data, readable, note in source():
            path = folder / name
            path.write_bytes(data)
            files.append(HostileFile(path, readable, note))
    (folder / "folder_named_like_a_photo.jpg").mkdir()
    (folder / "dangling_link.jpg").symlink_to("nowhere.jpg")
    (folder / "link_to_itself.png").symlink_to("link_to_itself.png")
    files += [
        HostileFile(folder / "folder_named_like_a_photo.jpg", False, "a folder"),
        HostileFile(folder / "dangling_link.jpg", False, "a link to nothing"),
        HostileFile(folder / "link_to_itself.png", False, "a link to itself"),
    ]
    files += _endless(folder)
    return sorted(files, key=lambda file: file.path)


def _endless(folder: Path) -> Iterator[HostileFile]:
    """What never ends, or never begins, when it is read."""
    if os.name != "posix":
        return
    os.mkfifo(folder / "named_pipe.jpg")
    yield HostileFile(folder / "named_pipe.jpg", False, "a named pipe that nobody writes to")
    (folder / "link_to_device.png").symlink_to("/dev/zero")
    yield HostileFile(folder / "link_to_device.png", False, "a link to a device of endless zeros")


def photo(height: int = 64, width: int = 96, seed: int = 0) -> Image.Image:
    """Return an RGB picture with smooth colours, an edge and noise."""
    y_HW, x_HW = np.mgrid[:height, :width]
    rgb = np.stack([x_HW * 255 / max(width, 1), y_HW * 255 / max(height, 1), 255 * (x_HW > y_HW)], axis=-1)
    noise = np.random.default_rng(seed).normal(0, 12, rgb.shape)
    return Image.fromarray(np.clip(rgb + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    """Return the bytes of `image` in one of Pillow's formats."""
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def png_from_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG of (kind, data) chunks with right lengths and checksums; IEND is added."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (*chunks, (b"IEND", b""))
    )


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
                _plain_pillow_reads(bytes(flipped)),
                f"bit {bit} of byte {place} flipped",
            )


def _plain_pillow_reads(data: bytes) -> bool:
    """Whether Pillow itself reads these bytes, without any code of the project: nobody else can tell after a flip."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")) as image:
            if image.width * image.height > 100_000_000:
                return False
            image.load()
    except Exception:  # noqa: BLE001 - any failure is the answer
        return False
    return True


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
        # Pillow could read these, but they are none of the six formats.
        "portable_pixmap.jpg": encoded(image, "PPM"),
        "icon.png": encoded(image, "ICO"),
        "targa.bmp": encoded(image, "TGA"),
        "paintbrush.gif": encoded(image, "PCX"),
        "postscript.jpg": encoded(image, "EPS"),
    }.items():
        stem, suffix = name.rsplit(".", 1)
        yield f"impostor_{stem}.{suffix}", data, False, "not a picture in one of the six formats"
    for name, image_format in {
        "png_named.jpg": "PNG",
        "jpeg_named.png": "JPEG",
        "gif_named.webp": "GIF",
        "tiff_named.bmp": "TIFF",
        "webp_named.gif": "WEBP",
        "bmp_named.tiff": "BMP",
    }.items():
        yield f"mislabelled_{name}", encoded(image, image_format), True, f"{image_format} under another suffix"


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


def _odd_shapes() -> Iterator[Content]:
    for height, width in ((1, 1), (1, 2), (2, 1), (1, 3000), (3000, 1), (7, 5), (17, 1)):
        for image_format, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("GIF", "gif")):
            name = f"shape_{height}x{width}_{image_format.lower()}.{suffix}"
            yield name, encoded(photo(height, width), image_format), True, f"{width} x {height} pixels"
    for width, height in ((0, 5), (5, 0), (0, 0)):
        header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        data = png_from_chunks((b"IHDR", header), (b"IDAT", zlib.compress(b"")))
        yield f"shape_none_{height}x{width}.png", data, False, f"declares {width} x {height} pixels"


def _odd_modes() -> Iterator[Content]:
    image = photo()
    ramp_HW = np.linspace(0, 65535, 64 * 96).reshape(64, 96)
    alpha = Image.fromarray(np.linspace(0, 255, 64 * 96).reshape(64, 96).astype(np.uint8))
    see_through = image.copy()
    see_through.putalpha(alpha)
    grey = image.convert("L")
    palette = image.quantize(16)
    deep = Image.fromarray(ramp_HW.astype(np.uint16))
    for name, data in {
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "cmyk_tiff.tif": encoded(image.convert("CMYK"), "TIFF"),
        "grey.jpg": encoded(grey, "JPEG"),
        "grey_16_bit.png": encoded(deep, "PNG"),
        "grey_16_bit_tiff.tif": encoded(deep, "TIFF"),
        "grey_16_bit_big_endian.tif": encoded(Image.fromarray(ramp_HW.astype(">u2")), "TIFF"),
        "integers_32_bit.tif": encoded(Image.fromarray(ramp_HW.astype(np.int32)), "TIFF"),
        "floats.tif": encoded(Image.fromarray((ramp_HW / 65535).astype(np.float32)), "TIFF"),
        "floats_not_finite.tif": encoded(Image.fromarray(np.where(ramp_HW > 9, np.nan, np.inf).astype("f4")), "TIFF"),
        "one_bit.png": encoded(image.convert("1"), "PNG"),
        "one_bit_fax.tif": encoded(image.convert("1"), "TIFF", compression="group4"),
        "grey_alpha.png": encoded(see_through.convert("LA"), "PNG"),
        "rgb_alpha.png": encoded(see_through, "PNG"),
        "rgb_alpha_webp.webp": encoded(see_through, "WEBP"),
        "rgb_alpha_tiff.tif": encoded(see_through, "TIFF"),
        "palette.png": encoded(palette, "PNG"),
        "palette_transparent.png": encoded(palette, "PNG", transparency=3),
        "palette_half_transparent.png": encoded(palette, "PNG", transparency=bytes(range(0, 160, 10))),
        "palette_transparent_gif.gif": encoded(palette, "GIF", transparency=2),
        "rgb_transparent_colour.png": encoded(image, "PNG", transparency=(0, 0, 255)),
        "grey_transparent_level.png": encoded(grey, "PNG", transparency=9),
        "ycbcr_tiff.tif": encoded(image.convert("YCbCr"), "TIFF"),
        "jpeg_in_tiff.tif": encoded(image, "TIFF", compression="jpeg"),
        "lossless_webp.webp": encoded(image, "WEBP", lossless=True),
        "subsampled.jpg": encoded(image, "JPEG", subsampling="4:2:0", progressive=True, optimize=True),
    }.items():
        yield f"mode_{name}", data, True, name.rsplit(".", 1)[0].replace("_", " ")


def _turned() -> Iterator[Content]:
    image = photo(40, 100)
    for orientation in (*range(1, 9), 0, 9, 65535):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for image_format, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif")):
            if image_format == "JPEG" or orientation in (3, 6, 8):
                name = f"turned_{orientation}_{image_format.lower()}.{suffix}"
                yield name, encoded(image, image_format, exif=exif), True, f"EXIF orientation {orientation}"


def _several_frames() -> Iterator[Content]:
    first, *others = (photo(seed=seed).quantize(32) for seed in range(4))
    rgb = [photo(seed=seed) for seed in range(3)]
    several = {"save_all": True, "append_images": others}
    yield "frames_gif.gif", encoded(first, "GIF", duration=50, loop=0, **several), True, "animated"
    yield "frames_png.png", encoded(rgb[0], "PNG", save_all=True, append_images=rgb[1:]), True, "animated"
    yield "frames_webp.webp", encoded(rgb[0], "WEBP", save_all=True, append_images=rgb[1:]), True, "animated"
    yield "frames_tiff.tif", encoded(rgb[0], "TIFF", save_all=True, append_images=rgb[1:]), True, "three pages"
    yield "frames_mpo.jpg", encoded(rgb[0], "MPO", save_all=True, append_images=rgb[1:]), True, "multi-picture JPEG"


def _odd_extras() -> Iterator[Content]:
    image = photo()
    jpeg, png = encoded(image, "JPEG"), encoded(image, "PNG")
    yield "extra_corrupt_profile.jpg", encoded(image, "JPEG", icc_profile=b"\1\2\3" * 40), True, "corrupt ICC profile"
    yield "extra_corrupt_profile_png.png", encoded(image, "PNG", icc_profile=b"acsp" * 40), True, "corrupt ICC profile"
    yield "extra_corrupt_exif.jpg", encoded(image, "JPEG", exif=b"Exif\0\0II*\0garbage" * 3), True, "corrupt EXIF"
    yield "extra_looping_exif.jpg", encoded(image, "JPEG", exif=_looping_exif()), True, "EXIF that points to itself"
    yield "extra_trailing_bytes.jpg", jpeg + b"trailing bytes" * 50, True, "bytes behind the end"
    yield "extra_trailing_bytes_png.png", png + bytes(500), True, "bytes behind the end"
    yield "extra_leading_bytes.jpg", b"\n\n" + jpeg, False, "bytes before the start"
    yield "extra_no_scan.jpg", jpeg[: jpeg.index(b"\xff\xda")] + b"\xff\xd9", False, "a JPEG without pixels"
    yield "extra_no_pixels.png", png[: png.index(b"IDAT") - 4], False, "a PNG without pixels"
    yield "extra_wrong_checksum.png", png[:29] + b"\0\0\0\0" + png[33:], False, "wrong checksum of the header"
    yield "extra_text_mode.png", png.replace(b"\r\n", b"\n"), False, "copied as text"
    half = len(jpeg) // 2
    zeroed = jpeg[:half] + bytes(len(jpeg) - half)
    yield "extra_zeros_at_the_end.jpg", zeroed, _plain_pillow_reads(zeroed), "second half is zeros"


def _looping_exif() -> bytes:
    entries = struct.pack("<HHHII", 1, 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + entries


def _names() -> Iterator[Content]:
    data = encoded(photo(), "JPEG")
    for name in (
        "name with  spaces.jpg",
        "name_ünïcödé_車_🚗.jpg",
        "name_percent%20sign.jpg",
        "name_'quotes'_\"double\".jpg",
        "name_[brackets]{braces}.jpg",
        "name_<b>tags<b>&amp;.jpg",
        "name_new\nline.jpg",
        "name.with.many.dots.jpg",
        "-name-with-leading-dash.jpg",
        "name_UPPER.JPG",
        "name_MiXeD.JpEg",
        f"name_{'long' * 50}.jpg",
        "name_$HOME;rm -rf.jpg",
    ):
        yield name, data, True, "an unusual name"
