import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from carmask.training.config_sections import LossSettings
from carmask.training.losses import border_weights, make_loss, soft_dice

NAMES = ("bce", "dice", "bce+dice", "border")
Array = NDArray[np.float64]


def batch(seed: int, size_HW: tuple[int, int] = (6, 9)) -> tuple[Tensor, Tensor]:
    """Logits and soft masks with zeros, ones and values between."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (3, 1, *size_HW))
    soft = np.clip(rng.uniform(-0.5, 1.5, (3, 1, *size_HW)), 0, 1)
    return torch.from_numpy(logits), torch.from_numpy(soft)


def mean_dice(logits_B1HW: Tensor, soft_B1HW: Tensor) -> float:
    return float(soft_dice(logits_B1HW, soft_B1HW).mean())


def slow_bce(logit: float, soft: float) -> float:
    probability = 1 / (1 + math.exp(-logit))
    return -(soft * math.log(probability) + (1 - soft) * math.log1p(-probability))


def slow_weights(soft_B1HW: Array, weight: float) -> Array:
    """Pixel by pixel: the band is where the mean of the mask around is neither 0 nor 1."""
    _, _, height, width = soft_B1HW.shape
    reach = round(0.04 * max(height, width) / 2)
    weights_B1HW = np.ones_like(soft_B1HW)
    for image, (soft_HW,) in enumerate(soft_B1HW):
        for y in range(height):
            for x in range(width):
                around = soft_HW[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
                if 0.01 < around.mean() < 0.99:
                    weights_B1HW[image, 0, y, x] = weight
        weights_B1HW[image] /= weights_B1HW[image].mean()
    return weights_B1HW


def slow_loss(name: str, logits_B1HW: Array, soft_B1HW: Array, weight: float) -> float:
    weights_B1HW = slow_weights(soft_B1HW, weight) if name == "border" else np.ones_like(soft_B1HW)
    bce, dice = 0.0, 0.0
    for logits, soft, weights in zip(logits_B1HW, soft_B1HW, weights_B1HW, strict=True):
        overlap, total = 0.0, 0.0
        for logit, wanted, one in zip(logits.flat, soft.flat, weights.flat, strict=True):
            probability = 1 / (1 + math.exp(-logit))
            bce += one * slow_bce(logit, wanted) / logits_B1HW.size
            overlap += one**2 * probability * wanted
            total += one**2 * (probability**2 + wanted**2)
        dice += (1 - (2 * overlap + 1) / (total + 1)) / len(logits_B1HW)
    return {"bce": bce, "dice": dice}.get(name, bce + dice)


@settings(max_examples=15)
@given(st.sampled_from(NAMES), st.integers(0, 10_000), st.sampled_from([(6, 9), (1, 30), (26, 5)]))
def test_losses_agree_with_a_slow_reference(name: str, seed: int, size_HW: tuple[int, int]) -> None:
    logits_B1HW, soft_B1HW = batch(seed, size_HW)
    loss_B = make_loss(LossSettings(name=name, border_weight=4.0))(logits_B1HW, soft_B1HW)
    assert loss_B.shape == (3,)
    for image, loss in enumerate(loss_B):
        one = (tensor[image : image + 1].numpy() for tensor in (logits_B1HW, soft_B1HW))
        assert float(loss) == pytest.approx(slow_loss(name, *one, 4.0), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_truth_is_the_best_prediction(name: str) -> None:
    """Also where the truth is soft: Dice without squares would pull such pixels to black or white."""
    _, soft_B1HW = batch(0)
    logits_B1HW = soft_B1HW.clamp(1e-6, 1 - 1e-6).logit().requires_grad_()
    loss_of = make_loss(LossSettings(name=name))
    loss = loss_of(logits_B1HW, soft_B1HW).mean()
    (gradient,) = torch.autograd.grad(loss, logits_B1HW)
    assert gradient.abs().max() < 1e-6
    for seed in range(5):
        nearby = logits_B1HW.detach() + 0.1 * batch(seed)[0]
        assert loss_of(nearby, soft_B1HW).mean() > loss.detach()


def test_soft_dice_is_zero_at_the_truth_and_one_at_its_opposite() -> None:
    _, soft_B1HW = batch(0, (60, 90))
    assert mean_dice(soft_B1HW.clamp(1e-7, 1 - 1e-7).logit(), soft_B1HW) == pytest.approx(0, abs=1e-6)
    hard_B1HW = soft_B1HW.round()
    assert mean_dice((hard_B1HW - 0.5) * 200, hard_B1HW) == pytest.approx(0, abs=1e-6)
    assert mean_dice((0.5 - hard_B1HW) * 200, hard_B1HW) == pytest.approx(1, abs=1e-3)


def test_a_photo_without_a_car_is_right_when_nothing_is_found() -> None:
    nothing_B1HW = torch.zeros(2, 1, 20, 20)
    assert mean_dice(torch.full_like(nothing_B1HW, -50), nothing_B1HW) == pytest.approx(0, abs=1e-6)
    assert mean_dice(torch.full_like(nothing_B1HW, 50), nothing_B1HW) > 0.99


def test_dice_is_that_of_each_image_not_of_the_batch() -> None:
    """A small car counts as much as a large one."""
    soft_B1HW = torch.zeros(2, 1, 40, 40)
    soft_B1HW[0, :, :30, :30] = 1
    soft_B1HW[1, :, :4, :4] = 1
    logits_B1HW = (soft_B1HW - 0.5) * 100
    logits_B1HW[1] = -50
    missed_small = 1 - (0 + 1) / (16 + 1)
    assert soft_dice(logits_B1HW, soft_B1HW).tolist() == pytest.approx([0, missed_small], abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_extreme_logits_have_finite_gradients(name: str, size: float) -> None:
    logits_B1HW, soft_B1HW = (tensor.float() for tensor in batch(0))
    logits_B1HW = (logits_B1HW.sign() * size).requires_grad_()
    loss = make_loss(LossSettings(name=name))(logits_B1HW, soft_B1HW).mean()
    (gradient,) = torch.autograd.grad(loss, logits_B1HW)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_border_weights_mark_the_band_along_the_edge() -> None:
    soft_B1HW = torch.zeros(2, 1, 100, 150)
    soft_B1HW[0, 0, 30:70, 40:110] = 1
    weights_B1HW = border_weights(soft_B1HW, 5.0)
    # The window is 7 px wide: three pixels on both sides of the edge see the other side.
    lowest, highest = weights_B1HW[0].unique().tolist()
    assert highest == pytest.approx(5 * lowest)
    assert ((weights_B1HW[0, 0, 50] == highest).nonzero()[:, 0] - 40).tolist() == [
        *range(-3, 3),
        *range(67, 73),
    ]
    assert ((weights_B1HW[0, 0, :, 75] == highest).nonzero()[:, 0] - 30).tolist() == [
        *range(-3, 3),
        *range(37, 43),
    ]
    torch.testing.assert_close(weights_B1HW.mean((1, 2, 3)), torch.ones(2))
    # Nothing to see in the second picture: no band, also not along the picture's own border.
    assert (weights_B1HW[1] == 1).all()
    assert (border_weights(torch.ones(1, 1, 100, 150), 5.0) == 1).all()


def test_a_weight_of_one_is_no_weight() -> None:
    logits_B1HW, soft_B1HW = batch(3)
    border, plain = (make_loss(LossSettings(name=name, border_weight=1)) for name in ("border", "bce+dice"))
    torch.testing.assert_close(border(logits_B1HW, soft_B1HW), plain(logits_B1HW, soft_B1HW))


@pytest.mark.parametrize("name", NAMES)
def test_hard_targets_are_soft_ones_rounded(name: str) -> None:
    logits_B1HW, soft_B1HW = batch(5)
    hard_B1HW = (soft_B1HW >= 0.5).double()
    assert not torch.equal(hard_B1HW, soft_B1HW)
    rounding, plain = (make_loss(LossSettings(name=name, hard_targets=hard)) for hard in (True, False))
    torch.testing.assert_close(rounding(logits_B1HW, soft_B1HW), plain(logits_B1HW, hard_B1HW))


@pytest.mark.parametrize("name", ["bce", "dice", "bce+dice", "border"])
def test_unknown_pixels_have_no_part_in_the_loss(name: Any) -> None:
    logits_B1HW, soft_B1HW = batch(4, (30, 40))
    known_B1HW = torch.ones_like(soft_B1HW)
    known_B1HW[..., 10:22] = 0
    loss_of = make_loss(LossSettings(name=name))
    other_B1HW = torch.where(known_B1HW == 1, logits_B1HW, -7 * logits_B1HW).requires_grad_()
    loss_B = loss_of(other_B1HW, soft_B1HW, known_B1HW)
    torch.testing.assert_close(loss_B, loss_of(logits_B1HW, soft_B1HW, known_B1HW))
    (gradient,) = torch.autograd.grad(loss_B.sum(), other_B1HW)
    assert (gradient[known_B1HW == 0] == 0).all()
    assert (gradient[known_B1HW == 1] != 0).float().mean() > 0.9
    if name != "border":
        # The same as the loss of an image without these columns.
        part = [torch.cat((tensor[..., :10], tensor[..., 22:]), dim=3) for tensor in (logits_B1HW, soft_B1HW)]
        torch.testing.assert_close(loss_B.detach(), loss_of(*part))


@pytest.mark.parametrize("name", ["bce", "dice", "bce+dice", "border"])
def test_a_mask_known_everywhere_gives_the_plain_loss(name: Any) -> None:
    logits_B1HW, soft_B1HW = batch(6, (30, 40))
    loss_of = make_loss(LossSettings(name=name))
    torch.testing.assert_close(
        loss_of(logits_B1HW, soft_B1HW, torch.ones_like(soft_B1HW)), loss_of(logits_B1HW, soft_B1HW)
    )
