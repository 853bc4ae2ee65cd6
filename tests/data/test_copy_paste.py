"""Vehicles pasted onto other images, against composites worked out by hand in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from carmask.data.augment import Augmenter, AugmentSettings

SIZE_HW = (64, 96)
ALL_PASTE = AugmentSettings.off().model_copy(update={"copy_paste": 1.0})
COLOR = (0.9, 0.2, 0.4)
SEEDS = range(8)

Arrays = tuple[NDArray[np.float32], NDArray[np.float32]]


def varied(augment: AugmentSettings, image_BCHW: Tensor, soft_B1HW: Tensor, *, seed: int = 0) -> Arrays:
    torch.manual_seed(seed)
    image, soft, _ = Augmenter(augment, channels=image_BCHW.shape[1])(image_BCHW.clone(), soft_B1HW.clone())
    return image.numpy(), soft.numpy()


def noise(batch: int, *, channels: int = 3) -> Tensor:
    return torch.rand(batch, channels, *SIZE_HW, generator=torch.Generator().manual_seed(1))


def disc(radius: float = 18) -> Tensor:
    """1 x 1 x H x W: a disc in the middle with an edge of four pixels from white to black."""
    y_HW, x_HW = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]] + 0.5
    distance_HW = np.hypot(y_HW - SIZE_HW[0] / 2, x_HW - SIZE_HW[1] / 2)
    return torch.from_numpy(np.clip((radius - distance_HW) / 4 + 0.5, 0, 1)).float()[None, None]


def car(
    color: tuple[float, ...] = COLOR, *, soft_11HW: Tensor | None = None, behind: float = 0.7
) -> tuple[Tensor, Tensor]:
    """A vehicle of one color before a background of one level, and its mask."""
    soft_11HW = disc() if soft_11HW is None else soft_11HW
    color_1C11 = torch.tensor(color)[None, :, None, None]
    return color_1C11 * soft_11HW + (1 - soft_11HW) * behind, soft_11HW


def onto_empty(
    image_1CHW: Tensor, soft_11HW: Tensor, empty_1CHW: Tensor, *, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Image C x H x W and mask H x W of an empty background after the vehicle of the other image was laid on it."""
    image_BCHW, soft_B1HW = varied(
        ALL_PASTE, torch.cat((image_1CHW, empty_1CHW)), torch.cat((soft_11HW, soft_11HW * 0)), seed=seed
    )
    # The other image has nothing to take.
    np.testing.assert_array_equal(image_BCHW[0], image_1CHW[0].numpy())
    np.testing.assert_array_equal(soft_B1HW[0], soft_11HW[0].numpy())
    return image_BCHW[1], soft_B1HW[1, 0]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_pasted_vehicle_is_its_color_by_its_mask(channels: int, whole: bool, seed: int) -> None:
    # A vehicle that fills its photo has its borders inside the other one when it is pasted smaller.
    image_1CHW, soft_11HW = car(COLOR[:channels], soft_11HW=torch.ones(1, 1, *SIZE_HW) if whole else None)
    empty_1CHW = noise(1, channels=channels)
    image_CHW, soft_HW = onto_empty(image_1CHW, soft_11HW, empty_1CHW, seed=seed)
    by_hand_CHW = np.array(COLOR[:channels])[:, None, None] * soft_HW + (1 - soft_HW) * empty_1CHW[0].numpy()
    np.testing.assert_allclose(image_CHW, by_hand_CHW, atol=1e-4)
    untouched = soft_HW == 0
    np.testing.assert_array_equal(image_CHW[:, untouched], empty_1CHW[0].numpy()[:, untouched])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_vehicle_of_the_color_of_its_mask_stays_so(seed: int) -> None:
    image_CHW, soft_HW = onto_empty(disc().expand(-1, 3, -1, -1), disc(), torch.zeros(1, 3, *SIZE_HW), seed=seed)
    np.testing.assert_allclose(image_CHW, np.broadcast_to(soft_HW, image_CHW.shape), atol=1e-5)
    assert soft_HW.max() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mask_goes_where_the_vehicle_goes(seed: int) -> None:
    # Its colors are the coordinates in its own photo, so each pixel tells where it has come from.
    y_HW, x_HW = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]].astype(np.float32) + 0.5
    coordinates_1CHW = torch.from_numpy(np.stack((y_HW, x_HW, x_HW)))[None] / 100
    image_CHW, soft_HW = onto_empty(coordinates_1CHW, disc(12), torch.zeros(1, 3, *SIZE_HW), seed=seed)
    inside = soft_HW > 0.9999
    area_ratio = soft_HW.sum() / float(disc(12).sum())
    for axis_HW, coordinate_HW in zip((y_HW, x_HW), image_CHW, strict=False):
        slope, offset = np.polyfit(axis_HW[inside], 100 * coordinate_HW[inside], 1)
        assert slope == pytest.approx(area_ratio**-0.5, rel=2e-3)
        # The mask's middle comes from the middle of the disc.
        middle = (soft_HW * axis_HW).sum() / soft_HW.sum()
        assert slope * middle + offset == pytest.approx(axis_HW.mean(), abs=0.03)


