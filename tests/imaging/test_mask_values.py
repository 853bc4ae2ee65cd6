"""The one rule by which a mask file becomes a soft mask, for every kind of file it names."""

import re
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from carmask.imaging.decode import UnreadableImage, decode_mask, decode_photo
from hostile_files import encoded, photo

TRUTH_HW = np.hypot(*(np.mgrid[:40, :60] - np.array([20, 30])[:, None, None])) < 14
SOFT_HW = np.asarray(Image.fromarray((TRUTH_HW * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(2)))


def gray_png(value_HW, dtype=np.uint8):
    return encoded(Image.fromarray(np.asarray(value_HW).astype(dtype)), "PNG")


def palette_file(index_HW, colors, image_format):
    index_HW = np.asarray(index_HW).astype(np.uint8)
    image = Image.frombytes("P", index_HW.shape[::-1], index_HW.tobytes())
    image.putpalette([channel for color in colors for channel in color])
    return encoded(image, image_format)


def assert_reads(data, expected_HW, *, odd=False, named=None, **options):
    """named: the value that the rule must name: which one is foreground, or which one is white."""
    reading = decode_mask(data, **options)
    assert reading.soft_HW.dtype == np.uint8
    np.testing.assert_array_equal(reading.soft_HW, expected_HW)
    assert reading.rule.splitlines() == [reading.rule]
    assert named is None or str(named) in re.findall(r"\d+", reading.rule)
    assert (reading.odd is not None) == odd


HARD_HW = (TRUTH_HW * 255).astype(np.uint8)


@pytest.mark.parametrize("value", [1, 2, 128, 200, 255])
@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "GIF"])
def test_two_values_whatever_they_are(value, image_format):
    data = encoded(Image.fromarray((TRUTH_HW * value).astype(np.uint8)), image_format)
    assert_reads(data, HARD_HW, named=value)


@given(value=st.integers(1, 65535))
def test_two_values_of_16_bits(value):
    assert_reads(gray_png(TRUTH_HW * value, np.uint16), HARD_HW)


