# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How a U-Net cuts out a car
#
# In this lesson you build a U-Net step by step, train it on rendered cars in about a minute, and look at what it gets
# wrong. You need to read Python. You do not need to know anything about neural networks except that they learn
# numbers, their *weights*, from examples.
#
# The code uses carmask's own pieces, so what you learn here is what `carmask train` does. To run it yourself:
#
# ```console
# make demo                                   # once: installs everything and renders the cars into data/studio
# make lesson                                 # runs this notebook, docs/lesson/unet.py
# ```

# %%
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional

from carmask.data.cache import CacheKey, fit_pair
from carmask.data.pairs import find_pairs, load_soft_mask
from carmask.data.split import make_split
from carmask.evaluation.metrics import dice
from carmask.imaging.decode import decode_photo
from carmask.imaging.draw import draw_error_map, draw_overlay
from carmask.imaging.geometry import Geometry, fit_mask, plan, restore
from carmask.models.config import UNetConfig
from carmask.models.summary import receptive_field_px, summarize
from carmask.models.unet import DoubleConv, UNet, UpConv
from carmask.training.losses import cross_entropy, soft_dice

torch.manual_seed(0)
plt.rcParams["figure.dpi"] = 72


def show(pictures: dict[str, np.ndarray], **options: object) -> None:
    """Draw pictures side by side, each under its name."""
    _, all_axes = plt.subplots(1, len(pictures), figsize=(12, 12 / len(pictures) * 0.8), layout="constrained")
    for axes, (name, picture) in zip(np.atleast_1d(all_axes), pictures.items(), strict=True):
        axes.imshow(picture, **options)
        axes.set_title(name)
        axes.axis("off")
    plt.show()


# %% [markdown]
# ## The task
#
# A *pair* is a photo and its mask. The mask says for each pixel whether it belongs to the car. The network must find
# the mask from the photo alone.
#
# Twelve cars were photographed from sixteen sides. We train on some of the cars and measure on the others: a network
# that has seen the red van from the left knows too much about the red van from the right.

# %%
DATA = Path(os.environ.get("LESSON_DATA", "../../data/studio"))
pairs = {pair.id: pair for pair in find_pairs(DATA).pairs}
photo = decode_photo(pairs[min(pairs)].image).image_HWC
mask = load_soft_mask(pairs[min(pairs)]).mask_HW
show({"photo": photo, "mask": mask, "both": draw_overlay(photo, mask)}, cmap="gray")
print(len(pairs), "pairs; photo", photo.shape, "mask", mask.shape)

# %% [markdown]
# ## What a convolution sees
#
# A *convolution* slides a small window, here 3 x 3 pixels, over the picture. At each place it multiplies the nine
# pixels by nine weights and adds them up. The result is a new picture, a *feature map*. With these weights a
# convolution finds edges between left and right:

# %%
edge = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
gray = torch.from_numpy(photo).float().mean(2) / 255
vertical = functional.conv2d(gray[None, None], edge[None, None], padding=1)[0, 0]
horizontal = functional.conv2d(gray[None, None], edge.T[None, None], padding=1)[0, 0]
show(
    {"gray": gray.numpy(), "left to right": vertical.abs().numpy(), "up and down": horizontal.abs().numpy()},
    cmap="gray",
)

# %% [markdown]
# Nobody writes such weights by hand in a network. It starts with random ones, and training finds those that help.
#
# One window of 3 x 3 pixels cannot know what a car is: in it, a black tire looks like a shadow. The network must see
# further. Two things widen its view:
#
# - **Another convolution on top** sees 3 x 3 features, each of which saw 3 x 3 pixels: 5 x 5 pixels together.
# - **Pooling** halves the picture and keeps the largest of each 2 x 2 values. Each later step is then worth two
#   pixels.
#
# A U-Net alternates both. `DoubleConv` is two convolutions, each followed by a *ReLU*, which sets negative values to
# zero. Without it, many convolutions in a row could do no more than one.

# %%
HEIGHT_PX, WIDTH_PX = 64, 96
x = torch.rand(1, 3, HEIGHT_PX, WIDTH_PX)
down_1, down_2, bottom = DoubleConv(3, 16, "batch"), DoubleConv(16, 32, "batch"), DoubleConv(32, 64, "batch")
fine = down_1(x)
middle = down_2(functional.max_pool2d(fine, 2))
coarse = bottom(functional.max_pool2d(middle, 2))
for name, features in {"input": x, "fine": fine, "middle": middle, "coarse": coarse}.items():
    print(f"{name:7} channels {features.shape[1]:3}, {features.shape[2]:3} x {features.shape[3]:3}")

