"""HEIC, AVIF, JPEG 2000, PNM, TGA and MPO: turned once, in their colors, and damaged ones named."""

import io
import struct
import time
import tracemalloc
from fractions import Fraction

import av
import cv2
import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, ImageOps

from carmask.imaging.color import display_p3, to_srgb
from carmask.imaging.decode import UnreadableImage, decode_mask, decode_photo, read_size
from hostile_formats import damaged_formats, whole_files
from hostile_parts import encoded, photo

EXIF_ORIENTATION = 0x0112


def smooth(height: int = 60, width: int = 90) -> Image.Image:
    """A picture that lossy codecs keep."""
    y_HW, x_HW = np.mgrid[:height, :width]
    image_HWC = np.stack([x_HW * 255 / width, y_HW * 255 / height, 255 - x_HW * 255 / width], axis=-1)
    return Image.fromarray(image_HWC.astype(np.uint8))


def difference(got: np.ndarray, expected: object) -> float:
    expected = np.asarray(expected).reshape(got.shape)
    return float(np.abs(got.astype(int) - expected.astype(int)).mean())


@pytest.mark.parametrize("suffix", whole_files())
def test_each_format_is_read_as_its_pixels(suffix: str) -> None:
    data = whole_files()[suffix]
    got = decode_photo(data)
    assert got.size_HW == read_size(data) == (64, 96)
    assert difference(got.image_HWC, photo()) < 9
    assert decode_photo(data, channels=1).image_HWC.shape == (64, 96, 1)


@pytest.mark.parametrize("image_format", ["HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_and_exif_that_both_say_the_turn_turn_once(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    stored = smooth()
    stored.info["exif"] = exif.tobytes()  # where pillow-heif looks for it
    data = encoded(stored, image_format, exif=exif.tobytes())
    assert orientation == 1 or b"irot" in data or b"imir" in data
    shown = Image.open(io.BytesIO(encoded(smooth(), "PNG", exif=exif)))
    expected = ImageOps.exif_transpose(shown)
    got = decode_photo(data)
    assert got.size_HW == read_size(data) == (expected.height, expected.width)
    assert difference(got.image_HWC, expected) < 3
    mask = encoded(_mask(stored), image_format, exif=exif.tobytes())
    soft_HW = decode_mask(mask).soft_HW
    assert ((soft_HW > 127) == (np.asarray(expected.convert("L")) > 120)).mean() > 0.98


def _mask(image: Image.Image) -> Image.Image:
    mask = image.convert("L").point(lambda level: 255 * (level > 120)).convert("RGB")
    mask.info["exif"] = image.info["exif"]
    return mask


@pytest.mark.parametrize("image_format", ["HEIF", "AVIF", "JPEG2000", "TGA"])
def test_alpha_is_laid_on_white_and_kept(image_format: str) -> None:
    image = smooth()
    alpha_HW = np.linspace(0, 255, 60 * 90).reshape(60, 90).astype(np.uint8)
    image.putalpha(Image.fromarray(alpha_HW))
    got = decode_photo(encoded(image, image_format))
    expected = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    assert difference(got.image_HWC, expected) < 3
    assert got.alpha_HW is not None
    assert difference(got.alpha_HW, alpha_HW) < 3


def test_a_fourth_byte_that_a_targa_does_not_call_alpha_is_none() -> None:
    image = smooth().convert("RGBA")
    image.putalpha(0)
    data = bytearray(encoded(image, "TGA"))
    data[17] &= 0xF0
    got = decode_photo(bytes(data))
    assert got.alpha_HW is None
    assert difference(got.image_HWC, smooth()) == 0


@pytest.mark.parametrize("descriptor", [0x00, 0x10, 0x20, 0x30])
def test_a_targa_starts_in_the_corner_that_it_says(descriptor: int) -> None:
    pixels_HWC = np.asarray(smooth())
    stored_HWC = pixels_HWC if descriptor & 0x20 else pixels_HWC[::-1]
    stored_HWC = stored_HWC[:, ::-1] if descriptor & 0x10 else stored_HWC
    header = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 90, 60, 24, descriptor)
    assert difference(decode_photo(header + stored_HWC[..., ::-1].tobytes()).image_HWC, pixels_HWC) == 0


@pytest.mark.parametrize("top_bit", [0, 1])
@pytest.mark.parametrize("has_palette", [False, True])
def test_the_highest_bit_of_16_in_a_targa_is_not_transparency(top_bit: int, has_palette: bool) -> None:
    color = np.arange(1 << 15, dtype=np.uint16) if not has_palette else np.arange(256, dtype=np.uint16) * 127
    shown_N3 = np.stack([color >> 10, color >> 5 & 31, color & 31], axis=-1) * 255 // 31
    words = (color | top_bit << 15).tobytes()
    if has_palette:
        header = struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 0, 256, 16, 0, 0, 16, 16, 8, 0x20)
        data, expected_HWC = header + words + bytes(range(256)), shown_N3.reshape(16, 16, 3)
    else:
        header = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 256, 128, 16, 0x21)
        data, expected_HWC = header + words, shown_N3.reshape(128, 256, 3)
    got = decode_photo(data)
    assert got.alpha_HW is None
    assert np.array_equal(got.image_HWC, expected_HWC)


