"""`carmask model`."""

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from carmask.cli.console import print_facts, print_line, print_remark, print_table
from carmask.cli.options import Flag
from carmask.errors import CarmaskError
from carmask.models.card import ModelCard, read_card
from carmask.models.config import PRESETS, PresetName
from carmask.runtime.locate import locate_offline, packaged_models

if TYPE_CHECKING:
    import huggingface_hub as hub


def model(name: str = "small", *, card: Flag = False) -> int:
    """Show the layers of a network, or the metadata of an exported one.

    For presets and folders of weights: levels, shapes, parameters, multiply-adds and receptive field (needs PyTorch).
    For exported networks: how photos are fitted to them, what they were trained on, and what was measured.

    Args:
        name: A preset (small, classic, deep, fast, general, sharp), packaged weights, an .onnx file, or the folder of a
            run or of weights.
        card: Print the README of a trained network instead, as the Hugging Face Hub shows it: data, figures, use,
            limits and license in Markdown. Needs huggingface_hub.
    """
    if card:
        print(hub_card(name), end="")
        return 0
    place = locate_offline(name)
    if name in PRESETS:
        print_line(f"{name}: {PRESETS[name].summary}")
        _print_preset(name, optional=name in packaged_models())
    if place.suffix.lower() == ".onnx":
        found = read_card(place)
        print_line(f"{place}: exported by carmask {found.version}, {place.stat().st_size / 1e6:.1f} MB")
        print_facts(found.rows())
        for title, rows in found.tables().items():
            headings = list(dict.fromkeys(name for row in rows for name in row))
            print_table(title, headings, (), ([row.get(name, "") for name in headings] for row in rows))
    elif name not in PRESETS and place.is_dir():
        from carmask.models.network import Network

        print(Network.load(place).summary())
    elif name not in PRESETS:
        raise _not_found(name)
    return 0


def hub_card(model: str | Path) -> "hub.ModelCard":
    """Write the README of packaged weights, an `.onnx` file, or the folder of a run or of weights.

    Only folders of weights need PyTorch.

    Raises:
        CarmaskError: there is no such network, or it is damaged.
    """
    from carmask.models.hub_card import write_hub_card

    place = locate_offline(model)
    if place.suffix.lower() == ".onnx":
        # The package's LICENSE covers the weights inside it.
        is_packaged = place in packaged_models().values()
        name, license_id = (place.stem, "mit") if is_packaged else (place.name, None)
        return write_hub_card(read_card(place), model=name, onnx=place, packaged=is_packaged, license_id=license_id)
    if place.is_dir():
        from carmask.models.network import Network

        return Network.load(place).generate_model_card()
    if model in PRESETS:
        raise CarmaskError(f"{model}: a preset is not trained, so it has no card; name a trained network")
    raise _not_found(model)


def _not_found(model: str | Path) -> CarmaskError:
    return CarmaskError(
        f"{model}: neither a preset ({', '.join(get_args(PresetName))}), nor weights inside the package "
        f"({', '.join(packaged_models()) or 'there are none'}), nor an .onnx file, nor a folder of weights"
    )


def _print_preset(name: PresetName, *, optional: bool) -> None:
    try:
        from carmask.models.network import Network
    except ImportError:
        if not optional:
            raise
        print_remark("PyTorch is needed to show its levels and parameters: `pip install 'carmask[train]'`")
    else:
        print(Network(ModelCard.from_preset(name)).summary())
