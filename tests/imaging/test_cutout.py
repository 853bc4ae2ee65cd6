"""Cut-outs: what is kept, what is taken out along the edge, and where alpha runs."""

import io
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from carmask.imaging.background import parse_background
from carmask.imaging.cutout import cut_out
from carmask.imaging.decode import decode_mask, decode_photo

SIZE_HW = (160, 220)
NOTHING = parse_background("transparent")
rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]].astype(np.float32)
# A disc: its distance from the edge in pixels, positive inside.
INSIDE_PX = 50 - np.hypot(rows - 80, columns - 110)
VEHICLE_HW3 = np.stack([30 + columns / 4, 40 + rows / 4, 110 + 0 * rows], axis=2)
BEHIND_HW3 = np.stack([200 + 20 * np.sin(columns / 9), 210 + 15 * np.cos(rows / 7), 190 + 0 * rows], axis=2)


def ramp(width_px, shift_px=0.0):
    return np.clip(0.5 + (INSIDE_PX + shift_px) / width_px, 0, 1).astype(np.float32)


def over(front_HW3, alpha_HW, behind):
    return front_HW3 * alpha_HW[..., None] + np.asarray(behind, dtype=np.float32) * (1 - alpha_HW[..., None])


# A photo of the disc, its edge 2 px wide, and a network's wider and misplaced idea of it.
PHOTO_HW3 = np.rint(over(VEHICLE_HW3, ramp(2), BEHIND_HW3)).astype(np.uint8)
PROBABILITY_HW = ramp(12, shift_px=1.5)


def noise(seed, size_HW, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (*size_HW, channels), dtype=np.uint8)


def test_no_halo_of_the_old_background_is_left():
    got_HW4 = cut_out(PHOTO_HW3, PROBABILITY_HW, NOTHING).astype(np.float32)
    alpha_HW = got_HW4[..., 3] / 255
    edge_HW = (alpha_HW > 0) & (np.abs(INSIDE_PX) < 8)
    for behind in ((0, 0, 0), (255, 255, 255), (0, 160, 0)):
        wanted_HW3 = over(VEHICLE_HW3, alpha_HW, behind)
        error = np.abs(over(got_HW4[..., :3], alpha_HW, behind) - wanted_HW3)[edge_HW].mean()
        with_halo = np.abs(over(PHOTO_HW3, alpha_HW, behind) - wanted_HW3)[edge_HW].mean()
        assert with_halo > 12
        assert error < with_halo / 6


def test_a_known_soft_alpha_is_unmixed():
    # The photo is mixed by the probability itself, as in matting: the vehicle's colors are to be found again.
    probability_HW = ramp(16)
    mixed_HW3 = np.rint(over(VEHICLE_HW3, probability_HW, BEHIND_HW3)).astype(np.uint8)
    got_HW4 = cut_out(mixed_HW3, probability_HW, NOTHING)
    visible_HW = (got_HW4[..., 3] > 10) & (probability_HW < 0.95)
    error = np.abs(got_HW4[..., :3] - VEHICLE_HW3)[visible_HW].mean()
    assert error < 12
    assert np.abs(mixed_HW3 - VEHICLE_HW3)[visible_HW].mean() > 50


