"""Photos: every format, mode and orientation against plain numpy, and real photos."""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from carmask.errors import CarmaskError
from carmask.imaging.decode import UnreadableImage, decode_mask, decode_photo, photo_of_pixels, read_size
from hostile_files import encoded, photo, png_from_chunks

# What EXIF orientation asks a viewer to do, in numpy, from the table of the EXIF standard (CIPA DC-008, tag 0x0112):
# where the stored first row and first column are shown.
SHOWN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def test_path_text_and_bytes_read_the_same(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(photo(), "PNG"))
    expected_HWC = np.asarray(photo())
    for source in (path, str(path), path.read_bytes()):
        np.testing.assert_array_equal(decode_photo(source).image_HWC, expected_HWC)
    with pytest.raises(UnreadableImage, match=r"^image data: "):
        decode_photo(b"nothing")
    with pytest.raises(UnreadableImage, match=r"^upload 7: "):
        decode_photo(b"nothing", name="upload 7")


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(image_format, orientation):
    stored = photo(40, 100)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(image_format, {})
    data = encoded(stored, image_format, exif=exif, **lossless)
    expected_HWC = SHOWN[orientation](np.asarray(stored)).astype(int)
    got = decode_photo(data)
    assert got.size_HW == read_size(data) == expected_HWC.shape[:2]
    assert np.abs(got.image_HWC - expected_HWC).max() <= (6 if image_format == "JPEG" else 0)

    mask_HW = np.asarray(stored.convert("L")) > 120
    mask_data = encoded(Image.fromarray(mask_HW).convert("L"), image_format, exif=exif, **lossless)
    wrong_HW = (decode_mask(mask_data).soft_HW > 127) != SHOWN[orientation](mask_HW)
    assert not wrong_HW.any()


