"""TIFFs of numbers that Pillow does not read, endings of JPEGs that are rare, and pointers instead of pictures."""

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from carmask.data.pairs import find_pairs
from carmask.imaging.decode import UnreadableImage, decode_mask, decode_photo, read_size
from carmask.imaging.readers import UnsupportedPixels


@pytest.fixture
def image_HWC():
    return np.random.default_rng(0).integers(0, 256, (31, 47, 3), dtype=np.uint8)


@pytest.mark.parametrize(("dtype", "scale"), [("f4", 1 / 255), ("f8", 1 / 255), ("f4", 1), ("f4", 257), ("u2", 257)])
def test_tiffs_of_deep_colors_are_read(tmp_path: Path, image_HWC, dtype: str, scale: float) -> None:
    path = tmp_path / "colors.tif"
    cv2.imwrite(str(path), (image_HWC[..., ::-1] * np.float64(scale)).astype(dtype))
    assert read_size(path) == (31, 47)
    found_HWC = decode_photo(path).image_HWC
    assert np.abs(found_HWC.astype(int) - image_HWC).max() <= 1
    assert decode_photo(path.read_bytes(), channels=1).image_HWC.shape == (31, 47, 1)


def test_a_mask_of_float_colors_is_read(tmp_path: Path) -> None:
    mask_HW = np.zeros((20, 30), np.float32)
    mask_HW[5:10, 6:20] = 1
    cv2.imwrite(str(tmp_path / "mask.tif"), np.dstack([mask_HW] * 3))
    np.testing.assert_array_equal(decode_mask(tmp_path / "mask.tif").mask_HW, mask_HW > 0)


def test_not_a_number_counts_as_black(tmp_path: Path) -> None:
    value_HWC = np.full((8, 9, 3), 0.5, np.float32)
    value_HWC[0, 0] = np.nan
    cv2.imwrite(str(tmp_path / "nan.tif"), value_HWC)
    found_HWC = decode_photo(tmp_path / "nan.tif").image_HWC
    assert not found_HWC[0, 0].any()
    assert (found_HWC[1:] == 128).all()


def tiff(value_HWC: NDArray[Any], order: str = "<", **tags: int | bytes) -> bytes:
    """An uncompressed TIFF by its specification (TIFF 6.0); more tags as `t274=3`."""
    height, width, channels = value_HWC.shape
    in_planes = tags.get("t284") == 2
    planes = [value_HWC[..., channel] for channel in range(channels)] if in_planes else [value_HWC]
    strips = [plane.astype(value_HWC.dtype.newbyteorder(order)).tobytes() for plane in planes]
    kind = {"u": 1, "f": 3}[value_HWC.dtype.kind]
    found: dict[int, list[int] | bytes] = {256: [width], 257: [height], 258: [8 * value_HWC.itemsize] * channels}
    found |= {259: [1], 262: [1 if channels == 1 else 2], 277: [channels], 278: [height], 339: [kind] * channels}
    found |= {273: [0] * len(strips), 279: [len(strip) for strip in strips]}
    found |= {int(name[1:]): value if isinstance(value, bytes) else [value] for name, value in tags.items()}
    end = 8 + 2 + 12 * len(found) + 4
    entries = behind = b""
    for tag, value in sorted(found.items()):
        if tag == 273:
            # Behind the values of all tags, which take less.
            value = [2000 + sum(map(len, strips[:number])) for number in range(len(strips))]
        data = value if isinstance(value, bytes) else struct.pack(f"{order}{len(value)}I", *value)
        field = data.ljust(4, b"\0")
        if len(data) > 4:
            field, behind = struct.pack(f"{order}I", end + len(behind)), behind + data
        entries += struct.pack(f"{order}HHI", tag, 7 if isinstance(value, bytes) else 4, len(value)) + field
    head = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, len(found))
    return (head + entries + bytes(4) + behind).ljust(2000, b"\0") + b"".join(strips)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("scale", [1, 255, 65535])
def test_grays_of_64_bits_are_read_as_those_of_32(order: str, scale: float) -> None:
    share_HW1 = np.linspace(0, 1, 77).reshape(7, 11, 1)
    read = decode_photo(tiff((share_HW1 * scale).astype("f8"), order)).image_HWC
    assert np.abs(read - share_HW1 * 255).max() <= 0.51
    inverted = decode_photo(tiff((share_HW1 * scale).astype("f8"), order, t262=0)).image_HWC
    assert np.abs(inverted - (1 - share_HW1) * 255).max() <= 0.51
    mask = decode_mask(tiff((share_HW1 > 0.7) * np.float64(scale), order))
    np.testing.assert_array_equal(mask.mask_HW, share_HW1[..., 0] > 0.7)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_highlights_do_not_make_a_photo_of_floats_black(channels: int, dtype: str) -> None:
    value_HWC = np.random.default_rng(0).random((20, 30, channels)).astype(dtype)
    value_HWC[3, 4] = 1.7
    found_HWC = decode_photo(tiff(value_HWC)).image_HWC
    assert np.abs(found_HWC - value_HWC.clip(0, 1) * 255).max() <= 0.51
    value_HWC[3] = 1.7  # a twentieth of all
    assert decode_photo(tiff(value_HWC)).image_HWC.max() == 2


