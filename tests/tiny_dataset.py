"""A drawn data set that is small enough to train on in a second."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

TINY_CARS = 6
TINY_VIEWS = 4
TINY_HW = (60, 90)


def write_tiny_dataset(root: Path) -> None:
    """Draw body and cabin in one color over a graded backdrop; the mask is the same drawing."""
    (root / "train").mkdir(parents=True)
    (root / "train_masks").mkdir()
    for car in range(TINY_CARS):
        for view in range(1, TINY_VIEWS + 1):
            rng = np.random.default_rng([car, view])
            image, mask = _draw_car(np.random.default_rng(car), rng)
            name = f"car{car}_{view:02}"
            image.save(root / "train" / f"{name}.jpg", quality=95)
            mask.save(root / "train_masks" / f"{name}_mask.gif")


def _draw_car(of_car: np.random.Generator, of_view: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    height, width = TINY_HW
    backdrop_HW = np.linspace(170, 240, height)[:, None] + of_view.normal(0, 3, TINY_HW)
    image = Image.fromarray(np.repeat(backdrop_HW.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2))
    mask = Image.new("P", (width, height))
    mask.putpalette([0, 0, 0, 255, 255, 255])
    left, right = 12 + int(of_view.integers(0, 8)), 78 - int(of_view.integers(0, 8))
    roof = 12 + int(of_car.integers(0, 8))
    color = tuple(int(value) for value in of_car.integers(10, 110, 3))
    for canvas, fill in ((image, color), (mask, 1)):
        draw = ImageDraw.Draw(canvas)
        draw.rectangle((left, 28, right, 46), fill=fill)
        draw.polygon([(left + 10, 28), (left + 18, roof), (right - 20, roof), (right - 8, 28)], fill=fill)
        for x in (left + 12, right - 12):
            draw.ellipse((x - 6, 40, x + 6, 52), fill=fill)
    return image, mask