def test_a_real_car_on_another_background(carvana):
    path = sorted((carvana / "train").glob("*.jpg"))[70]
    mask_HW = decode_mask(carvana / "train_masks" / f"{path.stem}_mask.gif").mask_HW
    car_HW3 = decode_photo(path).image_HWC.astype(np.float32)
    # Its colors, known everywhere: those of the mask's inside carried outwards.
    inner_HW = cv2.erode(mask_HW.astype(np.uint8), np.ones((7, 7))) > 0
    _, label_HW = cv2.distanceTransformWithLabels(
        (~inner_HW).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colors = np.zeros((label_HW.max() + 1, 3), dtype=np.float32)
    colors[label_HW[inner_HW]] = car_HW3[inner_HW]
    car_HW3 = np.where(inner_HW[..., None], car_HW3, colors[label_HW])
    true_alpha_HW = cv2.GaussianBlur(mask_HW.astype(np.float32), (0, 0), 0.8)
    photo_HW3 = np.rint(over(car_HW3, true_alpha_HW, (60, 190, 80))).astype(np.uint8)
    probability_HW = cv2.GaussianBlur(mask_HW.astype(np.float32), (0, 0), 4)
    for name, behind in (("black", (0, 0, 0)), ("white", (255, 255, 255))):
        wanted_HW3 = over(car_HW3, true_alpha_HW, behind)
        edge_HW = (probability_HW > 0.02) & (probability_HW < 0.98)
        got_HW3 = cut_out(photo_HW3, probability_HW, parse_background(name))
        naive_HW3 = over(photo_HW3, probability_HW, behind)
        error, naive = (np.abs(one_HW3 - wanted_HW3)[edge_HW].mean() for one_HW3 in (got_HW3, naive_HW3))
        assert error < naive / 2


def test_sure_pixels_are_untouched_and_the_rest_is_black():
    got_HW4 = cut_out(PHOTO_HW3, PROBABILITY_HW, NOTHING)
    sure_HW = PROBABILITY_HW >= 0.95
    np.testing.assert_array_equal(got_HW4[sure_HW][:, :3], PHOTO_HW3[sure_HW])
    assert (got_HW4[sure_HW][:, 3] == 255).all()
    invisible_HW = got_HW4[..., 3] == 0
    assert not got_HW4[invisible_HW].any(), "nothing of the background is left"
    assert invisible_HW[PROBABILITY_HW < 0.25].all()


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([0.02, 0.2, 0.5, 0.8, 0.97]),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.sampled_from([1, 3]),
)
def test_alpha_crosses_one_half_at_the_threshold(seed, size_HW, threshold, blur_px, channels):
    image_HWC = noise(seed, size_HW, channels)
    probability_HW = np.random.default_rng(seed).random(size_HW).astype(np.float32)
    if blur_px:
        probability_HW = np.clip(cv2.GaussianBlur(probability_HW, (0, 0), blur_px) * 3 - 1, 0, 1)
    before_HWC = image_HWC.copy()
    got_HW4 = cut_out(image_HWC, probability_HW, NOTHING, threshold=threshold)
    np.testing.assert_array_equal(image_HWC, before_HWC)
    assert got_HW4.shape == (*size_HW, 4)
    assert got_HW4.dtype == np.uint8
    alpha_HW = got_HW4[..., 3]
    assert (alpha_HW[probability_HW > threshold + 0.01] > 127).all()
    assert (alpha_HW[probability_HW < threshold - 0.01] < 128).all()
    assert (alpha_HW[probability_HW == 0] == 0).all()
    assert (alpha_HW[probability_HW == 1] == 255).all()
    by_probability = alpha_HW.reshape(-1)[np.argsort(probability_HW.reshape(-1))].astype(int)
    assert (np.diff(by_probability) >= 0).all(), "never falls as the probability rises"


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_on_a_color_it_is_what_pillow_composes(threshold):
    alone_HW4 = cut_out(PHOTO_HW3, PROBABILITY_HW, NOTHING, threshold=threshold)
    got_HW3 = cut_out(PHOTO_HW3, PROBABILITY_HW, parse_background("#1e90ff"), threshold=threshold)
    ground = Image.new("RGBA", SIZE_HW[::-1], "dodgerblue")
    composed = Image.alpha_composite(ground, Image.fromarray(alone_HW4)).convert("RGB")
    assert np.abs(got_HW3.astype(int) - np.asarray(composed)).max() <= 2
    assert (got_HW3[alone_HW4[..., 3] == 0] == (0x1E, 0x90, 0xFF)).all()


@pytest.mark.parametrize("background", ["transparent", "#010203", "blur"])
def test_a_crop_is_a_part_of_the_whole(background):
    background = parse_background(background)
    whole_HWC = cut_out(PHOTO_HW3, PROBABILITY_HW, background)
    crop_HWC = cut_out(PHOTO_HW3, PROBABILITY_HW, background, crop_px=(28, 60, 131, 140))
    np.testing.assert_array_equal(crop_HWC, whole_HWC[28:131, 60:140])
    assert crop_HWC.flags.c_contiguous


def test_gray_photos():
    gray_HW1 = PHOTO_HW3[..., :1]
    np.testing.assert_array_equal(
        cut_out(gray_HW1, PROBABILITY_HW, NOTHING), cut_out(np.repeat(gray_HW1, 3, axis=2), PROBABILITY_HW, NOTHING)
    )


def test_all_or_nothing():
    none_HW, all_HW = np.zeros(SIZE_HW, dtype=np.float32), np.ones(SIZE_HW, dtype=np.float32)
    assert not cut_out(PHOTO_HW3, none_HW, NOTHING).any()
    assert (cut_out(PHOTO_HW3, none_HW, parse_background("#090807")) == (9, 8, 7)).all()
    np.testing.assert_array_equal(cut_out(PHOTO_HW3, all_HW, parse_background("#090807")), PHOTO_HW3)
    np.testing.assert_array_equal(cut_out(PHOTO_HW3, all_HW, NOTHING)[..., :3], PHOTO_HW3)


@pytest.mark.parametrize("level", [0.4, 0.6])
def test_what_is_unsure_everywhere_keeps_its_colors(level):
    got_HW4 = cut_out(PHOTO_HW3, np.full(SIZE_HW, level, dtype=np.float32), NOTHING)
    np.testing.assert_array_equal(got_HW4[..., :3], PHOTO_HW3)
    assert np.abs(got_HW4[..., 3] - (level * 2 - 0.5) * 255).max() <= 1