# %% [markdown]
# That is the left side of the U: smaller and smaller, and more and more features for each place. The coarse features
# know *what* is there. They no longer know exactly *where*: one of them stands for 4 x 4 pixels.
#
# ## Why skip connections
#
# The right side of the U goes back up. `UpConv` doubles height and width. Then comes the idea that gave the U-Net its
# success: the fine features from the left side, which still know where each edge is, are laid beside the enlarged
# ones. This is a *skip connection*. The next `DoubleConv` reads both.

# %%
up_1, up_2 = UpConv(64, 32, 2), UpConv(32, 16, 2)
join_1, join_2 = DoubleConv(32 + 32, 32, "batch"), DoubleConv(16 + 16, 16, "batch")
head = nn.Conv2d(16, 1, 1)

features = join_1(torch.cat((middle, up_1(coarse)), dim=1))  # the first skip connection
features = join_2(torch.cat((fine, up_2(features)), dim=1))  # the second
logits = head(features)
print("logits", tuple(logits.shape))

# %% [markdown]
# One number for each pixel, a *logit*: above zero means car, below means background. The *sigmoid* turns it into a
# probability between 0 and 1.
#
# This is all of a U-Net. carmask's class `UNet` does the same for any number of levels. We take four from here on.

# %%
config = UNetConfig(in_channels=3, widths=(16, 32, 64, 128))
summary = summarize(UNet(config), (HEIGHT_PX, WIDTH_PX))
for level in summary.levels:
    size = f"{level.size_HW[0]} x {level.size_HW[1]}"
    print(f"{level.name:10} {level.channels:4} channels {size:>8} {level.parameters:8,} weights")
print("receptive field:", summary.receptive_field_px, "px")

# %% [markdown]
# ## The receptive field
#
# The *receptive field* of an output pixel is the part of the photo that can change it. Its size follows from the
# layers. You can also measure it: ask which input pixels have a gradient, that is, which would change the output pixel
# in the middle if they changed.


# %%
def influence(network: nn.Module) -> np.ndarray:
    """How much each input pixel changes the logit in the middle."""
    x = torch.rand(1, 3, 192, 288, requires_grad=True)
    network.eval()(x)[0, 0, 96, 144].backward()
    return x.grad[0].abs().sum(0).numpy()


_, all_axes = plt.subplots(1, 3, figsize=(12, 3), layout="constrained")
for axes, widths in zip(all_axes, [(16, 32), (16, 32, 64), (16, 32, 64, 128)], strict=True):
    network = UNet(UNetConfig(in_channels=3, widths=widths))
    heat = influence(network)
    rows, columns = np.nonzero(heat)
    axes.imshow(np.log10(heat + heat.max() / 1e5), cmap="magma")
    field = plt.Rectangle(
        (columns.min(), rows.min()), np.ptp(columns), np.ptp(rows), fill=False, color="cyan", linestyle="--"
    )
    axes.add_patch(field)
    axes.set_title(f"{len(widths)} levels: {receptive_field_px(network)} px at most")
    axes.axis("off")
plt.show()

# %% [markdown]
# The brighter a pixel, the more it counts (the scale is logarithmic). With each level the field more than doubles. A
# network must see a good part of the car to know that it is one, so deep networks are better at *what*. Most of the
# influence still comes from near the middle.
#
# ## Soft targets against hard ones
#
# The network works at 96 x 64 pixels. The photos have 640 x 427. When the mask is reduced, a pixel at the car's edge
# is part car, part background. You can store that part, a *soft* mask of values between 0 and 1, or round it to a
# *hard* mask.
#
# Imagine a network that learned its targets perfectly. We enlarge what it would say to the photo's size and compare
# with the true mask. The measure is *Dice*: twice the area that both masks share, divided by the sum of their areas. 1
# is perfect.

# %%
geometry = Geometry(height_px=HEIGHT_PX, width_px=WIDTH_PX)
soft_scores, hard_scores = [], []
for pair in list(pairs.values())[::8]:
    truth = load_soft_mask(pair)
    placement = plan(truth.mask_HW.shape, geometry)
    soft = fit_mask(truth.soft_HW, placement).astype(np.float32) / 255
    hard = (soft >= 0.5).astype(np.float32)
    soft_scores.append(dice(truth.mask_HW, restore(soft, placement) >= 0.5))
    hard_scores.append(dice(truth.mask_HW, restore(hard, placement) >= 0.5))
