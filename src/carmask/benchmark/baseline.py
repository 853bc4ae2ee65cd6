"""Untrained networks to time, and the naive way to make masks, which all other times are compared with.

The naive way is what `predict.py` of the most used public U-Net does: PyTorch eager in float32, one photo at a time,
decoded whole, the mask as a PNG at Pillow's default level.
"""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from carmask.exporting.export import int8_card, make_card
from carmask.exporting.graph import build_graph, store_float16, to_file
from carmask.exporting.quantize import quantize
from carmask.files import write_bytes_atomically
from carmask.imaging.decode import decode_photo
from carmask.imaging.geometry import fit_image, plan
from carmask.models.card import ModelCard
from carmask.models.config import PresetName
from carmask.models.network import Network


def build_untrained(preset: PresetName) -> Network:
    """Build a network with the same random weights every time; its speed does not depend on them."""
    torch.manual_seed(0)
    return Network(ModelCard.from_preset(preset)).eval()


def export_untrained(network: Network, folder: Path, photos: Sequence[Path]) -> list[Path]:
    """Write a network below `folder`: as a folder of weights, and as a float and an int8 `.onnx` file, unchecked.

    photos: calibrate the int8 file.
    """
    weights = folder / network.card.name
    network.save_pretrained(weights)
    card = make_card(weights, network)
    graph = build_graph(network)

    def read_canvas(path: Path) -> NDArray[np.uint8]:
        photo = decode_photo(path, channels=card.channels, at_least_HW=card.geometry.size_HW)
        return fit_image(photo.image_HWC, plan(photo.size_HW, card.geometry, stride_px=card.stride_px))

    written = [weights]
    for model, own_card in ((store_float16(graph), card), (quantize(graph, map(read_canvas, photos)), int8_card(card))):
        written.append(folder / f"{own_card.name}.onnx")
        write_bytes_atomically(written[-1], to_file(model, own_card))
    return written


def naive_network(network: Network) -> Callable[[], torch.Tensor]:
    """Return a function that runs the network on one photo, of noise."""
    card = network.card
    x_1CHW = torch.rand(1, card.channels, *card.geometry.canvas_HW(card.stride_px))
    return torch.inference_mode()(lambda: network(x_1CHW).sigmoid())


@torch.inference_mode()
def naive_png(network: Network, path: Path) -> bytes:
    """Return the PNG of a photo's mask."""
    card = network.card
    height, width = card.geometry.canvas_HW(card.stride_px)
    photo = Image.open(path).convert("L" if card.channels == 1 else "RGB")
    pixels_HWC = np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC)).reshape(height, width, -1)
    x_1CHW = torch.from_numpy(pixels_HWC.transpose(2, 0, 1).copy()).float().div(255).unsqueeze(0)
    probability_11HW = functional.interpolate(network(x_1CHW).sigmoid(), photo.size[::-1], mode="bilinear")
    mask_HW = (probability_11HW[0, 0] >= card.threshold).numpy()
    file = io.BytesIO()
    Image.fromarray(mask_HW.astype(np.uint8) * 255).save(file, format="PNG")
    return file.getvalue()
