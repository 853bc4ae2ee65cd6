"""From what a user calls a model to a network that is ready to run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carmask.errors import CarmaskError
from carmask.models.config import WEIGHTS, weights_folder
from carmask.runtime.card import ModelCard
from carmask.runtime.engine import Engine, EngineMissing
from carmask.runtime.locate import EXPORTED, locate
from carmask.runtime.onnx_file import read_card
from carmask.runtime.open import open_onnx
from carmask.runtime.options import EngineName, RunOptions


@dataclass(frozen=True)
class Member:
    """A loaded network, what it says about itself, and the file or folder that it came from."""

    engine: Engine
    card: ModelCard
    place: Path

    def describe(self) -> dict[str, Any]:
        """Name, input, threshold, and where and how it runs, as JSON can hold them."""
        card, engine = self.card, self.engine
        return {
            "name": card.name,
            "input": {**card.geometry.model_dump(), "channels": card.channels},
            "threshold": card.threshold,
            "engine": engine.name,
            "device": engine.device,
            "precision": engine.precision,
            **({"threads": engine.threads} if engine.threads else {}),
        }

    def describe_engine(self) -> str:
        """Engine, device, precision and threads in a few words."""
        engine = self.engine
        threads = f", {engine.threads} thread{'s' * (engine.threads > 1)}" if engine.threads else ""
        return f"{engine.name} on {engine.device}, {engine.precision}{threads}"


def load_member(model: str | Path | None, options: RunOptions = RunOptions()) -> Member:
    """Load a network and start its engine: torch for folders of weights, any other for exported files.

    Args:
        model: See `carmask.runtime.locate.locate`.
        options: Where and how it runs.

    Raises:
        CarmaskError: there is no such network, it is damaged, or it cannot run here with these options.

    """
    place = place_for(model, options.engine)
    if place.is_dir():
        return _load_weights(place, options)
    if place.suffix.lower() != ".onnx":
        raise CarmaskError(f"{place}: is no model; name an .onnx file, or the folder of a run or of weights")
    return Member(open_onnx(place, options), read_card(place), place)


def place_for(model: str | Path | None, engine: EngineName) -> Path:
    """Where a model lies that this engine can run: an exported file goes before the weights beside it.

    Raises:
        ModelNotFound: see `carmask.runtime.locate.locate`.

    """
    place = locate(model, exported=engine != "torch")
    exported = place / EXPORTED
    return exported if engine != "torch" and exported.is_file() else place


def files_of(place: Path) -> list[Path]:
    """Return all files that make up the model in a place."""
    return [weights_folder(place) / name for name in WEIGHTS] if place.is_dir() else [place]


def _load_weights(folder: Path, options: RunOptions) -> Member:
    if options.engine not in ("auto", "torch"):
        raise EngineMissing(
            f"{folder}: holds PyTorch weights, which {options.engine} does not run; export them with "
            f"`carmask export {folder}`"
        )
    try:
        from carmask.models.network import Network
        from carmask.runtime.hardware import HardwareSettings, set_up
        from carmask.runtime.torch_engine import TorchEngine, card_of
    except ImportError as error:
        raise EngineMissing(
            f"{folder}: holds PyTorch weights, and PyTorch is not installed ({error}); `pip install 'carmask[train]'` "
            "brings it, or export them where it is, with `carmask export`"
        ) from error
    network = Network.load(folder)
    hardware = set_up(HardwareSettings(device=options.device, precision=options.precision, threads=options.threads))
    return Member(TorchEngine(network, hardware), card_of(network), folder)
