"""The way that masks are made where nobody has looked at speed: what every other figure is held against.

PyTorch eager in float32, one photo at a time, decoded whole, the result as PNG at Pillow's default level: what
`predict.py` of the most used public U-Net does.
"""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from carmask.models.network import Network


class NaiveWay:
    """`NaiveWay(network)(path)` gives the bytes of a mask's PNG."""

    def __init__(self, network: Network) -> None:
        config = network.card
        self._network = network.eval()
        self._gray = config.unet.in_channels == 1
        self._threshold = config.threshold
        self._size_HW = config.geometry.canvas_HW(config.unet.stride_px)

    @property
    def input_1CHW(self) -> torch.Tensor:
        """A picture of the network's own size, float32, in PyTorch's usual layout."""
        return torch.rand(1, self._network.card.channels, *self._size_HW)

    @torch.inference_mode()
    def infer(self, x_1CHW: torch.Tensor) -> torch.Tensor:
        """Probability, 1 x 1 x H x W."""
        probability_11HW: torch.Tensor = self._network(x_1CHW).sigmoid()
        return probability_11HW

    def __call__(self, path: Path) -> bytes:
        """Photo file in, PNG of its mask out."""
        photo = Image.open(path).convert("L" if self._gray else "RGB")
        pixels_HWC = np.asarray(photo.resize(self._size_HW[::-1], Image.Resampling.BICUBIC)).reshape(*self._size_HW, -1)
        x_1CHW = torch.from_numpy(pixels_HWC.transpose(2, 0, 1).copy()).float().div(255).unsqueeze(0)
        probability_11HW = functional.interpolate(self.infer(x_1CHW), photo.size[::-1], mode="bilinear")
        mask_HW = (probability_11HW[0, 0] >= self._threshold).numpy()
        file = io.BytesIO()
        Image.fromarray(mask_HW.astype(np.uint8) * 255).save(file, format="PNG")
        return file.getvalue()
