import colorsys

import numpy as np
import pytest
import torch
from torch import Tensor

from carmask.data.augment import Augmenter, AugmentSettings

ONLY_GEOMETRIC = AugmentSettings(flip=0.5, geometric=1, shift=0.1, scale=0.2, rotate_deg=20, color=0, gray=0)
ONLY_ZOOM = AugmentSettings(flip=0, geometric=0, color=0, gray=0, zoom=3)
ONLY_COLOR = AugmentSettings(flip=0, geometric=0, color=1, gray=0, brightness=0, contrast=0, saturation=0, hue=0)


def varied(settings: AugmentSettings, image_BCHW: Tensor, soft_B1HW: Tensor, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    image_BCHW, soft_B1HW, _ = Augmenter(settings, channels=image_BCHW.shape[1])(image_BCHW.clone(), soft_B1HW.clone())
    return image_BCHW, soft_B1HW


def noise(batch: int = 8, size_HW: tuple[int, int] = (40, 60), *, channels: int = 3) -> Tensor:
    return torch.rand(batch, channels, *size_HW, generator=torch.Generator().manual_seed(1))


def disc(batch: int, size_HW: tuple[int, int], radius: float) -> Tensor:
    """A white disc in the middle, with an edge of four pixels from white to black."""
    y_HW, x_HW = np.mgrid[: size_HW[0], : size_HW[1]] + 0.5
    distance_HW = np.hypot(y_HW - size_HW[0] / 2, x_HW - size_HW[1] / 2)
    soft_HW = np.clip((radius - distance_HW) / 4 + 0.5, 0, 1)
    return torch.from_numpy(soft_HW).float().expand(batch, 1, *size_HW)


def plain(batch: int, rgb: tuple[float, float, float]) -> Tensor:
    return torch.tensor(rgb, dtype=torch.float32)[None, :, None, None].expand(batch, 3, 8, 8).contiguous()


@pytest.mark.parametrize("settings", [ONLY_GEOMETRIC, ONLY_GEOMETRIC.model_copy(update={"geometric": 0.5}), ONLY_ZOOM])
def test_image_and_mask_move_exactly_together(settings: AugmentSettings) -> None:
    soft_B1HW = torch.nn.functional.avg_pool2d(noise(channels=1), 5, stride=1, padding=2)
    image_BCHW, moved_B1HW = varied(settings, soft_B1HW.expand(-1, 3, -1, -1), soft_B1HW)
    assert (moved_B1HW - soft_B1HW).abs().max() > 0.1
    for channel in range(3):
        torch.testing.assert_close(image_BCHW[:, channel : channel + 1], moved_B1HW, atol=1e-6, rtol=0)


def test_soft_masks_stay_soft_and_do_not_shift() -> None:
    settings = ONLY_GEOMETRIC.model_copy(update={"shift": 0.0})
    soft_B1HW = disc(16, (64, 80), 20)
    _, moved_B1HW = varied(settings, soft_B1HW.expand(-1, 3, -1, -1), soft_B1HW)
    for moved_1HW in moved_B1HW:
        between = moved_1HW[(moved_1HW > 0.02) & (moved_1HW < 0.98)]
        assert between.unique().numel() > 20
        # Rotation and scale are about the center of the picture, not about the center of a pixel.
        y_HW, x_HW = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(80) + 0.5, indexing="ij")
        center_yx = [float((axis * moved_1HW[0]).sum() / moved_1HW.sum()) for axis in (y_HW, x_HW)]
        assert center_yx == pytest.approx([32, 40], abs=0.02)
    areas_B = moved_B1HW.sum((1, 2, 3)) / soft_B1HW.sum((1, 2, 3))
    assert areas_B.min() >= 0.8**2 - 0.01
    assert areas_B.max() <= 1.2**2 + 0.01
    assert areas_B.max() - areas_B.min() > 0.2