@pytest.mark.parametrize("channels", [1, 3])
def test_floats_take_little_more_memory_than_themselves(channels: int) -> None:
    value_HWC = np.random.default_rng(0).random((1200, 700, channels), dtype=np.float32)
    data = cv2.imencode(".tiff", value_HWC)[1].tobytes()
    tracemalloc.start()
    got_HW3 = decode_photo(data).image_HWC
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Twice the file, of which a decoder needs a copy.
    assert peak_bytes < len(data) + value_HWC.nbytes + 6 * got_HW3[..., 0].size
    assert np.array_equal(got_HW3, np.rint(value_HWC[..., ::-1] * 255).repeat(3 // channels, axis=2))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_tiff_in_which_zero_is_white_is_inverted(dtype: type) -> None:
    ramp_HW = np.linspace(0, 1 if dtype == np.float32 else np.iinfo(dtype).max, 256).astype(dtype).reshape(16, 16)
    data = encoded(Image.fromarray(ramp_HW), "TIFF")
    black_is_zero = struct.pack("<HHIH", 262, 3, 1, 1)  # PhotometricInterpretation
    assert data.count(black_is_zero) == 1
    data = data.replace(black_is_zero, struct.pack("<HHIH", 262, 3, 1, 0))
    assert np.abs(decode_photo(data).image_HWC[..., 0].reshape(-1) - np.arange(255.0, -1, -1)).max() < 1
    assert np.abs(decode_mask(data).soft_HW.reshape(-1) - np.arange(255.0, -1, -1)).max() < 1


@pytest.mark.parametrize("channels", [3, 4])
def test_jpeg_2000_has_16_bits_a_channel(channels: int) -> None:
    # Every level that rounds to white is there.
    deep_HWC = np.random.default_rng(0).integers(0, 1 << 16, (64, 96, channels)).astype(np.uint16)
    deep_HWC[:8, :, :3] = np.arange(65536 - 8 * 96, 65536).reshape(8, 96, 1)
    lossless = (cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000)
    data = cv2.imencode(".jp2", deep_HWC[..., [2, 1, 0, 3][:channels]], lossless)[1].tobytes()
    expected_HWC = np.rint(deep_HWC / 257)
    assert np.array_equal(decode_photo(data, channels=channels).image_HWC, expected_HWC)
    codestream = data[data.index(b"\xff\x4f\xff\x51") :]
    assert np.array_equal(decode_photo(codestream, channels=channels).image_HWC, expected_HWC)


def test_jpeg_2000_has_12_bits_a_channel() -> None:
    deep_3HW = np.random.default_rng(0).integers(0, 1 << 12, (3, 64, 96)).astype(np.uint16)
    deep_3HW[:, :8] = 4095
    encoder = av.CodecContext.create("jpeg2000", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 96, 64, "gbrp12le", Fraction(1)
    encoder.options = {"pred": "dwt53"}  # lossless
    frame = av.VideoFrame(96, 64, "gbrp12le")
    for plane, channel in zip(frame.planes, (1, 2, 0), strict=True):
        plane.update(np.pad(deep_3HW[channel], ((0, 0), (0, plane.line_size // 2 - 96))).tobytes())
    data = b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None)))
    assert np.array_equal(decode_photo(data).image_HWC, np.rint(np.moveaxis(deep_3HW, 0, -1) * (255 / 4095)))


def test_more_than_8_bits_are_scaled() -> None:
    ramp_HW = np.linspace(0, 65535, 60 * 90).reshape(60, 90).astype(np.uint16)
    expected_HW = np.rint(ramp_HW / 257)
    dark = Image.fromarray(ramp_HW // 300)
    for image_format in ("JPEG2000", "PPM"):
        assert (
            difference(decode_photo(encoded(Image.fromarray(ramp_HW), image_format), channels=1).image_HWC, expected_HW)
            < 1
        )
        assert decode_photo(encoded(dark, image_format)).image_HWC.max() == 1, "its white is at 65535"
    deep_HWC = np.asarray(smooth()).astype(np.uint16) * 257
    buffer = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (90, 60), deep_HWC.tobytes()).save(buffer, quality=90)
    assert pillow_heif.open_heif(buffer, convert_hdr_to_8bit=False).info["bit_depth"] == 10
    assert difference(decode_photo(buffer.getvalue()).image_HWC, smooth()) < 3


def test_wide_gamut_is_converted_for_networks_and_kept_for_cut_outs() -> None:
    # A red that sRGB cannot show, and a gray that is the same in both.
    image = Image.fromarray(np.uint8([[(255, 0, 0), (128, 128, 128), (120, 200, 90)]]).repeat(40, 0).repeat(40, 1))
    for image_format in ("HEIF", "AVIF", "JPEG", "JPEG2000"):
        profile = {} if image_format == "JPEG2000" else {"icc_profile": display_p3()}
        data = encoded(image, image_format, quality=95, **profile) if profile else _jp2_with(display_p3(), image)
        got = decode_photo(data)
        assert got.icc_profile == display_p3(), image_format
        srgb_HWC = to_srgb(got.image_HWC, got.icc_profile)
        assert np.abs(srgb_HWC[20, 100] - p3_as_srgb(120, 200, 90)).max() <= 4, image_format
        assert np.abs(srgb_HWC[20, 60].astype(int) - 128).max() <= 3
    plain = decode_photo(encoded(image, "PNG"))
    assert to_srgb(plain.image_HWC, plain.icc_profile) is plain.image_HWC


def p3_as_srgb(*levels: int) -> np.ndarray:
    """The same color in sRGB, with the matrix of CSS Color 4 (linear Display P3 to linear sRGB)."""
    value = np.array(levels) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    linear = (
        np.array(
            [
                (1.2249401762805598, -0.22494017628055996, 0),
                (-0.042056954709688163, 1.0420569547096881, 0),
                (-0.019637554590334432, -0.078636045550631889, 1.0982736001409663),
            ]
        )
        @ linear
    )
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _jp2_with(profile: bytes, image: Image.Image) -> bytes:
    """A JP2 whose header has a profile (ISO/IEC 15444-1, I.5.3.3, method 2) in the place of the number of a space."""
    data = encoded(image, "JPEG2000")
    start, length = data.index(b"colr") - 4, struct.unpack(">I", data[data.index(b"colr") - 4 :][:4])[0]
    box = struct.pack(">I4s3B", 11 + len(profile), b"colr", 2, 0, 0) + profile
    header = data.index(b"jp2h") - 4
    header_length = struct.unpack(">I", data[header : header + 4])[0] + len(box) - length
    data = data[:header] + struct.pack(">I", header_length) + data[header + 4 :]
    return data[:start] + box + data[start + length :]


def test_a_color_space_given_by_its_number_is_display_p3() -> None:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(smooth()).save(buffer, color_primaries=12)
    assert decode_photo(buffer.getvalue()).icc_profile == display_p3()
    avif = encoded(smooth(), "AVIF")
    place = avif.index(b"colrnclx") + 8
    assert decode_photo(avif[:place] + b"\0\x0c" + avif[place + 2 :]).icc_profile == display_p3()
    assert decode_photo(avif).icc_profile is None
    profile = ImageCms.ImageCmsProfile(io.BytesIO(display_p3()))
    assert profile.profile.profile_description == "Display P3"


def test_of_several_pictures_the_main_one_is_read_and_the_rest_is_said() -> None:
    heif = pillow_heif.from_pillow(Image.new("RGB", (80, 40), "blue"))
    heif.add_from_pillow(smooth())
    heif.add_from_pillow(Image.new("RGB", (30, 20), "red"))
    buffer = io.BytesIO()
    heif.save(buffer, primary_index=1)
    got = decode_photo(buffer.getvalue())
    assert got.is_first
    assert difference(got.image_HWC, smooth()) < 3
    animation = encoded(smooth(), "AVIF", save_all=True, append_images=[Image.new("RGB", (90, 60), "blue")])
    assert decode_photo(animation).is_first
    mpo = decode_photo(whole_files()[".mpo"])
    assert difference(mpo.image_HWC, photo(seed=0)) < 9


def test_raw_photos_are_named_and_not_read_as_their_thumbnails() -> None:
    thumbnail = Image.new("RGB", (16, 12))
    raw = [
        encoded(thumbnail, "TIFF", tiffinfo={50706: b"\1\4\0\0"}),  # DNG
        encoded(thumbnail, "TIFF", tiffinfo={254: 1, 330: 400}),  # NEF, ARW
        b"II*\0\x10\0\0\0CR\2\0" + bytes(300),
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(300),
        b"FUJIFILMCCD-RAW 0201" + bytes(300),
    ]
    for data in raw:
        for read in (decode_photo, decode_mask, read_size):
            with pytest.raises(UnreadableImage) as caught:
                read(data)
            assert "RAW" in caught.value.cause
            assert "JPEG" in caught.value.advice


@pytest.mark.parametrize("head", [b"\xff\x0a\xf8\x3e", b"\0\0\0\x0cJXL \r\n\x87\n"], ids=["codestream", "container"])
def test_jpeg_xl_is_named_with_what_converts_it(head: bytes) -> None:
    for read in (decode_photo, decode_mask, read_size):
        with pytest.raises(UnreadableImage) as caught:
            read(head + bytes(300))
        assert "JPEG XL" in caught.value.cause
        assert "djxl" in caught.value.advice


def test_every_damaged_file_is_read_or_named_at_once() -> None:
    files = list(damaged_formats())
    assert len(files) >= 300
    wrong = []
    for name, data, _, note in files:
        started_s = time.process_time()
        try:
            decode_photo(data, name=name)
        except UnreadableImage as error:
            if error.name != name or not error.cause or "Error" in error.cause:
                wrong.append(f"{name}: no cause in plain words: {error}")
        else:
            if note != "flipped":
                wrong.append(f"{name}: was read ({note})")
        if time.process_time() - started_s > 2:
            wrong.append(f"{name}: took over 2 s")
    assert not wrong, "\n".join(wrong)