def test_the_edge_keeps_its_width() -> None:
    for seed in SEEDS:
        _, soft_HW = onto_empty(*car(), torch.zeros(1, 3, *SIZE_HW), seed=seed)
        scale = (soft_HW.sum() / float(disc().sum())) ** 0.5
        # Across a soft edge, m (1 - m) sums to a sixth of its width; along the circle that makes 2 pi r w / 6.
        width_px = 6 * (soft_HW * (1 - soft_HW)).sum() / (2 * np.pi * 18 * scale)
        assert width_px == pytest.approx(4 * scale, rel=0.15)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_vehicles_unite(seed: int) -> None:
    colors = (COLOR, (0.1, 0.3, 0.2))
    cars = [car(colors[0]), car(colors[1], soft_11HW=disc(25).roll(20, dims=3), behind=0.5)]
    image_BCHW, soft_B1HW = (torch.cat(tensors) for tensors in zip(*cars, strict=True))
    united_BCHW, united_B1HW = varied(ALL_PASTE, image_BCHW, soft_B1HW, seed=seed)
    for onto in (0, 1):
        # The draws are the same on an empty background, which shows where the vehicle was put.
        emptied_B1HW = soft_B1HW.clone()
        emptied_B1HW[onto] = 0
        alpha_HW = varied(ALL_PASTE, image_BCHW, emptied_B1HW, seed=seed)[1][onto, 0]
        below_HW = soft_B1HW[onto, 0].numpy()
        assert ((alpha_HW > 0) & (alpha_HW < 1) & (below_HW > 0) & (below_HW < 1)).any()
        np.testing.assert_allclose(united_B1HW[onto, 0], 1 - (1 - alpha_HW) * (1 - below_HW), atol=1e-6)
        # Both have been laid on the other as they were before.
        by_hand_CHW = np.array(colors[1 - onto])[:, None, None] * alpha_HW + (1 - alpha_HW) * image_BCHW[onto].numpy()
        np.testing.assert_allclose(united_BCHW[onto], by_hand_CHW, atol=1e-4)


def test_place_and_size_stay_within_bounds() -> None:
    image_1CHW, soft_11HW = car(soft_11HW=disc(8))
    _, pasted_B1HW = varied(
        ALL_PASTE,
        torch.cat((image_1CHW, torch.zeros(80, 3, *SIZE_HW))),
        torch.cat((soft_11HW, torch.zeros(80, 1, *SIZE_HW))),
    )
    y_HW, x_HW = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]] + 0.5
    area_N = pasted_B1HW[1:, 0].sum((1, 2))
    factor_N = (area_N / float(soft_11HW.sum())) ** 0.5
    assert 0.69 < factor_N.min() < 0.75
    assert 1.15 < factor_N.max() < 1.21
    for axis_HW, side, largest in ((y_HW, SIZE_HW[0], 0.1), (x_HW, SIZE_HW[1], 0.2)):
        shift_N = (pasted_B1HW[1:, 0] * axis_HW).sum((1, 2)) / area_N / side - 0.5
        assert -largest - 1e-3 < shift_N.min() < -0.9 * largest
        assert 0.9 * largest < shift_N.max() < largest + 1e-3


def test_a_vehicle_that_fills_its_photo_ends_where_the_photo_ends() -> None:
    image_BCHW, soft_B1HW = torch.full((33, 1, *SIZE_HW), 0.5), torch.zeros(33, 1, *SIZE_HW)
    soft_B1HW[0] = 1
    _, pasted_B1HW = varied(ALL_PASTE, image_BCHW, soft_B1HW)
    covered_N = pasted_B1HW[1:].mean((1, 2, 3))
    assert 0.7**2 - 0.01 < covered_N.min() < 0.6
    # Its old border is as sharp as a pixel.
    between_N = ((pasted_B1HW[1:] > 0) & (pasted_B1HW[1:] < 1)).sum((1, 2, 3))
    assert between_N.max() <= 2 * sum(SIZE_HW) * 1.5


def test_vehicles_come_from_other_images_that_have_one() -> None:
    # Each vehicle's level says whose it is; the last three images have none.
    levels = [0.2, 0.4, 0.6, 0.8]
    cars = [car((level,)) for level in levels]
    image_BCHW = torch.cat([image for image, _ in cars] + [torch.full((3, 1, *SIZE_HW), 0.7)])
    soft_B1HW = torch.cat([soft for _, soft in cars] + [torch.zeros(3, 1, *SIZE_HW)])
    seen: list[set[float]] = [set() for _ in image_BCHW]
    for seed in range(20):
        pasted_BCHW, pasted_B1HW = varied(ALL_PASTE, image_BCHW, soft_B1HW, seed=seed)
        for place, found in enumerate(seen):
            only = (soft_B1HW[place, 0].numpy() == 0) & (pasted_B1HW[place, 0] > 0.5)
            alpha_N = pasted_B1HW[place, 0][only]
            level_N = (pasted_BCHW[place, 0][only] - 0.7 * (1 - alpha_N)) / alpha_N
            found |= set(level_N.round(2).tolist())
    for place, found in enumerate(seen):
        assert sorted(found) == pytest.approx([level for number, level in enumerate(levels) if number != place])