@pytest.mark.parametrize("has_alpha", [False, True])
def test_a_soft_edge_takes_little_more_memory_than_a_hard_one(has_alpha):
    """An unsure network makes most of a photo an edge."""
    size_HW = (900, 800)
    image_HW3 = noise(0, size_HW)
    alpha_HW = np.full(size_HW, 128, dtype=np.uint8) if has_alpha else None
    soft_HW = np.full(size_HW, 0.5, dtype=np.float32)
    soft_HW[:100], soft_HW[-100:] = 0, 1
    peaks = []
    for probability_HW in ((soft_HW >= 0.5).astype(np.float32), soft_HW):
        tracemalloc.start()
        cut_out(image_HW3, probability_HW, NOTHING, alpha_HW=alpha_HW)
        peaks.append(tracemalloc.get_traced_memory()[1] / soft_HW.size)
        tracemalloc.stop()
    assert peaks[1] < 34 - 3 - 4, "bytes for each pixel beside those of the photo and its probability"
    assert peaks[1] < peaks[0] + 16


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="fit together"):
        cut_out(PHOTO_HW3, PROBABILITY_HW[1:], NOTHING)
    with pytest.raises(ValueError, match="fit together"):
        cut_out(PHOTO_HW3[..., 0], PROBABILITY_HW, NOTHING)
    for threshold in (0.0, 1.0):
        with pytest.raises(ValueError, match="threshold"):
            cut_out(PHOTO_HW3, PROBABILITY_HW, NOTHING, threshold=threshold)


def swapped_profile() -> bytes:
    """SRGB with the primaries of red and green exchanged: where others see green, a viewer that honors it sees red."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132])
    entries = (profile[132 + 12 * number :][:8] for number in range(count))
    place = {bytes(entry[:4]): int.from_bytes(entry[4:]) + 8 for entry in entries}
    red, green = (slice(place[tag], place[tag] + 12) for tag in (b"rXYZ", b"gXYZ"))
    profile[red], profile[green] = profile[green], profile[red]
    return bytes(profile)


SWAPPED = swapped_profile()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("photo_profile", [None, SRGB, SWAPPED], ids=["none", "sRGB", "swapped"])
@pytest.mark.parametrize("picture_profile", ["color", None, SWAPPED], ids=["color", "picture", "swapped"])
def test_a_viewer_that_honors_profiles_sees_the_colors_of_photo_and_background(
    photo_profile: bytes | None, picture_profile: str | bytes | None, tmp_path: Path
) -> None:
    background = "#e01030"
    seen_rgb = np.array([0xE0, 0x10, 0x30])
    if picture_profile != "color":
        background = str(tmp_path / "background.png")
        Image.new("RGB", (9, 7), "#e01030").save(background, icc_profile=picture_profile)
        seen_rgb = seen_rgb if picture_profile is None else seen_rgb[[1, 0, 2]]
    photo_HW3 = np.full((90, 120, 3), (200, 60, 20), dtype=np.uint8)
    probability_HW = np.zeros((90, 120), dtype=np.float32)
    probability_HW[30:60, 40:80] = 1
    result_HW3 = cut_out(photo_HW3, probability_HW, parse_background(background), icc_profile=photo_profile)
    assert (result_HW3[30:60, 40:80] == photo_HW3[30:60, 40:80]).all()
    if photo_profile is None and picture_profile != SWAPPED:
        assert (result_HW3[0, 0] == (0xE0, 0x10, 0x30)).all()
    viewer = Image.fromarray(result_HW3)
    if photo_profile is not None:
        ImageCms.profileToProfile(viewer, io.BytesIO(photo_profile), ImageCms.createProfile("sRGB"), inPlace=True)
    assert np.abs(np.asarray(viewer)[0, 0].astype(int) - seen_rgb).max() <= 4


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_no_pixel_becomes_more_opaque_than_it_was(mode: str, tmp_path: Path) -> None:
    red_HW4 = np.full((90, 120, 4), (200, 60, 20, 255), dtype=np.uint8)
    red_HW4[:, 60:, 3] = 0 if mode == "P" else np.linspace(255, 0, 60).astype(np.uint8)
    image = Image.fromarray(red_HW4)
    path = tmp_path / "car.png"
    if mode == "RGBA":
        image.save(path)
    else:
        palette = Image.fromarray((red_HW4[..., 3] == 0).astype(np.uint8)).convert("P")
        palette.putpalette([200, 60, 20, 9, 9, 9])
        palette.save(path, transparency=1)
    photo = decode_photo(path)
    assert "transparent" in photo.remark
    whole_HW = np.ones((90, 120), dtype=np.float32)
    got_HW4 = cut_out(photo.image_HWC, whole_HW, NOTHING, alpha_HW=photo.alpha_HW)
    np.testing.assert_array_equal(got_HW4[..., 3], red_HW4[..., 3])
    shown_HW = red_HW4[..., 3] > 60
    assert np.abs(got_HW4[shown_HW][:, :3].astype(int) - red_HW4[shown_HW][:, :3]).max() <= 3
    on_blue_HW3 = cut_out(photo.image_HWC, whole_HW, parse_background("blue"), alpha_HW=photo.alpha_HW)
    expected_HW4 = Image.alpha_composite(Image.new("RGBA", (120, 90), "blue"), Image.fromarray(red_HW4))
    shown_HW = red_HW4[..., 3] != (1 if mode == "RGBA" else 256)
    assert np.abs(on_blue_HW3.astype(int) - np.asarray(expected_HW4)[..., :3])[shown_HW].max() <= 3
