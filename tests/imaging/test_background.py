"""What cut-outs lie on: read from a text, as large as the photo."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from PIL import Image

from carmask.errors import CarmaskError
from carmask.imaging.background import BackgroundInput, BadBackground, parse_background
from carmask.imaging.decode import UnreadableImage
from carmask.imaging.studio import draw_studio

SIZE_HW = (120, 180)
named_background = partial(parse_background, may_be_picture=False)
rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
IS_VEHICLE = np.hypot(rows - 60, columns - 80) < 35
PROBABILITY_HW = IS_VEHICLE.astype(np.float32)
# A red disc before gray stripes.
STRIPES_HW3 = np.repeat((120 + 100 * (columns // 6 % 2))[..., None], 3, axis=2).astype(np.uint8)
PHOTO_HW3 = np.where(IS_VEHICLE[..., None], np.array([255, 0, 0], dtype=np.uint8), STRIPES_HW3)


def canvas(background, image_HW3=PHOTO_HW3, probability_HW=PROBABILITY_HW):
    return background(BackgroundInput(image_HW3, probability_HW, 0.5))


@pytest.mark.parametrize(
    ("text", "rgb"),
    [
        ("white", (255, 255, 255)),
        ("RebeccaPurple", (0x66, 0x33, 0x99)),
        ("#abc", (0xAA, 0xBB, 0xCC)),
        (" #12ABef ", (0x12, 0xAB, 0xEF)),
    ],
)
def test_colors(text, rgb):
    got_HW3 = canvas(parse_background(text))
    assert got_HW3.shape == (*SIZE_HW, 3)
    assert (got_HW3 == rgb).all()


def test_transparent():
    got_HW4 = canvas(parse_background("Transparent"))
    assert got_HW4.shape == (*SIZE_HW, 4)
    assert got_HW4.dtype == np.uint8
    assert not got_HW4.any()


def test_the_blur_has_nothing_of_the_vehicle():
    got_HW3 = canvas(parse_background("blur")).astype(int)
    assert got_HW3.shape == (*SIZE_HW, 3)
    assert np.abs(got_HW3 - got_HW3[..., :1]).max() <= 1, "no red bleeds into the gray, nor is red left"
    assert got_HW3[30:90, 50:110].min() > 120, "where the vehicle was it is filled, not black"
    assert got_HW3[..., 0].std() < STRIPES_HW3[..., 0].std() / 4, "the stripes are blurred"
    assert abs(got_HW3.mean() - STRIPES_HW3.mean()) < 5


def test_the_blur_of_a_photo_without_background():
    assert canvas(parse_background("blur"), probability_HW=np.ones(SIZE_HW, dtype=np.float32)).shape == (*SIZE_HW, 3)


def test_a_studio_has_no_steps_and_takes_little_more_memory_than_itself():
    height, width = 1500, 1000
    tracemalloc.start()
    studio_HW3 = draw_studio((height, width), 0.8)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert studio_HW3.shape == (height, width, 3)
    # The dither is the same on average in each row.
    assert np.abs(np.diff(studio_HW3.mean(axis=(1, 2)))).max() < 0.6
    assert np.ptp(studio_HW3.mean(axis=(1, 2))) > 20
    assert peak_bytes < 4 * studio_HW3.size


def test_a_picture_covers_the_photo_from_its_middle(tmp_path):
    # Columns that say where they are, in a picture twice as high and three times as wide as it is needed.
    wide_HW3 = np.zeros((240, 540, 3), dtype=np.uint8)
    wide_HW3[..., 0] = np.linspace(0, 255, 540)
    wide_HW3[..., 1] = np.linspace(0, 255, 240)[:, None]
    Image.fromarray(wide_HW3).save(tmp_path / "wide.png")
    background = parse_background(str(tmp_path / "wide.png"))
    (tmp_path / "wide.png").unlink()
    # Halved in size, of 270 columns the middle 180 remain.
    expected_HW3 = wide_HW3.reshape(120, 2, 270, 2, 3).mean(axis=(1, 3))[:, 45:225]
    assert np.abs(canvas(background) - expected_HW3).max() < 1.5


def test_a_picture_is_shown_as_a_viewer_shows_it(tmp_path):
    turned = Image.new("RGB", (10, 20), "white")
    turned.paste("black", (0, 0, 5, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    got_HW3 = canvas(parse_background(str(tmp_path / "turned.png")))
    assert got_HW3[:50].max() < 20
    assert got_HW3[70:].min() > 235


def test_small_pictures_are_enlarged_and_sizes_may_change(tmp_path):
    Image.new("RGB", (3, 2), (10, 200, 90)).save(tmp_path / "small.jpg", quality=100)
    background = parse_background(str(tmp_path / "small.jpg"))
    for size_HW in ((50, 40), (7, 300), (50, 40)):
        got_HW3 = canvas(background, np.zeros((*size_HW, 3), dtype=np.uint8), np.zeros(size_HW, dtype=np.float32))
        assert got_HW3.shape == (*size_HW, 3)
        assert np.abs(got_HW3.astype(int) - (10, 200, 90)).max() <= 3


@pytest.mark.parametrize("text", ["transparent", "teal", "blur", "picture"])
def test_one_background_serves_many_threads_and_is_never_changed(tmp_path, text):
    if text == "picture":
        text = str(tmp_path / "picture.png")
        Image.fromarray(PHOTO_HW3[:, ::-1]).save(text)
    background = parse_background(text)
    first_HWC = canvas(background)

    def spoil(_: int) -> bool:
        got_HWC = canvas(background)
        same = np.array_equal(got_HWC, first_HWC)
        got_HWC[:] = 7
        return same

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(spoil, range(16)))


@pytest.mark.parametrize(
    "text", ["whit", "blurr", "", "no/such/picture", "#12", "#zzzzzz", "#ffffff80", "rgb(1,2,3)", "x" * 300]
)
def test_what_is_no_background_is_named(text):
    with pytest.raises(BadBackground) as caught:
        parse_background(text)
    assert repr(text) in str(caught.value)
    assert isinstance(caught.value, CarmaskError)


@pytest.mark.parametrize(("text", "meant"), [("whit", "white"), ("blurr", "blur")])
def test_a_misspelled_background_is_suggested(text, meant):
    for parse in (parse_background, named_background):
        with pytest.raises(BadBackground, match=rf"\b{meant}\?"):
            parse(text)


def test_a_name_from_a_stranger_never_leads_to_a_file(tmp_path):
    Image.fromarray(PHOTO_HW3).save(tmp_path / "picture.png")
    for text in (str(tmp_path / "picture.png"), "file:///etc/passwd", "", "a\0b"):
        with pytest.raises(BadBackground):
            named_background(text)
    for text in (" White ", "blur", "transparent"):
        np.testing.assert_array_equal(canvas(named_background(text)), canvas(parse_background(text)))


def test_files_that_are_no_pictures_are_named(tmp_path):
    (tmp_path / "notes").write_text("no picture")
    for name in ("notes", "missing.jpg"):
        with pytest.raises(UnreadableImage, match=name):
            parse_background(str(tmp_path / name))