def test_without_another_vehicle_nothing_changes() -> None:
    for image_BCHW, soft_B1HW in ((noise(1), disc()), (noise(4), torch.zeros(4, 1, *SIZE_HW))):
        image, soft = varied(ALL_PASTE, image_BCHW, soft_B1HW)
        np.testing.assert_array_equal(image, image_BCHW.numpy())
        np.testing.assert_array_equal(soft, soft_B1HW.numpy())


def test_images_that_receive_nothing_are_as_without_pasting() -> None:
    share, plain = 0.3, AugmentSettings()
    image_BCHW, soft_B1HW = noise(40), disc(10).expand(40, -1, -1, -1)
    without_BCHW, without_B1HW = varied(plain, image_BCHW, soft_B1HW)
    with_BCHW, with_B1HW = varied(plain.model_copy(update={"copy_paste": share}), image_BCHW, soft_B1HW)
    changed_B = np.any(with_B1HW != without_B1HW, axis=(1, 2, 3))
    np.testing.assert_array_equal(with_BCHW[~changed_B], without_BCHW[~changed_B])
    assert np.any(with_BCHW != without_BCHW, axis=(1, 2, 3))[changed_B].all()
    # Four standard deviations of 40 draws.
    assert abs(changed_B.mean() - share) < 4 * (share * (1 - share) / 40) ** 0.5


def test_a_vehicle_brings_the_light_of_its_own_photo() -> None:
    bright = ALL_PASTE.model_copy(update={"color": 1.0, "brightness": 0.3, "contrast": 0, "saturation": 0, "hue": 0})
    image_BCHW, soft_B1HW = torch.full((2, 3, *SIZE_HW), 0.5), torch.cat((disc(), disc() * 0))
    differences = []
    for seed in SEEDS:
        varied_BCHW, varied_B1HW = varied(bright, image_BCHW, soft_B1HW, seed=seed)
        own, ground = varied_BCHW[0].mean(), varied_BCHW[1, :, 0, 0].mean()
        by_hand_HW = own * varied_B1HW[1, 0] + (1 - varied_B1HW[1, 0]) * ground
        np.testing.assert_allclose(varied_BCHW[1], np.broadcast_to(by_hand_HW, (3, *SIZE_HW)), atol=1e-5)
        differences.append(abs(own - ground))
    assert max(differences) > 0.1


@given(
    seed=st.integers(0, 2**32),
    share=st.floats(0.01, 1),
    channels=st.sampled_from([1, 3]),
    size_HW=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    batch=st.integers(1, 5),
    flat=st.booleans(),
)
@settings(max_examples=30)
def test_whatever_comes_in_stays_in_range_and_masks_only_grow(
    seed: int, share: float, channels: int, size_HW: tuple[int, int], batch: int, flat: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    image_BCHW = torch.rand(batch, channels, *size_HW, generator=generator)
    soft_B1HW = (3 * torch.rand(batch, 1, *size_HW, generator=generator) - 1).clamp(0, 1)
    if flat:
        image_BCHW, soft_B1HW = image_BCHW.round(), soft_B1HW.round()
    pasted = ALL_PASTE.model_copy(update={"copy_paste": share})
    image, soft = varied(pasted, image_BCHW, soft_B1HW, seed=seed)
    for array in (image, soft):
        assert array.dtype == np.float32
        assert 0 <= array.min() <= array.max() <= 1
    assert (soft >= soft_B1HW.numpy()).all()
    for one, again in zip((image, soft), varied(pasted, image_BCHW, soft_B1HW, seed=seed), strict=True):
        np.testing.assert_array_equal(one, again)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_pasted_is_known_and_vehicles_of_partly_known_masks_are_not_pasted(seed: int) -> None:
    image_1CHW, soft_11HW = car()
    image_BCHW = torch.cat((image_1CHW, torch.zeros(1, 3, *SIZE_HW), noise(1)))
    soft_B1HW = torch.cat((soft_11HW, soft_11HW * 0, soft_11HW))
    known_B1HW = torch.ones(3, 1, *SIZE_HW)
    known_B1HW[1:] = 0
    torch.manual_seed(seed)
    image, soft, known = Augmenter(ALL_PASTE, channels=3)(image_BCHW.clone(), soft_B1HW.clone(), known_B1HW.clone())
    assert known is not None
    # Only the first has a whole mask to take; it finds no other, and stays as it is.
    assert torch.equal(image[0], image_BCHW[0])
    for receiver in (1, 2):
        pasted = known[receiver] == 1
        assert pasted.any()
        assert (soft[receiver][pasted] == 1).all()
        color = image[receiver].permute(1, 2, 0)[pasted[0]]
        np.testing.assert_allclose(color.numpy(), np.broadcast_to(COLOR, color.shape), atol=0.02)