def test_one_bit():
    assert_reads(encoded(Image.fromarray(TRUTH_HW), "PNG"), HARD_HW)
    assert_reads(encoded(Image.fromarray(TRUTH_HW), "TIFF", compression="group4"), HARD_HW)


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "BMP", "TIFF"])
def test_palettes_are_read_by_their_colors(image_format):
    black, white, red = (0, 0, 0), (255, 255, 255), (128, 0, 0)
    assert_reads(palette_file(TRUTH_HW, [black, white], image_format), HARD_HW, named=255)
    assert_reads(palette_file(TRUTH_HW, [black, red], image_format), HARD_HW, named=128)
    assert_reads(palette_file(~TRUTH_HW, [white, black], image_format), HARD_HW, named=255)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_black_and_white_bmp_of_any_depth(bits):
    # Pillow takes each of these for 1 bit a pixel and would get the last two wrong.
    index_HW = np.array([[0, 1, 1, 0, 1, 0, 0, 1], [1, 1, 0, 0, 0, 0, 1, 1]])
    packed = [
        sum(int(index) << (8 - bits - bit) for bit, index in zip(range(0, 8, bits), chunk, strict=True))
        for chunk in index_HW[::-1].reshape(-1, 8 // bits)
    ]
    rows = np.array(packed, dtype=np.uint8).reshape(2, -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    info = struct.pack("<IiiHHIIiiII", 40, 8, 2, 1, bits, 0, rows.size, 0, 0, 2, 0)
    palette = b"\0\0\0\0\xff\xff\xff\0"
    data = struct.pack("<2sIHHI", b"BM", 62 + rows.size, 0, 0, 62) + info + palette + rows.tobytes()
    assert_reads(data, index_HW * 255)
    np.testing.assert_array_equal(decode_photo(data, channels=1).image_HWC[..., 0], index_HW * 255)


def test_a_palette_of_classes_is_odd_but_a_palette_of_grays_is_soft():
    index_HW = TRUTH_HW.astype(int)
    index_HW[0, :5] = 2
    classes = palette_file(index_HW, [(0, 0, 0), (128, 0, 0), (0, 128, 0)], "PNG")
    assert_reads(classes, ((index_HW > 0) * 255), odd=True)
    assert_reads(classes, HARD_HW, foreground=1)
    grays = [(level, level, level) for level in range(255, -1, -1)]
    assert_reads(palette_file(255 - SOFT_HW.astype(int), grays, "PNG"), SOFT_HW)


@pytest.mark.parametrize("color", [(255, 255, 255), (255, 0, 0), (0, 128, 0), (1, 1, 1)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_largest_channel_of_colors(color, mode):
    rgb_HWC = TRUTH_HW[..., None] * np.array(color)
    data = encoded(Image.fromarray(rgb_HWC.astype(np.uint8)).convert(mode), "PNG")
    assert_reads(data, HARD_HW, named=max(color))


def test_colors_that_share_a_largest_channel_are_odd():
    rgb_HWC = TRUTH_HW[..., None] * np.array([128, 0, 0])
    rgb_HWC[0, :5] = (0, 128, 0)
    assert decode_mask(encoded(Image.fromarray(rgb_HWC.astype(np.uint8)), "PNG")).odd
    red_on_white_HWC = np.where(TRUTH_HW[..., None], [255, 0, 0], 255)
    assert decode_mask(encoded(Image.fromarray(red_on_white_HWC.astype(np.uint8)), "PNG")).odd
    red_on_white = palette_file(TRUTH_HW, [(255, 255, 255), (255, 0, 0)], "PNG")
    assert "--foreground" in decode_mask(red_on_white).odd
    assert_reads(red_on_white, HARD_HW, foreground=1)


def test_soft_masks_keep_their_values():
    assert_reads(gray_png(SOFT_HW), SOFT_HW, named=255)
    assert_reads(encoded(Image.fromarray(SOFT_HW).convert("RGB"), "PNG"), SOFT_HW)
    assert_reads(gray_png(SOFT_HW.astype(int) * 257, np.uint16), SOFT_HW, named=65535)
    floats = Image.fromarray((SOFT_HW / 255).astype(np.float32))
    assert_reads(encoded(floats, "TIFF"), SOFT_HW, named=1)
    # A soft mask is not stretched to its own maximum.
    half = (SOFT_HW // 2).astype(np.uint8)
    assert_reads(gray_png(half), half)


def test_a_jpeg_mask_is_soft_near_its_edges_only():
    reading = decode_mask(encoded(Image.fromarray(HARD_HW), "JPEG", quality=90))
    assert reading.odd is None
    assert set(np.unique(reading.soft_HW)) > {0, 255}, "soft"
    np.testing.assert_array_equal(reading.soft_HW > 127, TRUTH_HW)


def test_an_almost_black_jpeg_is_odd():
    nearly_black = np.zeros((40, 60), dtype=np.uint8)
    nearly_black[:8, :8] = 3
    assert decode_mask(encoded(Image.fromarray(nearly_black), "JPEG", quality=100)).odd
    assert_reads(gray_png(nearly_black), (nearly_black > 0) * 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("color", [0, 255, 90])
def test_alpha_that_carries_the_mask_alone(mode, color):
    for alpha_HW in (HARD_HW, SOFT_HW):
        image = Image.new("L", (60, 40), color).convert("RGB")
        image.putalpha(Image.fromarray(alpha_HW))
        assert_reads(encoded(image.convert(mode), "PNG"), alpha_HW)


def test_a_palette_whose_transparency_alone_carries_the_mask():
    image = Image.frombytes("P", (60, 40), TRUTH_HW.astype(np.uint8).tobytes())
    image.putpalette([0, 0, 0, 0, 0, 0])
    assert_reads(encoded(image, "PNG", transparency=bytes([0, 255])), HARD_HW)


def test_alpha_that_is_the_same_everywhere_says_nothing():
    assert_reads(encoded(Image.new("RGBA", (5, 4), (0, 0, 0, 255)), "PNG"), np.zeros((4, 5)))
    assert_reads(encoded(Image.new("RGBA", (5, 4), (9, 9, 9, 128)), "PNG"), np.full((4, 5), 255))


def test_alpha_is_ignored_where_the_colors_differ():
    image = Image.fromarray(HARD_HW).convert("RGB")
    image.putalpha(Image.fromarray(np.tile(np.arange(60, dtype=np.uint8), (40, 1))))
    assert_reads(encoded(image, "PNG"), HARD_HW, named=255)
    image.putalpha(200)
    assert_reads(encoded(image, "PNG"), HARD_HW, named=255)


@pytest.mark.parametrize(("value", "level"), [(0, 0), (1, 255), (255, 255)])
def test_one_value_alone(value, level):
    assert_reads(gray_png(np.full((4, 5), value)), np.full((4, 5), level))


def class_numbers_HW():
    value_HW = TRUTH_HW.astype(int) * 2
    value_HW[:3] = 1
    return value_HW


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_class_numbers_are_odd_and_chosen_by_foreground(dtype):
    data = gray_png(class_numbers_HW(), dtype)
    reading = decode_mask(data)
    assert "--foreground" in reading.odd
    assert {"0", "1", "2"} <= set(re.findall(r"\d+", reading.odd)), "the values to choose from"
    for value in (0, 1, 2, 3):
        assert_reads(data, (class_numbers_HW() == value) * 255, foreground=value, named=value)


def test_two_values_without_zero_are_odd():
    for values in ((1, 2), (200, 50)):
        assert_reads(gray_png(np.where(TRUTH_HW, *values)), np.where(TRUTH_HW, *values), odd=True)


def test_foreground_compares_the_stored_value():
    index_HW = TRUTH_HW * 3
    colors = [(255, 255, 255), (9, 9, 9), (8, 8, 8), (0, 0, 0)]
    assert_reads(palette_file(index_HW, colors, "PNG"), HARD_HW, foreground=3)
    assert_reads(palette_file(index_HW, colors, "BMP"), HARD_HW, foreground=3)
    assert_reads(gray_png(TRUTH_HW * 40_000, np.uint16), HARD_HW, foreground=40_000)
    rgb_HWC = TRUTH_HW[..., None] * np.array([7, 90, 20])
    assert_reads(encoded(Image.fromarray(rgb_HWC.astype(np.uint8)), "PNG"), HARD_HW, foreground=90)
    assert_reads(encoded(Image.fromarray(TRUTH_HW), "PNG"), HARD_HW, foreground=1)


def test_a_photo_given_as_mask_is_odd():
    assert decode_mask(encoded(photo(200, 300), "JPEG")).odd
    cut_out = photo(200, 300)
    cut_out.putalpha(Image.fromarray(HARD_HW).resize((300, 200)))
    assert decode_mask(encoded(cut_out, "PNG")).odd


def test_the_mask_can_be_written_to():
    for data in (gray_png(HARD_HW), gray_png(SOFT_HW), gray_png(HARD_HW, np.uint16), gray_png(np.zeros((3, 3)))):
        reading = decode_mask(data)
        reading.soft_HW[0, 0] = 9


@given(
    values=st.lists(st.sampled_from([0, 1, 2, 100, 255]), min_size=2, max_size=12),
    deep=st.booleans(),
    foreground=st.sampled_from([None, 1, 255]),
    seed=st.integers(0, 9),
)
def test_ignored_pixels_have_no_say(values, deep, foreground, seed):
    """The known pixels read as if every other one had the value of a known one."""
    ignore = 100
    known_HW = np.array([values]) != ignore
    dtype = np.uint16 if deep else np.uint8
    if not known_HW.any():
        with pytest.raises(UnreadableImage, match="100"):
            decode_mask(gray_png([values], dtype), foreground=foreground, ignore=ignore)
        return
    filled_HW = np.array([values])
    filled_HW[~known_HW] = np.random.default_rng(seed).choice(filled_HW[known_HW])
    wanted = decode_mask(gray_png(filled_HW, dtype), foreground=foreground)
    reading = decode_mask(gray_png([values], dtype), foreground=foreground, ignore=ignore)
    np.testing.assert_array_equal(reading.soft_HW, wanted.soft_HW * known_HW)
    assert reading.odd == wanted.odd
    assert reading.rule.startswith(wanted.rule)
    assert reading.area == pytest.approx(wanted.soft_HW[known_HW].mean() / 255)
    if known_HW.all():
        assert reading.known_HW is None
    else:
        np.testing.assert_array_equal(reading.known_HW, known_HW)


UNKNOWN_HW = np.arange(60) < 7 + np.zeros((40, 1))


@pytest.mark.parametrize(
    "data",
    [
        gray_png(np.where(UNKNOWN_HW, 128, TRUTH_HW * 255)),
        encoded(Image.fromarray(np.where(UNKNOWN_HW, 128, TRUTH_HW * 255).astype(np.uint8)).convert("RGB"), "PNG"),
        palette_file(np.where(UNKNOWN_HW, 128, TRUTH_HW), [(0, 0, 0), (9, 9, 9)] + [(0, 200, 0)] * 200, "PNG"),
        encoded(Image.fromarray(np.where(UNKNOWN_HW, 128, TRUTH_HW).astype(np.float32)), "TIFF"),
    ],
    ids=["gray", "color", "palette", "float"],
)
def test_the_ignored_value_is_the_stored_one_in_every_kind_of_file(data):
    assert_reads(data, HARD_HW * ~UNKNOWN_HW, ignore=128)
    np.testing.assert_array_equal(decode_mask(data, ignore=128).known_HW, ~UNKNOWN_HW)


def test_the_foreground_cannot_be_ignored():
    with pytest.raises(UnreadableImage):
        decode_mask(gray_png(np.where(TRUTH_HW, 1, 2)), foreground=1, ignore=1)


def test_ignored_colors_are_no_classes():
    rgb_HWC = TRUTH_HW[..., None] * np.array([200, 0, 0])
    rgb_HWC[:9, :5] = (0, 128, 0)
    rgb_HWC[:3, :5] = (128, 0, 0)
    assert_reads(encoded(Image.fromarray(rgb_HWC.astype(np.uint8)), "PNG"), rgb_HWC[..., 0] // 200 * 255, ignore=128)


def test_known_pixels_are_turned_with_the_mask():
    value_HW = np.where(UNKNOWN_HW, 128, TRUTH_HW * 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(value_HW), "PNG", exif=exif)
    reading = decode_mask(data, ignore=128)
    np.testing.assert_array_equal(reading.soft_HW, np.rot90(HARD_HW * ~UNKNOWN_HW, -1))
    np.testing.assert_array_equal(reading.known_HW, np.rot90(~UNKNOWN_HW, -1))
