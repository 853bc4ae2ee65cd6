"""Looks: where the vehicle is on a canvas, its shadow, and what of the photo's metadata is kept."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.ExifTags import IFD, Base

from carmask.imaging.background import parse_background
from carmask.imaging.compose import compose
from carmask.imaging.decode import Photo
from carmask.imaging.encode import encode_picture
from carmask.imaging.look import LOOKS, BadLook, Look, load_look
from carmask.imaging.masks import box_of
from carmask.imaging.metadata import read_metadata
from hostile_files import photo

FORMATS = ("png", "webp", "jpg", "avif", "tiff")


def composed(probability_HW, look, image_HW3=None, extent_HW=None):
    image_HW3 = np.full((*probability_HW.shape, 3), 90, dtype=np.uint8) if image_HW3 is None else image_HW3
    box_px = box_of(probability_HW >= 0.5)
    picture = Photo(image_HW3, probability_HW.shape)
    return compose(picture, probability_HW, box_px, look, parse_background(look.background), extent_HW=extent_HW)


def box_on(canvas_HW4):
    return np.array(box_of(canvas_HW4[..., 3] >= 128))


@settings(max_examples=60, deadline=None)
@given(
    box=st.tuples(st.integers(0, 90), st.integers(0, 150), st.integers(8, 90), st.integers(8, 150)),
    size=st.tuples(st.integers(80, 300), st.integers(80, 300)),
    margin=st.sampled_from([("0", 0.0), ("5%", 0.05), ("12px", 12.0), ("7.5%", 0.075)]),
    place=st.sampled_from([{}, {"anchor": "bottom"}, {"anchor": "center"}, {"floor": 0.8}, {"floor": 0.635}]),
)
def test_the_vehicle_is_where_the_look_places_it(box, size, margin, place):
    top, left, tall, wide = box
    probability_HW = np.zeros((180, 300), dtype=np.float32)
    probability_HW[top : top + tall, left : left + wide] = 1
    height, width = size
    text, number = margin
    margin_px = number * min(size) if "%" in text else number
    got = box_on(composed(probability_HW, Look(canvas=f"{width}x{height}", margin=text, **place)))
    base = place["floor"] * height if "floor" in place else height - margin_px
    scale = min((base - margin_px) / tall, (width - 2 * margin_px) / wide)
    if "floor" not in place and place.get("anchor") != "bottom":
        base = height / 2 + scale * tall / 2
    expected = np.array(
        [base - scale * tall, width / 2 - scale * wide / 2, base, width / 2 + scale * wide / 2],
    )
    assert np.abs(got - expected).max() <= 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("threshold", [5e-324, 0.5])
def test_a_photo_of_one_pixel_is_placed(threshold: float) -> None:
    image_HW3, probability_HW = np.full((1, 1, 3), 77, np.uint8), np.full((1, 1), 0.9, np.float32)
    look = Look(canvas="40x30", background="white")
    background = parse_background(look.background)
    placed_HWC = compose(Photo(image_HW3, (1, 1)), probability_HW, (0, 0, 1, 1), look, background, threshold=threshold)
    assert placed_HWC.shape == (30, 40, 3)
    assert (placed_HWC[15, 20] < 128).all()


@pytest.mark.parametrize("shadow", ["none", "soft", "original"])
def test_specks_apart_from_the_vehicle_change_nothing(shadow: str) -> None:
    vehicle_HW = car((241, 402))
    specked_HW = vehicle_HW.copy()
    specked_HW[230:235, 30:35] = 0.9  # below the wheels
    specked_HW[3, 399] = 0.4  # too faint for the mask
    look = Look(canvas="500x333", floor=0.8, background="studio", shadow=shadow)
    assert np.array_equal(composed(specked_HW, look), composed(vehicle_HW, look))
    # Larger ones count only if they are no more beside, above or below it.
    specked_HW[5:40, 3:40] = 1
    assert np.array_equal(composed(specked_HW, look), composed(vehicle_HW, look))
    specked_HW[5:40, 3:55] = 1
    specked_HW[70:90, 3:40] = 1
    assert not np.array_equal(composed(specked_HW, look), composed(vehicle_HW, look))


def test_one_scale_for_all_photos_of_a_car():
    sizes = []
    for tall, wide in ((60, 200), (80, 90)):
        probability_HW = np.zeros((180, 300), dtype=np.float32)
        probability_HW[50 : 50 + tall, 40 : 40 + wide] = 1
        look = Look(canvas="400x300", margin="10%", scale="same-car", floor=0.85)
        top, left, bottom, right = box_on(composed(probability_HW, look, extent_HW=(80, 200)))
        assert abs(bottom - 0.85 * 300) <= 1
        sizes.append(((bottom - top) / tall, (right - left) / wide))
    np.testing.assert_allclose(np.ravel(sizes), (400 - 2 * 30) / 200, atol=0.03)


def car(size_HW=(240, 400)):
    """A body from row 80 to the sill at 170, and two wheels that stand on row 200."""
    y, x = np.mgrid[: size_HW[0], : size_HW[1]]
    body = (y >= 80) & (y < 170) & (x >= 50) & (x < 350)
    wheels = np.minimum(np.hypot(y - 175, x - 110), np.hypot(y - 175, x - 290)) < 25
    return (body | wheels).astype(np.float32)


@pytest.mark.parametrize("canvas", [None, "600x400"])
@pytest.mark.parametrize("shadow", ["contact", "soft"])
def test_a_drawn_shadow_is_below_the_wheels_and_not_above_the_sill(shadow, canvas):
    probability_HW = car()
    look = Look(background="#c8c8c8", shadow=shadow, **({"canvas": canvas} if canvas else {}))
    got_HW3 = composed(probability_HW, look)
    np.testing.assert_array_equal(got_HW3, composed(probability_HW, look))
    alone = look.changed({"background": "transparent"}).model_dump(exclude_unset=True) | {"shadow": "none"}
    alpha_HW = composed(probability_HW, Look(**alone))[..., 3]
    top, left, bottom, right = box_of(alpha_HW >= 128)
    scale = (right - left) / 300
    sill, wheels = round(top + 90 * scale), [round(left + at * scale) for at in (60, 240)]
    darkness_HW = np.where(alpha_HW == 0, 200 - got_HW3.min(axis=2).astype(int), 0)
    for wheel in wheels:
        assert darkness_HW[bottom + 1 : bottom + 4, wheel].min() > 15, "dark where a wheel touches the ground"
    between = (wheels[0] + wheels[1]) // 2
    assert darkness_HW[(sill + bottom) // 2 : bottom - 2, between].min() > 40, "dark below the car"
    assert not darkness_HW[: sill - 6].any()
    assert not darkness_HW[min(len(darkness_HW) - 1, bottom + round(60 * scale)) :].any()
    assert (darkness_HW >= 0).all()


@pytest.mark.parametrize("sill", [184, 185, 186, 187])
def test_the_ground_is_dark_up_to_the_vehicle(sill):
    probability_HW = car()
    probability_HW[150:sill, 50:350] = 1
    light_HW = composed(probability_HW, Look(background="white", shadow="contact")).min(axis=2)
    assert light_HW[sill : sill + 6, 200].max() <= light_HW[sill + 6, 200] + 4


@pytest.mark.parametrize("climb", [0.75, 1.0, 1.5])
def test_the_ground_reaches_a_wheel_farther_away(climb):
    """Seen from above, the far wheel stands `climb` pixels higher for each pixel that it is to the left."""
    y, x = np.mgrid[:400, :400]
    near_x, far_x, near_y, apart = 190, 110, 330, 80
    far_y = near_y - round(climb * apart)
    wheels = np.minimum(np.hypot(y - near_y + 20, x - near_x), np.hypot(y - far_y + 20, x - far_x)) < 20
    sill = near_y - 40 - climb * np.clip(near_x - x, 0, None)
    body = (y > 60) & (y < sill) & (x > 90) & (x < 380)
    probability_HW = (body | wheels).astype(np.float32)
    darkness_HW = 200 - composed(probability_HW, Look(background="#c8c8c8", shadow="contact")).min(axis=2).astype(int)
    darkness_HW[probability_HW > 0] = 0
    middle_x, middle_y = (near_x + far_x) // 2, (near_y + far_y) // 2
    assert darkness_HW[middle_y - 12 : middle_y, middle_x].min() > 40, "dark between the wheels"
    assert darkness_HW[far_y + 1 : far_y + 3, far_x].min() > 15, "dark below the far wheel"
    assert darkness_HW[near_y - 8 :, : far_x + 15].max() < 10, "no shadow far below the far wheel"


def test_the_photos_own_shadow_is_kept():
    probability_HW = car()
    y, x = np.mgrid[:240, :400]
    image_HW3 = np.full((240, 400, 3), 180, dtype=np.uint8)
    in_shadow_HW = (np.abs(y - 202) < 12) & (x >= 60) & (x < 340)
    image_HW3[in_shadow_HW] = 90
    image_HW3[probability_HW > 0] = 30
    got_HW3 = composed(probability_HW, Look(background="white", shadow="original"), image_HW3)
    shadow_HW = in_shadow_HW & (probability_HW == 0) & (y > 203) & (y < 210) & (x > 80) & (x < 320)
    assert 110 < got_HW3[shadow_HW].mean() < 180, "half of the light"
    assert got_HW3[:160][probability_HW[:160] == 0].min() == 255, "nothing above the sill"
    assert got_HW3[230:].min() > 245


def test_what_is_dark_apart_from_a_shadow_is_not_part_of_it():
    y, x = np.mgrid[:240, :400]
    image_HW3 = np.full((240, 400, 3), 180, dtype=np.uint8)
    image_HW3[(y >= 185) & (y < 212) & (x >= 60)] = 90  # up to the photo's border
    image_HW3[(y >= 222) & (x > 150) & (x < 240)] = 60  # in front of the car
    got_HW3 = composed(car(), Look(background="white", shadow="original"), image_HW3)
    assert got_HW3[200, 200].max() < 210
    assert got_HW3[:, -1].min() >= 250
    assert got_HW3[228:].min() >= 250


def test_shadows_on_nothing_are_black_and_partly_opaque():
    got_HW4 = composed(car(), Look(shadow="soft"))
    assert 60 < got_HW4[202, 110, 3] < 255
    assert not got_HW4[202, 110, :3].any()
    assert got_HW4[120, 200].tolist() == [90, 90, 90, 255]
    assert not got_HW4[:60].any()


def test_without_a_vehicle_there_is_only_the_background():
    empty_HW = np.zeros((60, 80), dtype=np.float32)
    for name in LOOKS:
        got_HWC = composed(empty_HW, load_look(name))
        assert got_HWC.shape == ((60, 80, 4) if name == "cutout" else (1200, 1600, 3))


@pytest.mark.parametrize("background", ["studio", "blur"])
def test_backgrounds_fill_the_canvas(background):
    got_HW3 = composed(car(), Look(canvas="300x500", background=background))
    assert got_HW3.shape == (500, 300, 3)
    assert got_HW3.min(axis=2).min() > 60


@pytest.mark.parametrize("picture_format", FORMATS)
def test_harmless_metadata_is_kept_and_nothing_else(picture_format):
    exif = Image.Exif()
    exif[Base.Make], exif[Base.Copyright], exif[Base.Orientation] = "ACME", "© Weiß".encode(), 6
    exif[Base.Artist] = "Jörg".encode("latin-1")
    exif[IFD.GPSInfo] = {1: "N", 2: (50.0, 4.0, 7.0)}
    private = {Base.MakerNote: b"secret note", Base.BodySerialNumber: "SN-12345", Base.CameraOwnerName: "J. Doe"}
    exif[IFD.Exif] = {Base.DateTimeOriginal: "2024:05:06 07:08:09", Base.FocalLengthIn35mmFilm: 35, **private}
    source = io.BytesIO()
    photo(60, 80).save(source, "JPEG", exif=exif, dpi=(300, 300), comment=b"J. Doe")
    assert Image.open(source).getexif().get_ifd(IFD.GPSInfo)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels_HWC = np.array(photo(60, 80))
    data = encode_picture(pixels_HWC, picture_format, profile, metadata=read_metadata(source.getvalue()))
    image = Image.open(io.BytesIO(data))
    image.load()
    got = image.getexif()
    assert image.info["icc_profile"] == profile
    # Pillow reads any bytes as Latin-1.
    assert (got[Base.Make], got[Base.Copyright].encode("latin-1").decode()) == ("ACME", "© Weiß")
    assert got[Base.Artist] == "Jörg"
    assert got.get(Base.Orientation, 1) == 1, "its pixels were turned"
    of_camera = got.get_ifd(IFD.Exif)
    if picture_format != "tiff":
        assert of_camera[Base.DateTimeOriginal] == "2024:05:06 07:08:09"
    assert not of_camera.keys() & private.keys()
    assert not got.get_ifd(IFD.GPSInfo)
    for secret in (b"secret note", b"SN-12345", b"Doe"):
        assert secret not in data
    if picture_format not in ("webp", "avif"):
        np.testing.assert_allclose([float(one) for one in image.info["dpi"]], 300, atol=0.01)
    plain = Image.open(io.BytesIO(encode_picture(pixels_HWC, picture_format)))
    assert not plain.getexif().get(Base.Make)
    assert "dpi" not in plain.info or picture_format == "tiff"


def test_a_lens_whose_name_cannot_be_written_is_left_out():
    exif = Image.Exif()
    exif[IFD.Exif] = {Base.LensModel: "Zurich 50 mm", Base.LensMake: "ACME"}
    source = io.BytesIO()
    photo(60, 80).save(source, "JPEG", exif=exif)
    for name in ("Zürich".encode("latin-1"), "Züric".encode()):
        metadata = read_metadata(source.getvalue().replace(b"Zurich", name))
        data = encode_picture(np.array(photo(60, 80)), "jpg", metadata=metadata)
        assert Image.open(io.BytesIO(data)).getexif().get_ifd(IFD.Exif) == {Base.LensMake: "ACME"}


@pytest.mark.parametrize("picture_format", ["jpg", "avif", "tiff", "webp"])
def test_formats_show_the_picture(picture_format):
    pixels_HWC = np.array(photo(9, 12).resize((160, 120), Image.Resampling.BICUBIC))
    data = encode_picture(pixels_HWC, picture_format)
    assert data == encode_picture(pixels_HWC, picture_format)
    got_HWC = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert np.abs(got_HWC - pixels_HWC).mean() < (1e-9 if picture_format == "tiff" else 6)
    if picture_format != "tiff":
        assert len(encode_picture(pixels_HWC, picture_format, quality=30)) < len(data)
    if picture_format != "jpg":
        cut_HW4 = np.dstack([pixels_HWC, np.where(np.arange(160) < 80, 255, 0)[None].repeat(120, 0).astype(np.uint8)])
        alpha_HW = np.asarray(Image.open(io.BytesIO(encode_picture(cut_HW4, picture_format))))[..., 3]
        assert np.abs(alpha_HW.astype(int) - cut_HW4[..., 3]).max() <= (40 if picture_format == "avif" else 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"margin": "5%"},
        {"canvas": "100x100", "crop": True},
        {"canvas": "100x100", "margin": "50%"},
        {"canvas": "100"},
        {"canvas": "20000x10"},
        {"shadow": "long"},
        {"quality": 0},
        {"colour": "red"},
        {"canvas": "100x100", "floor": 1.5},
    ],
)
def test_what_cannot_be_a_look_is_refused(settings, tmp_path: Path):
    file = tmp_path / "look.yaml"
    file.write_text("".join(f"{name}: {value}\n" for name, value in settings.items()))
    with pytest.raises(BadLook) as caught:
        load_look(file)
    assert str(file) in str(caught.value)
    assert next(reversed(settings)) in str(caught.value), "the setting that is wrong, or contradicts the others"


def test_files_that_are_no_looks_are_refused(tmp_path: Path):
    for text in ("- a\n", "format: [", "just words", "canvas: 2024-13-45"):
        (tmp_path / "look.yaml").write_text(text)
        with pytest.raises(BadLook):
            load_look(tmp_path / "look.yaml")
    for name in ("shwroom", str(tmp_path / "none.yaml"), str(tmp_path)):
        with pytest.raises(BadLook):
            load_look(name)


def test_the_picture_of_a_look_is_beside_its_file(tmp_path: Path):
    photo(60, 80).save(tmp_path / "street.png")
    (tmp_path / "look.yaml").write_text("background: street.png\ncanvas: 80x60\nformat: jpg\n")
    look = load_look(tmp_path / "look.yaml")
    got_HW3 = composed(np.zeros((30, 30), dtype=np.float32), look)
    np.testing.assert_array_equal(got_HW3, np.array(photo(60, 80)))


def test_a_photo_of_one_pixel_is_composed():
    for background in ("white", "transparent"):
        got_HWC = composed(np.ones((1, 1), np.float32), Look(background=background, shadow="contact"))
        assert got_HWC[0, 0, :3].tolist() == [90, 90, 90]
