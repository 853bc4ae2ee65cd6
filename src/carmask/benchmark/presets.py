"""Networks to measure that nobody has trained: how long they take does not depend on their weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from carmask.exporting.export import int8_card, make_card
from carmask.exporting.graph import build_graph, store_float16, to_file
from carmask.exporting.quantize import quantize
from carmask.files import write_bytes_atomically
from carmask.imaging.decode import decode_photo
from carmask.imaging.geometry import fit_image, plan
from carmask.models.card import ModelCard
from carmask.models.config import PresetName
from carmask.models.network import Network


def build(preset: PresetName) -> Network:
    """An untrained network, the same every time."""
    torch.manual_seed(0)
    return Network(ModelCard.from_preset(preset)).eval()


def save(network: Network, folder: Path, photos: Sequence[Path]) -> list[Path]:
    """Write a network as a folder of weights, as a float and as an int8 `.onnx` file, unchecked, below `folder`.

    `photos` set the scale of the int8 file's values.
    """
    weights = folder / network.card.name
    network.save_pretrained(weights)
    card = make_card(weights, network)
    graph = build_graph(network)

    def fitted(path: Path) -> NDArray[np.uint8]:
        photo = decode_photo(path, channels=card.channels, at_least_HW=card.geometry.size_HW)
        return fit_image(photo.image_HWC, plan(photo.size_HW, card.geometry, stride_px=card.stride_px))

    written = [weights]
    for model, own_card in ((store_float16(graph), card), (quantize(graph, map(fitted, photos)), int8_card(card))):
        written.append(folder / f"{own_card.name}.onnx")
        write_bytes_atomically(written[-1], to_file(model, own_card))
    return written
