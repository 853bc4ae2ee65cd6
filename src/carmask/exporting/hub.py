"""The Hub's card of an exported network, and figures noted inside its file. The card needs no PyTorch."""

from collections.abc import Sequence
from pathlib import Path

import huggingface_hub as hub

from carmask.files import write_bytes_atomically
from carmask.models.hub_card import HELD_OUT, Facts, HeldOut, write_hub_card
from carmask.models.presets import PRESETS
from carmask.runtime.card import ModelCard
from carmask.runtime.locate import packaged_models
from carmask.runtime.onnx_file import read_card

# What the package's own LICENSE says, as the Hub names it; it covers the weights inside the package.
_PACKAGE_LICENSE = "mit"


def hub_card(path: Path) -> hub.ModelCard:
    """Write the Hub's card of an `.onnx` file that carmask exported, from nothing but the file.

    Raises:
        ModelFileError: there is no such file, or it says nothing of itself.
        CardError: what was noted in it cannot be understood.

    """
    card = read_card(path)
    name = next((name for name, place in packaged_models().items() if place == path), None)
    facts = Facts(
        name=card.name,
        form="onnx",
        call=name or path.name,
        version=card.version,
        geometry=card.geometry,
        channels=card.channels,
        stride_px=card.stride_px,
        threshold=card.threshold,
        unet=PRESETS[card.preset].unet if card.preset in PRESETS else None,
        stored=card.weights,
        computed=card.precision,
        size_bytes=path.stat().st_size,
        notes=card.training,
        measured=card.measured,
        train_groups=card.train_groups,
        held_out_groups=card.held_out_groups,
        is_packaged=name is not None,
    )
    return write_hub_card(facts, license_id=_PACKAGE_LICENSE if name else None)


def note_held_out(path: Path, figures: Sequence[HeldOut]) -> ModelCard:
    """Write what was measured of an exported network into its own file, in place of what was noted so before.

    The graph and the weights stay as they are.

    Raises:
        ModelFileError: there is no such file, or carmask has not exported it.
        UnwritableFile: it cannot be written.

    """
    import onnx

    from carmask.exporting.graph import to_file

    card = read_card(path)
    noted = [entry.model_dump(mode="json", exclude_defaults=True) for entry in figures]
    card = card.model_copy(update={"measured": {**card.measured, HELD_OUT: noted}})
    write_bytes_atomically(path, to_file(onnx.load(path), card))
    return card
