"""Unusual picture files: sizes, color modes, orientations, frames, metadata and names that few photos have."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from hostile_parts import Content, encoded, photo, plain_pillow_reads, png_from_chunks


def unusual_files() -> Iterator[Content]:
    """All of them."""
    for source in (_odd_shapes, _odd_modes, _turned, _several_frames, _odd_extras, _names):
        yield from source()


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
    gray = image.convert("L")
    palette = image.quantize(16)
    deep = Image.fromarray(ramp_HW.astype(np.uint16))
    for name, data in {
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "cmyk_tiff.tif": encoded(image.convert("CMYK"), "TIFF"),
        "gray.jpg": encoded(gray, "JPEG"),
        "gray_16_bit.png": encoded(deep, "PNG"),
        "gray_16_bit_tiff.tif": encoded(deep, "TIFF"),
        "gray_16_bit_big_endian.tif": encoded(Image.fromarray(ramp_HW.astype(">u2")), "TIFF"),
        "integers_32_bit.tif": encoded(Image.fromarray(ramp_HW.astype(np.int32)), "TIFF"),
        "floats.tif": encoded(Image.fromarray((ramp_HW / 65535).astype(np.float32)), "TIFF"),
        "floats_not_finite.tif": encoded(Image.fromarray(np.where(ramp_HW > 9, np.nan, np.inf).astype("f4")), "TIFF"),
        "one_bit.png": encoded(image.convert("1"), "PNG"),
        "one_bit_fax.tif": encoded(image.convert("1"), "TIFF", compression="group4"),
        "gray_alpha.png": encoded(see_through.convert("LA"), "PNG"),
        "rgb_alpha.png": encoded(see_through, "PNG"),
        "rgb_alpha_webp.webp": encoded(see_through, "WEBP"),
        "rgb_alpha_tiff.tif": encoded(see_through, "TIFF"),
        "palette.png": encoded(palette, "PNG"),
        "palette_transparent.png": encoded(palette, "PNG", transparency=3),
        "palette_half_transparent.png": encoded(palette, "PNG", transparency=bytes(range(0, 160, 10))),
        "palette_transparent_gif.gif": encoded(palette, "GIF", transparency=2),
        "rgb_transparent_color.png": encoded(image, "PNG", transparency=(0, 0, 255)),
        "gray_transparent_level.png": encoded(gray, "PNG", transparency=9),
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
    yield "extra_zeros_at_the_end.jpg", zeroed, plain_pillow_reads(zeroed), "second half is zeros"


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
