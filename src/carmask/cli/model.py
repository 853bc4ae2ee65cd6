"""`carmask model`."""

from pathlib import Path
from typing import Any, get_args

from carmask.cli.console import print_facts, print_line, print_remark
from carmask.cli.options import Flag
from carmask.errors import CarmaskError
from carmask.models.presets import PRESETS, PresetName
from carmask.runtime.card import ModelCard
from carmask.runtime.locate import EXPORTED, packaged_models
from carmask.runtime.onnx_file import read_card


def model(name: str = "small", *, card: Flag = False) -> int:
    """Show what a network is made of, or what an exported one says about itself.

    Of presets and folders: levels, shapes, parameters, multiply-adds and receptive field, for which PyTorch is needed.
    Of exported networks: how photos meet them, what they were trained on and what was measured.

    Args:
        name: A preset (small, classic, deep, fast), weights inside the package, an .onnx file, or the folder of a run
            or of weights.
        card: Print the card of a trained network instead, as the Hugging Face Hub shows it: data, figures, use, limits
            and license in Markdown. Needs huggingface_hub.

    """
    packaged = packaged_models().get(name)
    place = packaged or Path(name)
    if card:
        print(_hub_card(name, place), end="")
        return 0
    if name in PRESETS:
        print_line(f"{name}: {PRESETS[name].summary}")
        _print_preset(name, optional=packaged is not None)
    if packaged or place.suffix.lower() == ".onnx":
        _print_card(place)
    elif place.is_dir() and (place / EXPORTED).is_file():
        _print_card(place / EXPORTED)
    elif name not in PRESETS and place.is_dir():
        from carmask.models.network import Network

        print(Network.load(place).summary())
    elif name not in PRESETS:
        raise CarmaskError(
            f"{name}: neither a preset ({', '.join(get_args(PresetName))}), nor weights inside the package "
            f"({', '.join(packaged_models()) or 'there are none'}), nor an .onnx file, nor a folder of weights"
        )
    return 0


def _hub_card(name: str, place: Path) -> str:
    exported = place / EXPORTED if (place / EXPORTED).is_file() else place
    if exported.suffix.lower() == ".onnx":
        from carmask.exporting.hub import hub_card

        return str(hub_card(exported))
    if place.is_dir():
        from carmask.models.network import Network

        return str(Network.load(place).generate_model_card())
    raise CarmaskError(
        f"{name}: {'a preset is not trained, so it has no card' if name in PRESETS else 'there is no such network'}; "
        f"name weights inside the package ({', '.join(packaged_models()) or 'there are none'}), an .onnx file, or the "
        "folder of a run or of weights"
    )


def _print_preset(name: PresetName, *, optional: bool) -> None:
    try:
        from carmask.models.network import Network, NetworkConfig
    except ImportError:
        if not optional:
            raise
        print_remark("its levels and parameters are told with PyTorch: `pip install 'carmask[train]'`")
    else:
        print(Network(NetworkConfig.from_preset(name)).summary())


def _print_card(path: Path) -> None:
    card = read_card(path)
    print_line(f"{path}: exported by carmask {card.version}, {path.stat().st_size / 1e6:.1f} MB")
    print_facts(_facts(card))


def _facts(card: ModelCard) -> list[tuple[str, str]]:
    height, width = card.geometry.size_HW
    fit = "proportions kept" if card.geometry.keep_aspect else "stretched"
    facts = [
        ("name", card.name),
        ("preset", card.preset or "none"),
        ("sees photos at", f"{height} x {width} px, {fit}, {'RGB' if card.channels == 3 else 'gray'}"),
        ("threshold", f"{card.threshold:g}"),
        ("precision", card.precision),
        ("trained on", f"{len(card.train_groups)} groups" if card.train_groups else "not known"),
        ("held out", f"{len(card.held_out_groups)} groups" if card.held_out_groups else "not known"),
    ]
    facts += [(f"training: {name}", _text(value)) for name, value in card.training.items()]
    facts += [(f"measured: {name}", _text(value)) for name, value in card.measured.items()]
    return facts


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
