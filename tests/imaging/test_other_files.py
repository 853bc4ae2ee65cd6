"""TIFFs of numbers that Pillow does not read, endings of JPEGs that are rare, and pointers instead of pictures."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from carmask.data.pairs import find_pairs
from carmask.imaging.decode import UnreadableImage, decode_mask, decode_photo, read_size


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


def test_what_cannot_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "four.tif"), np.zeros((8, 9, 4), np.float32))
    with pytest.raises(UnreadableImage, match=r"4 channels of 32-bit floating-point"):
        decode_photo(tmp_path / "four.tif")


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