def test_class_numbers_in_floats_are_not_taken_for_highlights() -> None:
    value_HW1 = np.zeros((20, 30, 1), np.float32)
    value_HW1[5:9], value_HW1[12, 3] = 1, 2
    np.testing.assert_array_equal(decode_mask(tiff(value_HW1)).soft_HW, value_HW1[..., 0])


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("extra", "is_alpha", "is_multiplied"), [(0, False, False), (1, True, True), (2, True, False)])
def test_float_colors_with_a_fourth_channel(dtype: str, extra: int, is_alpha: bool, is_multiplied: bool) -> None:
    random = np.random.default_rng(0)
    color_HW3, alpha_HW1 = random.random((9, 13, 3)), random.uniform(0.2, 1, (9, 13, 1))
    alpha_HW1[0, 0] = 1
    stored_HW3 = color_HW3 * alpha_HW1 if is_multiplied else color_HW3
    data = tiff(np.dstack([stored_HW3, alpha_HW1]).astype(dtype), t338=extra)
    found = decode_photo(data)
    on_white_HW3 = color_HW3 * alpha_HW1 + (1 - alpha_HW1) if is_alpha else color_HW3
    assert np.abs(found.image_HWC / 255 - on_white_HW3).max() < 2 / 255
    if is_alpha:
        assert found.alpha_HW is not None
        assert np.abs(found.alpha_HW / 255 - alpha_HW1[..., 0]).max() < 1 / 255
    else:
        assert found.alpha_HW is None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [3, 4])
def test_planes_of_16_bits_are_read_as_interleaved_ones(order: str, channels: int) -> None:
    value_HWC = np.random.default_rng(0).integers(0, 65536, (9, 13, channels), dtype=np.uint16)
    more = {"t338": 2} if channels == 4 else {}
    planes, interleaved = (decode_photo(tiff(value_HWC, order, t284=config, **more)) for config in (2, 1))
    np.testing.assert_array_equal(planes.image_HWC, interleaved.image_HWC)
    if channels == 3:
        assert np.abs(planes.image_HWC - value_HWC / 257).max() <= 1


def test_float_colors_keep_their_profile() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = tiff(np.full((4, 5, 3), 0.5, np.float32), t34675=profile)
    assert decode_photo(data).icc_profile == profile


@pytest.mark.parametrize(
    ("dtype", "channels", "tags"),
    [
        ("f2", 3, {}),
        ("f4", 2, {}),
        ("f4", 3, {"t284": 2}),
        ("f4", 3, {"t274": 6}),
        ("f8", 1, {"t274": 3}),
        ("f4", 4, {"t262": 5}),
        ("u2", 2, {}),
        ("u4", 4, {}),
    ],
)
def test_numbers_that_would_be_read_wrongly_are_refused_by_kind(
    dtype: str, channels: int, tags: dict[str, int]
) -> None:
    value_HWC = np.random.default_rng(0).integers(0, 2, (9, 13, channels)).astype(dtype)
    with pytest.raises(UnreadableImage) as caught:
        decode_photo(tiff(value_HWC, **tags))
    assert isinstance(caught.value.__cause__, UnsupportedPixels), "not called damaged"


def test_a_cut_tiff_of_floats_is_unreadable(tmp_path: Path, image_HWC) -> None:
    cv2.imwrite(str(tmp_path / "whole.tif"), image_HWC.astype("f4") / 255)
    data = (tmp_path / "whole.tif").read_bytes()
    for end in range(8, len(data), len(data) // 20):
        with pytest.raises(UnreadableImage):
            decode_photo(data[:end])


def test_a_tiff_of_floats_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path, image_HWC) -> None:
    cv2.imwrite(str(tmp_path / "large.tif"), image_HWC.astype("f4"))
    with pytest.raises(UnreadableImage):
        decode_photo(tmp_path / "large.tif", max_pixels=1000)


def test_rare_endings_of_jpegs(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for ending in ("jfif", "JPE"):
        Image.new("RGB", (9, 8)).save(tmp_path / f"images/{ending}.{ending}", "JPEG")
        Image.new("1", (9, 8)).save(tmp_path / f"masks/{ending}.png")
    assert {pair.id for pair in find_pairs(tmp_path).pairs} == {"jfif", "JPE"}


@pytest.mark.parametrize(
    "content",
    [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n",
        b"/annex/objects/SHA256E-s12345--4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1.jpg\n",
    ],
)
def test_pointers_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage) as error:
        decode_photo(tmp_path / "a.jpg")
    assert "git lfs pull" in error.value.advice
