"""Results as files and pictures for people: read back by Pillow, checked pixel by pixel."""

import io
import stat
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from carmask.errors import CarmaskError
from carmask.files import UnwritableFile, write_bytes_atomically
from carmask.imaging.decode import decode_mask, decode_photo
from carmask.imaging.draw import (
    FALSE_NEGATIVE_RGB,
    FALSE_POSITIVE_RGB,
    UNKNOWN_RGB,
    draw_compare,
    draw_error_map,
    draw_overlay,
    hatch_unknown,
    sheet,
)
from carmask.imaging.encode import encode_mask, encode_picture, encode_png, encode_soft
from carmask.imaging.metadata import PictureMetadata
from hostile_files import photo

IMAGE_HWC = np.array(photo(120, 160))
MASK_HW = np.hypot(*(np.mgrid[:120, :160] - np.array([60, 80])[:, None, None])) < 40
SMOOTH_HWC = np.dstack([np.mgrid[:120, :160][1] + 60, np.mgrid[:120, :160][0] + 130, np.full((120, 160), 220)]).astype(
    np.uint8
)
PROBABILITY_HW = np.tile(np.linspace(0, 1, 160, dtype=np.float32), (120, 1))


def read_back(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def bit_depth_and_color_type(data):
    return struct.unpack(">BB", data[24:26])


def test_a_mask_is_a_1_bit_png():
    for mask_HW in (MASK_HW, np.zeros((1, 1), dtype=np.bool_), np.ones((3, 9), dtype=np.bool_), MASK_HW.T):
        data = encode_mask(mask_HW)
        assert bit_depth_and_color_type(data) == (1, 0)
        np.testing.assert_array_equal(np.asarray(read_back(data)), mask_HW)
        np.testing.assert_array_equal(decode_mask(data).soft_HW, mask_HW * 255)


def test_a_soft_mask_is_an_8_bit_png():
    data = encode_soft(PROBABILITY_HW)
    assert bit_depth_and_color_type(data) == (8, 0)
    np.testing.assert_array_equal(np.asarray(read_back(data)), np.rint(PROBABILITY_HW * 255))
    beyond = encode_soft(np.array([[-0.5, 1.5]], dtype=np.float32))
    assert np.asarray(read_back(beyond)).tolist() == [[0, 255]]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_as_png_are_lossless(channels):
    image_HWC = np.concatenate([IMAGE_HWC, np.uint8(255 * MASK_HW)[..., None]], axis=2)[..., -channels:]
    got = read_back(encode_picture(image_HWC, "png"))
    assert got.mode == {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    np.testing.assert_array_equal(np.asarray(got).reshape(image_HWC.shape), image_HWC)


def test_cut_outs_as_webp_have_exact_alpha_and_no_dark_edge():
    cut_HW4 = np.dstack([SMOOTH_HWC, np.rint(255 * PROBABILITY_HW).astype(np.uint8)])
    cut_HW4[cut_HW4[..., 3] < 40] = 0
    got = read_back(encode_picture(cut_HW4, "webp"))
    assert (got.format, got.mode) == ("WEBP", "RGBA")
    got_HW4 = np.asarray(got).astype(int)
    np.testing.assert_array_equal(got_HW4[..., 3], cut_HW4[..., 3])
    visible_HW = cut_HW4[..., 3] > 0
    assert np.abs(got_HW4 - cut_HW4)[visible_HW].max() < 12, "as on the inside, so beside what is black and transparent"


def test_photos_as_webp():
    for image_HWC in (SMOOTH_HWC, SMOOTH_HWC[..., :1]):
        got = read_back(encode_picture(image_HWC, "webp"))
        assert (got.format, got.mode) == ("WEBP", "RGB")
        assert np.abs(np.asarray(got).astype(int) - image_HWC).mean() < 2


@pytest.mark.parametrize("picture_format", ["png", "webp"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_color_profile_is_kept_where_it_fits(picture_format, channels):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    of_grays = srgb[:16] + b"GRAY" + srgb[20:]
    image_HWC = np.dstack([IMAGE_HWC, IMAGE_HWC[..., :1]])[..., :channels]
    for profile, fits in ((srgb, channels > 1), (of_grays, channels == 1 and picture_format == "png")):
        # Real photos have profiles with a tail, which libpng refuses to write.
        for stored in (profile, profile + b"xx"):
            data = encode_picture(image_HWC, picture_format, stored)
            assert read_back(data).info.get("icc_profile") == (stored if fits else None)
            if picture_format == "png":
                np.testing.assert_array_equal(np.asarray(read_back(data)).reshape(image_HWC.shape), image_HWC)
    assert "icc_profile" not in read_back(encode_picture(image_HWC, picture_format)).info
    if channels == 3:
        assert decode_photo(encode_picture(image_HWC, picture_format, srgb)).icc_profile == srgb


def test_a_color_profile_that_no_jpeg_can_hold_is_refused():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # 255 segments of 65,519 bytes.
    largest = srgb.ljust(16_707_345, b"\0")
    assert read_back(encode_picture(IMAGE_HWC, "jpg", largest)).info["icc_profile"] == largest
    with pytest.raises(CarmaskError):
        encode_picture(IMAGE_HWC, "jpg", largest + b"\0")


def test_a_jpeg_is_what_pillow_writes():
    exif = Image.Exif()
    exif[0x010F], exif[0x0132] = "Maker", "2026:07:01 12:00:00"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(150_000)
    for pixels in (photo(61, 83), photo(40, 40).convert("L")):
        pixels_HWC = np.array(pixels).reshape(*pixels.size[::-1], -1)
        for quality, dpi, data, icc in ((90, None, None, None), (35, (300, 72.4), exif.tobytes(), profile)):
            metadata = PictureMetadata(data, None, dpi)
            kept_icc = icc if pixels.mode == "RGB" else None
            stored = {"icc_profile": kept_icc, "exif": data, "dpi": dpi}
            expected = io.BytesIO()
            pixels.save(expected, "JPEG", quality=quality, **{name: value for name, value in stored.items() if value})
            encoded = encode_picture(pixels_HWC, "jpg", icc, quality=quality, metadata=metadata)
            assert encoded == expected.getvalue()


def test_what_is_no_picture_is_refused():
    for image in (IMAGE_HWC[..., 0], IMAGE_HWC[..., :2], IMAGE_HWC.astype(np.float32)):
        with pytest.raises(ValueError, match="an image is uint8"):
            encode_picture(image, "png")


def test_png_round_trip():
    for image_HWC in (IMAGE_HWC, IMAGE_HWC[..., :1], IMAGE_HWC[::2, ::-1]):
        got_HWC = decode_photo(encode_png(image_HWC), channels=image_HWC.shape[2]).image_HWC
        np.testing.assert_array_equal(got_HWC, image_HWC)


def test_the_same_pixels_give_the_same_bytes():
    for encode in (
        lambda: encode_mask(MASK_HW),
        lambda: encode_soft(PROBABILITY_HW),
        lambda: encode_png(IMAGE_HWC),
        lambda: encode_picture(np.dstack([IMAGE_HWC, IMAGE_HWC[..., :1]]), "webp"),
    ):
        first = encode()
        assert first == encode()
        assert b"tIME" not in first
        assert b"tEXt" not in first


def test_the_overlay_changes_the_foreground_and_its_outline_only():
    before_HWC = IMAGE_HWC.copy()
    drawn_HWC = draw_overlay(IMAGE_HWC, MASK_HW)
    np.testing.assert_array_equal(IMAGE_HWC, before_HWC)
    far_HW = np.hypot(*(np.mgrid[:120, :160] - np.array([60, 80])[:, None, None])) > 43
    np.testing.assert_array_equal(drawn_HWC[far_HW], IMAGE_HWC[far_HW])
    inside = drawn_HWC[MASK_HW].astype(int) - IMAGE_HWC[MASK_HW]
    assert inside[:, 2].mean() > 30
    assert inside[:, 0].mean() < -30
    np.testing.assert_array_equal(draw_overlay(IMAGE_HWC, np.zeros_like(MASK_HW)), IMAGE_HWC)


def test_compare_shows_the_photo_above_its_mask():
    drawn_HWC = draw_compare(IMAGE_HWC, MASK_HW)
    np.testing.assert_array_equal(drawn_HWC[:120], IMAGE_HWC)
    np.testing.assert_array_equal(drawn_HWC[-120:], (MASK_HW * 255)[..., None].repeat(3, axis=2))
    assert 240 < len(drawn_HWC) < 250


def test_the_error_map_shows_every_wrong_pixel_in_its_color():
    mask_HW = np.roll(MASK_HW, 7, axis=1)
    drawn_HWC = draw_error_map(IMAGE_HWC, MASK_HW, mask_HW)
    np.testing.assert_array_equal((drawn_HWC == FALSE_POSITIVE_RGB).all(axis=2), mask_HW & ~MASK_HW)
    np.testing.assert_array_equal((drawn_HWC == FALSE_NEGATIVE_RGB).all(axis=2), MASK_HW & ~mask_HW)
    right = drawn_HWC[mask_HW == MASK_HW]
    assert (right == right[:, :1]).all(), "what is right is gray"


def test_gray_photos_can_be_drawn():
    gray_HW1 = IMAGE_HWC[..., :1]
    for drawn_HWC in (
        draw_overlay(gray_HW1, MASK_HW),
        draw_compare(gray_HW1, MASK_HW)[:120],
        draw_error_map(gray_HW1, MASK_HW, MASK_HW),
    ):
        assert drawn_HWC.shape == (120, 160, 3)
        assert drawn_HWC.dtype == np.uint8


@pytest.mark.parametrize("draw", [draw_overlay, draw_compare, lambda i, m: draw_error_map(i, m, m)])
def test_sizes_that_do_not_fit_are_refused(draw):
    with pytest.raises(ValueError, match="mask"):
        draw(IMAGE_HWC, MASK_HW[:-1])
    with pytest.raises(ValueError, match="mask"):
        draw(IMAGE_HWC, MASK_HW.astype(np.uint8))
    with pytest.raises(ValueError, match="image"):
        draw(IMAGE_HWC[..., 0], MASK_HW)


def test_a_sheet_lays_out_all_tiles():
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]
    tiles = [(f"tile {n}", np.full((40 + 10 * n, 80, 3), c, dtype=np.uint8)) for n, c in enumerate(colors)]
    page_HWC = sheet(tiles, columns=2, tile_width_px=160)
    assert page_HWC.dtype == np.uint8
    assert 320 <= page_HWC.shape[1] < 360
    for number, color in enumerate(colors):
        count = int((page_HWC == color).all(axis=2).sum())
        assert count == 160 * 2 * (40 + 10 * number), "scaled to the width, its shape kept, nothing painted over"


def test_labels_are_drawn_and_never_leave_their_tile():
    blank = np.full((30, 200, 3), 255, dtype=np.uint8)
    page_HWC = sheet([("a label that is much too long " * 9, blank), ("", blank)], columns=2, tile_width_px=200)
    ink_W = (page_HWC < 128).all(axis=2).any(axis=0)
    assert ink_W[:210].any()
    assert not ink_W[211:].any()
    assert sheet([("ünïcödé 車 \n", IMAGE_HWC)], columns=4, tile_width_px=100).shape[1] < 130
    gray_HWC = sheet([("gray", IMAGE_HWC[..., :1])], columns=1, tile_width_px=100)
    assert gray_HWC.shape[2] == 3
    bare_HWC = sheet([("", blank), ("", blank)], columns=1, tile_width_px=200)
    assert 2 * 30 < bare_HWC.shape[0] < 2 * 30 + 3 * 15, "without labels, there is no space for them"


def test_an_empty_sheet_is_refused():
    with pytest.raises(ValueError, match="tiles"):
        sheet([], columns=3, tile_width_px=100)


def test_files_are_written_whole(tmp_path):
    path = tmp_path / "new" / "folders" / f"{'x' * 240}.png"
    write_bytes_atomically(path, b"first")
    write_bytes_atomically(str(path), b"second")
    assert path.read_bytes() == b"second"
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing else is left behind"
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "mask.png", tmp_path / "folder", tmp_path / f"{'x' * 300}.png"):
        with pytest.raises(UnwritableFile) as caught:
            write_bytes_atomically(path, b"data")
        assert str(path) in str(caught.value)
        assert isinstance(caught.value, CarmaskError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_what_is_unknown_is_hatched():
    drawn_HWC = hatch_unknown(IMAGE_HWC, ~MASK_HW)
    is_line_HW = (drawn_HWC == UNKNOWN_RGB).all(axis=2)
    np.testing.assert_array_equal(drawn_HWC[~is_line_HW], IMAGE_HWC[~is_line_HW])
    assert not is_line_HW[~MASK_HW].any()
    assert 0.1 < is_line_HW[MASK_HW].mean() < 0.5
    np.testing.assert_array_equal(hatch_unknown(IMAGE_HWC, None), IMAGE_HWC)
    assert hatch_unknown(IMAGE_HWC[..., :1], ~MASK_HW).shape == IMAGE_HWC.shape
