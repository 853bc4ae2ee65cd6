"""Damaged and hostile files: each is read or named with its cause, in little memory and within the limit on pixels."""

import contextlib
import os
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carmask.errors import CarmaskError
from carmask.imaging.decode import UnreadableImage, decode_mask, decode_photo, read_size
from carmask.imaging.image_file import TooManyPixels
from hostile_files import encoded, photo, write_hostile_files


@pytest.fixture(scope="module")
def hostile_files(tmp_path_factory):
    return write_hostile_files(tmp_path_factory.mktemp("hostile"))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_every_hostile_file_is_read_or_named(hostile_files):
    assert len(hostile_files) >= 200
    wrong = []
    for file in hostile_files:
        for decode in (decode_photo, decode_mask, read_size):
            try:
                decode(file.path)
            except UnreadableImage as error:
                # A header can be whole where the pixels are not, so read_size may accept what cannot be decoded.
                if file.readable:
                    wrong.append(f"{file.path.name}: {decode.__name__} refused it: {error}")
                if error.name != str(file.path) or not str(error).startswith(f"{file.path}: {error.cause}; "):
                    wrong.append(f"{file.path.name}: the message names something else: {error}")
                if not isinstance(error, CarmaskError) or not error.cause or "Error" in error.cause:
                    wrong.append(f"{file.path.name}: no cause in plain words: {error}")
            else:
                if not file.readable and decode is not read_size:
                    wrong.append(f"{file.path.name}: {decode.__name__} read it as a picture ({file.note})")
    assert not wrong, "\n".join(wrong)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory as Linux reports it")
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_no_hostile_file_takes_the_memory_that_it_declares(hostile_files):
    for decode in (decode_photo, decode_mask, read_size):
        for file in hostile_files:
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            before_kb = memory_kb("VmRSS")
            with contextlib.suppress(UnreadableImage):
                decode(file.path)
            grown_kb = memory_kb("VmHWM") - before_kb
            # The smallest declared size that is not allowed takes 268 MB, in one byte a pixel.
            assert grown_kb < 100_000, f"{file.path.name}: {decode.__name__} took {grown_kb // 1000} MB"


def memory_kb(key):
    return int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_the_header_gives_the_size_that_is_decoded(hostile_files):
    readable = [file.path for file in hostile_files if file.readable]
    assert len(readable) > 80
    for path in readable:
        photo_read = decode_photo(path)
        assert read_size(path) == photo_read.size_HW == photo_read.image_HWC.shape[:2], path.name
        assert decode_mask(path).soft_HW.shape == photo_read.size_HW, path.name


def test_what_is_wrong_is_told_apart(hostile_files):
    kinds = [
        "empty_jpeg.jpg",
        "impostor_heic.jpg",
        "folder_named_like_a_photo.jpg",
        "dangling_link.jpg",
        "no_such_file.jpg",
    ]
    kinds += [f"impostor_{name}" for name in ("html.jpg", "pdf.jpg", "svg.png", "text.jpg", "zeros.jpg")]
    kinds += ["named_pipe.jpg"] if os.name == "posix" else []
    causes = set()
    for name in kinds:
        path = hostile_files[0].path.parent / name
        with pytest.raises(UnreadableImage) as caught:
            decode_photo(path)
        assert not isinstance(caught.value, TooManyPixels)
        assert caught.value.name == str(path)
        causes.add(caught.value.cause)
    assert len(causes) == len(kinds)
    assert not [cause for cause in causes if re.search(r"Traceback|\w+(Error|Exception)\b|<\w|\b0x|\.py\b", cause)]


@pytest.mark.parametrize(
    ("name", "megapixels"),
    [
        ("giant_png.png", "400.0"),
        ("giant_webp.webp", "400.0"),
        ("giant_webp_lossless.webp", "268.4"),
        ("giant_tiles.tif", "3600.0"),
    ],
)
def test_giants_are_refused_with_their_size(hostile_files, name, megapixels):
    with pytest.raises(TooManyPixels) as caught:
        decode_photo(hostile_files[0].path.parent / name)
    assert megapixels in caught.value.cause


@pytest.mark.parametrize(
    "image_format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM", "TGA"]
)
def test_a_cut_file_is_an_error_and_not_half_a_picture(image_format):
    data = encoded(photo(200, 300), image_format)
    for size in np.linspace(1, int(len(data) * 0.95), 60).astype(int):
        with pytest.raises(UnreadableImage):
            decode_photo(data[:size])


def test_the_error_travels_between_processes():
    error = UnreadableImage("a.jpg", "the file is empty")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (str(copy), copy.name, copy.cause) == (str(error), "a.jpg", "the file is empty")


def test_the_limit_on_pixels_is_the_callers(hostile_files):
    data = encoded(photo(10, 20), "PNG")
    assert decode_photo(data, max_pixels=200).size_HW == (10, 20)
    for read in (decode_photo, decode_mask, read_size):
        with pytest.raises(TooManyPixels):
            read(data, max_pixels=199)
    pillows = Image.MAX_IMAGE_PIXELS
    giant = hostile_files[0].path.parent / "giant_png.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_size(giant, max_pixels=500_000_000) == (20_000, 20_000)
    assert pillows == Image.MAX_IMAGE_PIXELS