print(f"a perfect network with soft targets: Dice {np.mean(soft_scores):.4f}")
print(f"a perfect network with hard targets: Dice {np.mean(hard_scores):.4f}")

wheel = np.s_[34:54, 14:44]
show({"soft target": soft[wheel], "hard target": hard[wheel]}, cmap="gray")

# %% [markdown]
# A soft value says where inside a pixel the edge runs. Rounding throws that away before training has begun. This is
# why carmask keeps masks soft and applies the threshold last, at the photo's own size.
#
# ## Training
#
# First the photos and masks, resized and in memory. `make_split` puts whole cars on one side.

# %%
key = CacheKey(geometry=geometry, channels=3, stride_px=config.stride_px)
fitted = {id_: fit_pair(pair, key) for id_, pair in pairs.items()}
split = make_split(
    {id_: pair.group for id_, pair in pairs.items()},
    {id_: float(soft.mean() / 255) for id_, (_, soft, _, _) in fitted.items()},
    folds=5,
    fold=0,
    seed=0,
)
train_x = torch.stack([torch.from_numpy(fitted[id_][0]).permute(2, 0, 1) for id_ in split.train])
train_y = torch.stack([torch.from_numpy(fitted[id_][1])[None] for id_ in split.train])
held_out = {id_: load_soft_mask(pairs[id_]).mask_HW for id_ in split.validation[::3]}
print(len(split.train), "photos to train on,", len(held_out), "of other cars to measure on")

# %% [markdown]
# The *loss* says how wrong the network is, in one number. Two are common:
#
# - **BCE**, binary cross-entropy, asks every pixel: how much probability did you give to the wrong answer? All pixels
#   count alike.
# - **Dice loss** is one minus the Dice of the whole mask, with probabilities in place of yes and no. It is close to
#   what we measure, and does not care how large the background is.
#
# Training repeats one step: take eight photos, compute the loss, ask for the gradient of each weight (in which
# direction the loss grows), and move all weights a little the other way.

# %%
STEPS, BATCH = 150, 8
Loss = Callable[[Tensor, Tensor], Tensor]


def predict(network: nn.Module, id_: str) -> np.ndarray:
    """The probability of each pixel of a photo, at the photo's own size."""
    pixels = torch.from_numpy(fitted[id_][0]).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        probability = network.eval()(pixels).sigmoid()[0, 0].numpy()
    return restore(probability, plan(held_out[id_].shape, geometry))


def measure(network: nn.Module) -> float:
    """The mean Dice on the cars that the network does not know."""
    return float(np.mean([dice(truth, predict(network, id_) >= 0.5) for id_, truth in held_out.items()]))