def test_png_orientation_behind_the_pixels():
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels_HW = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    rows = b"".join(b"\0" + row.tobytes() for row in pixels_HW)
    data = png_from_chunks(
        (b"IHDR", struct.pack(">IIBBBBB", 4, 3, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")),
    )
    assert read_size(data) == (4, 3)
    np.testing.assert_array_equal(decode_photo(data, channels=1).image_HWC[..., 0], SHOWN[6](pixels_HW))
    np.testing.assert_array_equal(decode_mask(data).soft_HW, SHOWN[6](pixels_HW))
    opened = photo_of_pixels(Image.open(io.BytesIO(data)), channels=1)
    assert opened.orientation == 6
    np.testing.assert_array_equal(opened.image_HWC[..., 0], SHOWN[6](pixels_HW))


@settings(max_examples=40)
@given(
    height=st.integers(1, 260),
    width=st.integers(1, 260),
    wanted_HW=st.tuples(st.integers(1, 100), st.integers(1, 100)),
    orientation=st.sampled_from([1, 3, 6, 8]),
    progressive=st.booleans(),
)
def test_scaled_decoding_keeps_both_sides(height, width, wanted_HW, orientation, progressive):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(height, width), "JPEG", exif=exif, progressive=progressive)
    scaled, full = decode_photo(data, at_least_HW=wanted_HW), decode_photo(data)
    assert scaled.size_HW == full.size_HW == full.image_HWC.shape[:2]
    for side, wanted, whole in zip(scaled.image_HWC.shape, wanted_HW, full.size_HW, strict=False):
        assert side >= min(wanted, whole)
    assert scaled.image_HWC.shape[0] in {-(-full.size_HW[0] // scale) for scale in (1, 2, 4, 8)}


def test_the_wanted_size_is_that_of_the_photo_as_shown():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photo(80, 400), "JPEG", exif=exif)
    assert decode_photo(data, at_least_HW=(200, 10)).image_HWC.shape == (200, 40, 3)
    assert decode_photo(data, at_least_HW=(10, 80)).image_HWC.shape == (400, 80, 3)


@pytest.mark.parametrize(("wanted", "scale"), [(16, 8), (20, 4), (33, 2), (65, 1), (500, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_scaled_decoding_averages(wanted, scale, channels):
    # Gray, since JPEG's own subsampling of colors would blur the comparison.
    image = photo(128, 256).convert("L")
    scaled_HWC = decode_photo(encoded(image, "JPEG", quality=98), at_least_HW=(wanted, 1), channels=channels).image_HWC
    assert scaled_HWC.shape == (128 // scale, 256 // scale, channels)
    blocks = np.asarray(image).reshape(128 // scale, scale, 256 // scale, scale)
    assert np.abs(scaled_HWC.mean(axis=2) - blocks.mean(axis=(1, 3))).mean() < 2.5


@pytest.mark.parametrize(
    ("width", "reduced"), [(1918, 959), (1920, 240), (1919, 240), (1917, 959), (957, 479), (955, 239)]
)
def test_scaled_decoding_adds_no_more_than_a_pixel_to_a_side(width, reduced):
    # libjpeg rounds up: 1918 px at an eighth would be 240 columns of 8 px, two more than there are.
    data = encoded(photo(64, width), "JPEG")
    assert decode_photo(data, at_least_HW=(1, 1)).image_HWC.shape[1] == reduced


def test_other_formats_ignore_the_wanted_size():
    assert decode_photo(encoded(photo(), "PNG"), at_least_HW=(8, 8)).image_HWC.shape == (64, 96, 3)


def test_cmyk_is_shown_in_its_colors():
    inks = {"cyan": (255, 0, 0, 0), "magenta": (0, 255, 0, 0), "yellow": (0, 0, 255, 0), "black": (0, 0, 0, 255)}
    shown = {"cyan": (0, 255, 255), "magenta": (255, 0, 255), "yellow": (255, 255, 0), "black": (0, 0, 0)}
    for name, ink in inks.items():
        image = Image.new("CMYK", (16, 16), ink)
        for image_format in ("JPEG", "TIFF"):
            data = encoded(image, image_format)
            got = decode_photo(data).image_HWC[8, 8].astype(int)
            assert np.abs(got - shown[name]).max() <= 4, (name, image_format)
            if image_format == "JPEG":
                # Adobe's marker says that the inks are stored inverted; Pillow wrote and read them, OpenCV only reads.
                assert b"Adobe" in data[:200]
                by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)[8, 8].astype(int)
                assert np.abs(got - by_opencv).max() <= 4, name


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("byte_order", ["<u2", ">u2"])
def test_16_bit_gray_is_scaled_and_not_clipped(image_format, byte_order):
    value_HW = np.linspace(0, 65535, 1024).round().reshape(32, 32)
    data = encoded(Image.fromarray(value_HW.astype(byte_order)), image_format)
    for channels in (1, 3):
        got_HWC = decode_photo(data, channels=channels).image_HWC
        np.testing.assert_array_equal(got_HWC, np.rint(value_HW / 257)[..., None].repeat(channels, 2))


def test_12_bit_gray_has_its_own_white():
    first, second = 4095, 1024
    packed = bytes([first >> 4, (first & 15) << 4 | second >> 8, second & 255])
    tags = ((256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8 + 2 + 9 * 12 + 4), (277, 1), (278, 1), (279, 3))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + packed
    assert decode_photo(data, channels=1).image_HWC.ravel().tolist() == [255, round(1024 / 4095 * 255)]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ((0.0, 0.5, 1.0), "f4", (0, 128, 255)),
        ((-1.0, 0.0, 1.0), "f4", (0, 0, 255)),
        ((0.0, 100.0, 255.0), "f4", (0, 100, 255)),
        ((0.0, 25700.0, 65535.0), "f4", (0, 100, 255)),
        ((np.nan, np.inf, 1.0), "f4", (0, 0, 255)),
        ((0, 100, 200), "i4", (0, 100, 200)),
        ((0, 25700, 65535), "i4", (0, 100, 255)),
        ((0, 1_000_000, 2_000_000), "i4", (0, 128, 255)),
    ],
)
def test_32_bit_grays_take_the_smallest_usual_white(values, dtype, expected):
    data = encoded(Image.fromarray(np.array([values], dtype=dtype)), "TIFF")
    assert decode_photo(data, channels=1).image_HWC.ravel().tolist() == list(expected)


@pytest.mark.parametrize(
    ("mode", "image_format"),
    [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "TIFF"), ("LA", "TIFF"), ("RGBA", "WEBP")],
)
def test_alpha_is_flattened_on_white(mode, image_format):
    image = photo()
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1))))
    image = image.convert(mode)
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    rgba_HW4 = np.asarray(image.convert("RGBA")).astype(float)
    share_HW1 = rgba_HW4[..., 3:] / 255
    expected_HWC = rgba_HW4[..., :3] * share_HW1 + 255 * (1 - share_HW1)
    got_HWC = decode_photo(encoded(image, image_format, **options)).image_HWC
    assert np.abs(got_HWC - expected_HWC).max() <= 1


def test_transparent_colors_and_palettes_are_flattened_too():
    white = (255, 255, 255)
    index_HW = np.array([[0, 1, 2]], dtype=np.uint8)
    palette = Image.frombytes("P", (3, 1), index_HW.tobytes())
    palette.putpalette([255, 0, 0, 0, 0, 255, 90, 90, 90])
    shown = [(255, 0, 0), white, (90, 90, 90)]
    for image_format in ("PNG", "GIF"):
        data = encoded(palette, image_format, transparency=1)
        assert decode_photo(data).image_HWC[0].tolist() == [list(color) for color in shown]
    half = encoded(palette, "PNG", transparency=bytes([255, 0, 128]))
    last = np.array([90, 90, 90]) * 128 / 255 + np.array(white) * 127 / 255
    assert np.abs(decode_photo(half).image_HWC[0, 2] - last).max() <= 1
    color = encoded(palette.convert("RGB"), "PNG", transparency=(0, 0, 255))
    assert decode_photo(color).image_HWC[0, 1].tolist() == list(white)
    gray = encoded(Image.fromarray(np.array([[9, 10, 11]], dtype=np.uint8)), "PNG", transparency=10)
    assert decode_photo(gray).image_HWC[0].tolist() == [[9] * 3, list(white), [11] * 3]