def test_a_certain_flip_is_a_flip() -> None:
    settings = AugmentSettings(flip=1, geometric=0, color=0, gray=0)
    image_BCHW, soft_B1HW = noise(), noise(channels=1)
    flipped_BCHW, flipped_B1HW = varied(settings, image_BCHW, soft_B1HW)
    torch.testing.assert_close(flipped_BCHW, image_BCHW.flip(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(flipped_B1HW, soft_B1HW.flip(3), atol=1e-6, rtol=0)


def test_each_image_has_its_own_draw() -> None:
    one_1CHW = noise(1)
    image_BCHW, _ = varied(AugmentSettings(), one_1CHW.expand(32, -1, -1, -1), noise(32, channels=1))
    assert image_BCHW.flatten(1).unique(dim=0).shape[0] > 24


def test_borders_are_reflected() -> None:
    soft_B1HW = torch.ones(8, 1, 40, 60)
    image_BCHW, moved_B1HW = varied(ONLY_GEOMETRIC, soft_B1HW.expand(-1, 3, -1, -1) * 0.7, soft_B1HW)
    torch.testing.assert_close(image_BCHW, torch.full_like(image_BCHW, 0.7))
    torch.testing.assert_close(moved_B1HW, soft_B1HW)


def test_the_largest_shift_is_a_share_of_the_side() -> None:
    settings = ONLY_GEOMETRIC.model_copy(update={"shift": 0.1, "scale": 0.0, "rotate_deg": 0.0, "flip": 0.0})
    soft_B1HW = disc(64, (100, 200), 20)
    _, moved_B1HW = varied(settings, soft_B1HW.expand(-1, 3, -1, -1), soft_B1HW)
    y_HW, x_HW = torch.meshgrid(torch.arange(100) + 0.5, torch.arange(200) + 0.5, indexing="ij")
    for axis_HW, center, largest in ((y_HW, 50, 10), (x_HW, 100, 20)):
        shift_B = ((axis_HW * moved_B1HW[:, 0]).sum((1, 2)) / moved_B1HW[:, 0].sum((1, 2)) - center).abs()
        assert largest * 0.8 < shift_B.max() <= largest + 0.01


@pytest.mark.parametrize("channels", [1, 3])
def test_the_seed_decides(channels: int) -> None:
    image_BCHW, soft_B1HW = noise(channels=channels), noise(channels=1)
    first, again, other = (varied(AugmentSettings(), image_BCHW, soft_B1HW, seed=seed) for seed in (7, 7, 8))
    for one, same, different in zip(first, again, other, strict=True):
        assert torch.equal(one, same)
        assert not torch.equal(one, different)


@pytest.mark.parametrize("channels", [1, 3])
def test_off_changes_nothing(channels: int) -> None:
    image_BCHW, soft_B1HW = noise(channels=channels), noise(channels=1)
    same_BCHW, same_B1HW = varied(AugmentSettings.off(), image_BCHW, soft_B1HW)
    assert torch.equal(same_BCHW, image_BCHW)
    assert torch.equal(same_B1HW, soft_B1HW)


@pytest.mark.parametrize("channels", [1, 3])
def test_values_stay_between_0_and_1(channels: int) -> None:
    wild = AugmentSettings(
        flip=1, geometric=1, shift=0.5, scale=0.5, rotate_deg=45, color=1, brightness=1, contrast=1, saturation=1,
        hue=0.5, gray=0.5, copy_paste=1,
    )  # fmt: skip
    image_BCHW, soft_B1HW = varied(wild, noise(channels=channels).round(), noise(channels=1).round())
    for tensor, size in ((image_BCHW, channels), (soft_B1HW, 1)):
        assert tensor.shape == (8, size, 40, 60)
        assert tensor.dtype == torch.float32
        assert tensor.isfinite().all()
        assert (tensor.min(), tensor.max()) == (0, 1)


@pytest.mark.parametrize(("share", "least"), [(0.03, 0.02), (0.2, 0.15), (0.5, 0.4)])
def test_hue_is_counted_in_turns_of_the_circle(share: float, least: float) -> None:
    settings = ONLY_COLOR.model_copy(update={"hue": share})
    image_BCHW, _ = varied(settings, plain(64, (1, 0, 0)), torch.zeros(64, 1, 8, 8))
    turned = np.array([colorsys.rgb_to_hsv(*map(float, image_CHW[:, 0, 0]))[0] for image_CHW in image_BCHW])
    # Red is at 0; half a circle away lies cyan.
    distance = np.minimum(turned, 1 - turned)
    assert least < distance.max() <= share + 1e-3
    assert ((turned > 0.5) & (turned < 1)).any()
    assert ((turned < 0.5) & (turned > 0)).any()


def test_brightness_is_a_share_of_white() -> None:
    settings = ONLY_COLOR.model_copy(update={"brightness": 0.3})
    image_BCHW, _ = varied(settings, plain(64, (0.5, 0.5, 0.5)), torch.zeros(64, 1, 8, 8))
    change_B = image_BCHW[:, 0, 0, 0] - 0.5
    assert change_B.abs().max() <= 0.3 + 1e-6
    assert change_B.max() > 0.2
    assert change_B.min() < -0.2


def test_contrast_changes_differences_by_its_share() -> None:
    settings = ONLY_COLOR.model_copy(update={"contrast": 0.3})
    image_BCHW = torch.cat((plain(64, (0.2, 0.2, 0.2)), plain(64, (0.6, 0.6, 0.6))), dim=3)
    varied_BCHW, _ = varied(settings, image_BCHW, torch.zeros(64, 1, 8, 16))
    factor_B = (varied_BCHW[:, 0, 0, -1] - varied_BCHW[:, 0, 0, 0]) / 0.4
    assert 0.7 - 1e-5 <= factor_B.min() < 0.8
    assert 1.2 < factor_B.max() <= 1.3 + 1e-5


def test_saturation_and_gray_leave_gray_as_it_is() -> None:
    gray_BCHW = plain(32, (0.4, 0.4, 0.4))
    for change in ({"saturation": 0.9}, {"gray": 1.0}):
        image_BCHW, _ = varied(ONLY_COLOR.model_copy(update=change), gray_BCHW, torch.zeros(32, 1, 8, 8))
        torch.testing.assert_close(image_BCHW, gray_BCHW, atol=1e-3, rtol=0)
    colored_BCHW = plain(32, (0.8, 0.3, 0.1))
    image_BCHW, _ = varied(ONLY_COLOR.model_copy(update={"gray": 1.0}), colored_BCHW, torch.zeros(32, 1, 8, 8))
    assert torch.equal(image_BCHW[:, 0], image_BCHW[:, 2])


def test_color_does_not_touch_the_mask() -> None:
    soft_B1HW = noise(channels=1)
    settings = AugmentSettings(flip=0, geometric=0, color=1, gray=1)
    image_BCHW, same_B1HW = varied(settings, noise(), soft_B1HW)
    assert not torch.equal(image_BCHW, noise())
    assert torch.equal(same_B1HW, soft_B1HW)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("settings", [AugmentSettings(copy_paste=0.5), ONLY_GEOMETRIC])
def test_autocast_does_not_reach_in(channels: int, settings: AugmentSettings) -> None:
    image_BCHW, soft_B1HW = noise(channels=channels), noise(channels=1)
    wanted = varied(settings, image_BCHW, soft_B1HW)
    with torch.autocast("cpu", torch.bfloat16):
        got = varied(settings, image_BCHW, soft_B1HW)
    for one, other in zip(wanted, got, strict=True):
        assert other.dtype == torch.float32
        assert torch.equal(one, other)


def test_zoom_magnifies_and_reduces_up_to_its_factor() -> None:
    soft_B1HW = disc(64, (120, 160), 12)
    _, zoomed_B1HW = varied(ONLY_ZOOM, soft_B1HW.expand(-1, 3, -1, -1), soft_B1HW)
    # Reflections repeat the disc where the image is reduced, so its own size is seen in the width of its edge.
    steepness_B = (zoomed_B1HW[..., 1:] - zoomed_B1HW[..., :-1]).abs().amax((1, 2, 3)) * 4
    assert steepness_B.max() == pytest.approx(3, rel=0.2)
    growth_B = zoomed_B1HW.mean((1, 2, 3)) / soft_B1HW.mean()
    assert 5 < growth_B.max() <= 9.1


def test_a_magnified_image_shows_nothing_beyond_its_border() -> None:
    ramp_B1HW = torch.linspace(0, 1, 90).expand(64, 1, 60, 90)
    image_BCHW, _ = varied(ONLY_ZOOM, ramp_B1HW.expand(-1, 3, -1, -1), ramp_B1HW)
    steps = image_BCHW[:, 0, 0, 1:] - image_BCHW[:, 0, 0, :-1]
    magnified = steps.abs().amax(1) < 1 / 90
    assert 16 < magnified.sum() < 48
    assert (steps[magnified] > -1e-6).all()


@pytest.mark.parametrize("settings", [ONLY_GEOMETRIC, ONLY_ZOOM])
def test_a_pixel_mixed_from_unknown_ones_is_unknown(settings: AugmentSettings) -> None:
    unknown_B1HW = disc(32, (60, 80), 14).round()
    # Where nothing is known the mask says 1, so that a known pixel above 0 would show a leak.
    torch.manual_seed(2)
    _, soft_B1HW, known_B1HW = Augmenter(settings, channels=1)(
        noise(32, (60, 80), channels=1), unknown_B1HW.clone(), 1 - unknown_B1HW
    )
    assert known_B1HW is not None
    assert set(known_B1HW.unique().tolist()) == {0.0, 1.0}
    assert soft_B1HW[known_B1HW == 1].max() < 2e-3
    assert known_B1HW.mean() > 0.4


@pytest.mark.parametrize("name", ["dark", "tint", "blur", "noise"])
def test_light_changes_the_image_alone_and_keeps_its_range(name: str) -> None:
    settings = AugmentSettings.off().model_copy(update={name: 0.4})
    image_BCHW, soft_B1HW = noise(16), noise(16, channels=1)
    varied_BCHW, same_B1HW = varied(settings, image_BCHW, soft_B1HW)
    assert torch.equal(same_B1HW, soft_B1HW)
    changed_B = (varied_BCHW - image_BCHW).abs().amax((1, 2, 3)) > 1e-3
    assert changed_B.sum() >= 2
    assert 0 <= varied_BCHW.min() <= varied_BCHW.max() <= 1
    if name == "dark":
        assert not changed_B.all()
        assert (varied_BCHW <= image_BCHW + 1e-6).all()


def test_a_turn_shows_the_whole_image_on_its_side() -> None:
    settings = AugmentSettings.off().model_copy(update={"turn": 1.0})
    image_1CHW = torch.nn.functional.avg_pool2d(noise(1, (60, 90)), 9, stride=1, padding=4)
    image_BCHW, _ = varied(settings, image_1CHW.expand(8, -1, -1, -1), noise(8, (60, 90), channels=1))
    middle_BCHW = image_BCHW[..., 25:65]
    # By Pillow's rules for turned photos: 60 px of height show what were 90 px of width.
    turned = [torch.rot90(image_1CHW, times, (2, 3)) for times in (1, 3)]
    fitted = [torch.nn.functional.interpolate(one, (60, 40), mode="bilinear", antialias=True) for one in turned]
    errors = torch.stack([(middle_BCHW - one).abs().mean((1, 2, 3)) for one in fitted])
    assert (errors.amin(0) < 0.01).all()
    assert set(errors.argmin(0).tolist()) == {0, 1}


def test_wet_ground_mirrors_the_vehicle_and_its_mask_stays() -> None:
    settings = AugmentSettings.off().model_copy(update={"wet": 1.0})
    soft_B1HW = torch.zeros(8, 1, 40, 60)
    soft_B1HW[:, :, 10:20, 20:40] = 1
    image_BCHW = noise(8, (40, 60)) * 0.5 + 0.25
    wet_BCHW, same_B1HW = varied(settings, image_BCHW, soft_B1HW)
    assert torch.equal(same_B1HW, soft_B1HW)
    unchanged = torch.ones(40, 60, dtype=torch.bool)
    unchanged[20:30, 20:40] = False
    assert torch.equal(wet_BCHW[..., unchanged], image_BCHW[..., unchanged])
    ground, mirrored = image_BCHW[:, :, 20:30, 20:40], image_BCHW[:, :, 10:20, 20:40].flip(2)
    strength_B = ((wet_BCHW[:, :, 20:30, 20:40] - ground) / (mirrored - ground)).flatten(1)
    assert (strength_B.amax(1) - strength_B.amin(1) < 1e-2).all()
    assert 0 <= strength_B.min() < strength_B.max() <= 0.61
    # Without a vehicle there is nothing to mirror.
    assert torch.equal(varied(settings, image_BCHW, soft_B1HW * 0)[0], image_BCHW)
