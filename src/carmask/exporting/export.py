"""Export a network: build the graph, compare it with PyTorch, quantize it, and only then write."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from carmask.data.split import Split
from carmask.errors import CarmaskError
from carmask.evaluation.selection import find_run
from carmask.exporting.comparison import compare, refuse_drop
from carmask.exporting.graph import build_graph, store_float16, to_file
from carmask.exporting.listener import Listener
from carmask.exporting.parity import (
    Figures,
    Reference,
    open_engines,
    refuse_other_graph,
    refuse_other_masks,
)
from carmask.exporting.photos import Photos, Sources, chosen_photos
from carmask.exporting.quantize import quantize
from carmask.files import write_bytes_atomically
from carmask.models.network import Network
from carmask.models.presets import PRESETS
from carmask.progress import Progress
from carmask.runtime.card import ModelCard
from carmask.runtime.hardware import HardwareSettings, set_up
from carmask.runtime.torch_engine import TorchEngine, card_of
from carmask.training.run import RunFolder

# A fitted photo: uint8, H x W x C.
Canvas = NDArray[np.uint8]

_SUFFIX = ".onnx"
_NAME = re.compile(r"\w[\w.+-]*")


class ExportError(CarmaskError):
    """What was asked for cannot be exported."""


@dataclass(frozen=True)
class ExportSettings:
    """What is exported.

    out: the file, or a folder for it; beside the weights when not given. name: what the network is called; as its
    weights say when not given. weights: how float weights are stored. int8: also write a quantized version, to
    NAME-int8.onnx. allow_drop: write it also where it loses too much Dice or gives other masks.
    """

    out: Path | None = None
    name: str | None = None
    weights: Literal["float16", "float32"] = "float16"
    int8: bool = False
    allow_drop: bool = False
    sources: Sources = field(default_factory=Sources)


@dataclass(frozen=True)
class Exported:
    """A file that was written, its size, and the card inside."""

    path: Path
    size_bytes: int
    card: ModelCard


def export_network(
    model: Path, settings: ExportSettings | None = None, listener: Listener | None = None
) -> list[Exported]:
    """Export a run's best weights, or a folder of weights, to one `.onnx` file, and with `int8` to a second.

    Raises:
        WeightsError: there is no network in the folder, or a damaged one.
        ParityError: an engine gives something else than PyTorch. Nothing is written.
        DropError: int8 loses too much Dice, or gives other masks. Nothing is written.
        CarmaskError: photos, name or file cannot be used.

    """
    settings, listener = settings or ExportSettings(), listener or Listener()
    if settings.sources.measured < 1 or settings.sources.calibrated < 1:
        raise ExportError("at least one photo is needed to compare on, and one to calibrate with")
    network = Network.load(model)
    card = make_card(model, network, settings)
    path = _choose_path(model, card.name, settings.out)
    with chosen_photos(model, settings.sources, channels=card.channels) as photos:
        listener.chosen(photos)
        graph = build_graph(network)
        hardware = set_up(HardwareSettings(device="cpu", precision="float32"))
        with listener.bar("running PyTorch") as progress:
            reference = Reference(TorchEngine(network, hardware), card, photos, progress)
        export = _Export(graph, card, settings, photos, reference, listener)
        files = {path: export.floating()}
        if settings.int8:
            files[path.with_stem(f"{path.stem}-int8")] = export.int8(files[path])
    for place, file in files.items():
        write_bytes_atomically(place, file.data)
    return [Exported(place, len(file.data), file.card) for place, file in files.items()]


def make_card(model: Path, network: Network, settings: ExportSettings) -> ModelCard:
    """Describe the network that lies in `model`, a run or a folder of weights. Nothing is measured yet."""
    config = network.config
    run = find_run(model)
    split = Split.load(RunFolder(run).split) if run else None
    sides = [sorted({split.group_of[id_] for id_ in ids}) for ids in (split.train, split.validation)] if split else []
    preset = next((name for name, preset in PRESETS.items() if preset.unet == config.unet), None)
    held_out = {name: value for name, value in config.training.items() if name.startswith("held_out")}
    return card_of(network).model_copy(
        update={
            "name": settings.name or config.name,
            "preset": preset,
            "weights": settings.weights,
            "train_groups": tuple(sides[0]) if sides else (),
            "held_out_groups": tuple(sides[1]) if sides else (),
            "measured": held_out,
        }
    )


@dataclass(frozen=True)
class _File:
    """What is to be written, and what was found about it."""

    data: bytes
    card: ModelCard
    figures: tuple[Figures, ...]


@dataclass(frozen=True)
class _Export:
    """One export: `graph` has float32 weights, `card` says nothing measured."""

    graph: onnx.ModelProto
    card: ModelCard
    settings: ExportSettings
    photos: Photos
    reference: Reference
    listener: Listener

    def floating(self) -> _File:
        """The float file, once every engine agrees with PyTorch. Raises `ParityError`."""
        exact = to_file(self.graph, self.card)
        differences = {engine.name: self.reference.probe(engine) for engine in open_engines(exact, ("float32",))}
        self.listener.probed(self.reference, differences)
        refuse_other_graph(differences)

        graph = store_float16(self.graph) if self.settings.weights == "float16" else self.graph
        figures = []
        for engine in open_engines(to_file(graph, self.card), ("float32", "auto")):
            with self.listener.bar(f"running {engine.name} in {engine.precision}") as progress:
                figures.append(self.reference.measure(engine, progress))
        self.listener.measured(self.reference, figures)
        refuse_other_masks(figures, self.reference.dice)
        parity = {
            "sizes_HW": [list(size_HW) for size_HW in self.reference.probe_sizes],
            "batches": self.reference.probe_batches,
            "largest_difference": {name: float(f"{value:.2g}") for name, value in differences.items()},
        }
        card = self._card(self.card, figures, parity=parity)
        return _File(to_file(graph, card), card, tuple(figures))

    def int8(self, floating: _File) -> _File:
        """The int8 file, once it loses little enough Dice and keeps to PyTorch's masks. Raises `DropError`."""
        segmenter = self.reference.segmenter
        canvases = (segmenter.fit(photo).views[0].image_HWC for photo in self.photos.calibration_photos())
        with self.listener.bar("calibrating") as progress:
            graph = quantize(self.graph, _counted(canvases, len(self.photos.calibration), progress))
        bare = self.card.as_int8()
        data = to_file(graph, bare)
        with self.listener.bar("running int8") as progress:
            compared = compare(floating.data, floating.figures, data, self.reference, progress)
        self.listener.compared(compared, len(floating.data), len(data))
        if not self.settings.allow_drop:
            refuse_drop(compared)
        figures = [one.int8 for one in compared]
        drops = {one.int8.engine: round(one.drop, 6) for one in compared}
        card = self._card(bare, figures, dice_drop=drops, calibrated_on=self.photos.told_calibration)
        return _File(to_file(graph, card), card, tuple(figures))

    def _card(self, card: ModelCard, figures: Sequence[Figures], **more: Any) -> ModelCard:
        measured = {
            **card.measured,
            "compared_on": self.photos.told,
            "pytorch_dice": round(self.reference.dice, 6),
            "engines": [one.rounded() for one in figures],
            **more,
        }
        return card.model_copy(update={"measured": measured})


def _counted(canvases: Iterable[Canvas], total: int, progress: Progress) -> Iterator[Canvas]:
    for number, canvas_HWC in enumerate(canvases, 1):
        yield canvas_HWC
        progress(number, total)


def _choose_path(model: Path, name: str, out: Path | None) -> Path:
    if not _NAME.fullmatch(name):
        raise ExportError(f"name '{name}': give one of letters, digits, '.', '-', '+' and '_', with --name")
    if out is None or out.is_dir():
        return (out or model) / f"{name}{_SUFFIX}"
    if out.suffix.lower() != _SUFFIX:
        raise ExportError(f"--out {out}: give a file that ends in {_SUFFIX}, or a folder that exists")
    return out