def test_channels_asked_for_are_given():
    colors = np.asarray(photo()).astype(float)
    luma_HW = colors @ np.array([0.299, 0.587, 0.114])
    for image_format in ("PNG", "JPEG"):
        quality = {"quality": 100, "subsampling": 0} if image_format == "JPEG" else {}
        gray_HWC = decode_photo(encoded(photo(), image_format, **quality), channels=1).image_HWC
        assert gray_HWC.shape == (64, 96, 1)
        assert np.abs(gray_HWC[..., 0] - luma_HW).max() <= (1 if image_format == "PNG" else 4)
    gray = photo().convert("L")
    np.testing.assert_array_equal(
        decode_photo(encoded(gray, "PNG")).image_HWC, np.asarray(gray)[..., None].repeat(3, 2)
    )
    one_bit = decode_photo(encoded(photo().convert("1"), "PNG"), channels=1).image_HWC
    assert set(np.unique(one_bit)) == {0, 255}
    with pytest.raises(ValueError, match="channels"):
        decode_photo(encoded(gray, "PNG"), channels=2)


def test_pixels_can_be_written_to():
    image_HWC = decode_photo(encoded(photo(), "JPEG")).image_HWC
    image_HWC[0, 0] = 7
    assert image_HWC.flags.c_contiguous


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_the_first_frame_is_taken(image_format):
    frames = [Image.new("RGB", (16, 16), color) for color in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    got_HWC = decode_photo(data).image_HWC.astype(int)
    assert np.abs(got_HWC - (250, 0, 0)).max() <= 5


def test_the_color_profile_is_kept_where_it_fits():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for image_format in ("JPEG", "PNG", "WEBP", "TIFF"):
        data = encoded(photo(), image_format, icc_profile=srgb)
        assert decode_photo(data).icc_profile == srgb, image_format
        assert decode_photo(data, channels=1).icc_profile is None, "a profile of colors does not describe grays"
    assert decode_photo(encoded(photo().convert("CMYK"), "JPEG", icc_profile=srgb)).icc_profile is None
    assert decode_photo(encoded(photo(), "JPEG", icc_profile=srgb[:200])).icc_profile is None, "cut profile"
    assert decode_photo(encoded(photo(), "JPEG", icc_profile=b"\1\2" * 90)).icc_profile is None, "no profile at all"
    assert decode_photo(encoded(photo(), "JPEG")).icc_profile is None


def test_threads_do_not_disturb_each_other():
    sources = [encoded(photo(seed=seed), kind) for seed in range(6) for kind in ("JPEG", "PNG", "WEBP")] + [b"x"]
    expected = [decode_photo(source).image_HWC for source in sources[:-1]]

    def read(number):
        try:
            return decode_photo(sources[number]).image_HWC
        except UnreadableImage:
            return None

    numbers = list(range(len(sources))) * 8
    with ThreadPoolExecutor(4) as pool:
        for number, image_HWC in zip(numbers, pool.map(read, numbers), strict=True):
            if number < len(expected):
                np.testing.assert_array_equal(image_HWC, expected[number])
            else:
                assert image_HWC is None


def test_real_photos(carvana):
    for path in sorted((carvana / "train").glob("*.jpg"))[::250]:
        full, scaled = decode_photo(path), decode_photo(path, at_least_HW=(256, 384))
        reference = Image.open(io.BytesIO(path.read_bytes()))
        np.testing.assert_array_equal(full.image_HWC, np.asarray(reference.convert("RGB")))
        assert full.size_HW == scaled.size_HW == read_size(path) == (1280, 1918)
        assert scaled.image_HWC.shape == (640, 959, 3)
        blocks = full.image_HWC.reshape(640, 2, 959, 2, 3).mean(axis=(1, 3))
        assert np.abs(scaled.image_HWC - blocks).mean() < 2


def test_a_wrong_setting_is_no_fault_of_the_picture(monkeypatch):
    monkeypatch.setenv("CARMASK_MAX_PIXELS", "many")
    with pytest.raises(CarmaskError) as caught:
        read_size(encoded(photo(20, 30), "PNG"))
    assert not isinstance(caught.value, UnreadableImage)