def learn(network: nn.Module, loss: Loss = cross_entropy, *, hard: bool = False) -> list[tuple[int, float, float]]:
    """Train, and return step, loss and held-out Dice every 25 steps."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=STEPS)
    curve, losses = [], []
    for step in range(1, STEPS + 1):
        chosen = torch.randint(len(train_x), (BATCH,), generator=generator)
        x, y = train_x[chosen] / 255, train_y[chosen] / 255
        if step % 2:  # a mirrored car is a car
            x, y = x.flip(3), y.flip(3)
        value = loss(network.train()(x), (y >= 0.5).float() if hard else y).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        losses.append(value.item())
        if step % 25 == 0:
            curve.append((step, float(np.mean(losses[-25:])), measure(network)))
    return curve


torch.manual_seed(0)
unet = UNet(config)
curves = {"U-Net, BCE": learn(unet)}
print(f"Dice {curves['U-Net, BCE'][-1][2]:.4f} after {STEPS} steps")


# %% [markdown]
# Now the same training with one thing changed at a time. `WithoutSkips` has the same layers and weights, but zeros in
# place of the fine features.


# %%
class WithoutSkips(UNet):
    """A U-Net whose right side sees nothing but what comes from below."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits as `UNet` does."""
        x = (x - self.mean) / self.std
        skips = []
        for encoder in self.encoders[:-1]:
            x = encoder(x)
            skips.append(torch.zeros_like(x))
            x = self.pool(x)
        x = self.encoders[-1](x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(torch.cat((skips.pop(), up(x)), dim=1))
        return self.head(x)


networks = {}
for name, kind, loss, hard in (
    ("no skip connections", WithoutSkips, cross_entropy, False),
    ("Dice loss", UNet, soft_dice, False),
    ("hard targets", UNet, cross_entropy, True),
):
    torch.manual_seed(0)
    networks[name] = kind(config)
    curves[name] = learn(networks[name], loss, hard=hard)
for name, curve in curves.items():
    print(f"{name:20} Dice {curve[-1][2]:.4f}")

# %% [markdown]
# ## The training curve

# %%
_, (left, right) = plt.subplots(1, 2, figsize=(12, 3.6), layout="constrained")
for name, curve in curves.items():
    steps, losses, scores = zip(*curve, strict=True)
    left.plot(steps, losses, marker=".", label=name)
    right.plot(steps, scores, marker=".", label=name)
left.set(title="loss on the photos trained on", xlabel="step", yscale="log")
right.set(title="Dice on other cars", xlabel="step", ylim=(0.85, 1))
right.legend(loc="lower right")
plt.show()

# %% [markdown]
# How to read it:
#
# - Compare losses only of runs with the same loss. The Dice on the right is the same measure for all.
# - The loss falls as long as the network learns the photos at hand. If the Dice on *other* cars falls meanwhile, the
#   network learns its photos by heart.
# - Without skip connections the network finds the car and blurs its edge.
# - The Dice loss gets further here, in few steps. BCE catches up when it has time: in the experiments, after 8,080 real
#   photos, it is 0.0008 of Dice behind the sum of both losses.
# - Hard targets make no difference that one could be sure of. What they cost is the *best possible* mask, and this
#   short training is far from it.
# - Two runs of the same training with other random numbers differ by some thousandths. A difference as small as that
#   says nothing. [The experiments](../experiments.md) repeat a run with three seeds before they draw a conclusion.
#
# ## Where the errors are
#
# Blue pixels were missed. Orange ones were taken for car and are none.

# %%
id_ = split.validation[0]
photo = decode_photo(pairs[id_].image).image_HWC
show(
    {
        "U-Net": draw_error_map(photo, held_out[id_], predict(unet, id_) >= 0.5),
        "no skip connections": draw_error_map(
            photo, held_out[id_], predict(networks["no skip connections"], id_) >= 0.5
        ),
    }
)

# %%
edges_px = [0, 1, 2, 4, 8, 16, 1000]
wrong, total = np.zeros(len(edges_px) - 1), np.zeros(len(edges_px) - 1)
for id_, truth in held_out.items():
    inside, outside = (cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, 5) for side in (truth, ~truth))
    distance_px = np.maximum(inside, outside) - 0.5
    errors = (predict(unet, id_) >= 0.5) != truth
    wrong += np.histogram(distance_px[errors], edges_px)[0]
    total += np.histogram(distance_px, edges_px)[0]
for low, high, share, rate in zip(edges_px, edges_px[1:], wrong / wrong.sum(), wrong / total, strict=False):
    print(f"{low:2} to {high:4} px from the edge: {share:5.1%} of all errors; {rate:6.2%} of these pixels are wrong")

# %% [markdown]
# Most errors lie within a few pixels of the edge. One pixel of this network's input is more than six pixels of the
# photo, so it hardly can do better. A larger input moves the edge closer to the truth. It costs time: twice the sides
# are four times the work. The presets of carmask choose between 128 x 128 and 1024 x 1024; see
# [Networks](../reference/networks.md).
#
# ## ONNX in ten lines
#
# Training needs PyTorch. Cutting out photos does not: the network is written to one file in the ONNX format, and a
# small program runs it.

# %%
with tempfile.TemporaryDirectory() as folder:
    file = str(Path(folder) / "unet.onnx")
    example = torch.rand(1, 3, HEIGHT_PX, WIDTH_PX)
    torch.onnx.export(unet.eval(), (example,), file, input_names=["image"], output_names=["logits"], verbose=False)
    session = onnxruntime.InferenceSession(file)
    onnx_logits = session.run(None, {"image": example.numpy()})[0]
    size_kb = sum(part.stat().st_size for part in Path(folder).iterdir()) // 1000
with torch.no_grad():
    difference = np.abs(unet(example).numpy() - onnx_logits).max()
print(f"{size_kb} KB; the largest difference of a logit is {difference:.1e}")

# %% [markdown]
# `carmask export` does this with more care: it adds the sigmoid and the normalization, writes down what the network
# needs to know about itself, and compares the result with PyTorch's on real photos.
#
# ## Where to go from here
#
# - [Train on your own photos](../start/own.md) with the settings that worked best.
# - [Experiments](../experiments.md): what each part of the recipe gives on real photos.
# - `src/carmask/models/unet.py` is the class that you used, in 130 lines; `src/carmask/training/train.py` is the loop.
