"""Export a network: build the graph, compare it with PyTorch, quantize it, and only then write."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from carmask.data.split import Split
from carmask.evaluation.selection import find_run
from carmask.exporting.calibrate_dice import calibrate
from carmask.exporting.fixed import FixedSize, build_fixed_graph, plain_engines, to_fixed_file
from carmask.exporting.graph import build_graph, store_float16, to_file
from carmask.exporting.logger import ExportLogger
from carmask.exporting.parity import (
    PROBE_BATCHES,
    Reference,
    check_graph,
    check_int8,
    check_masks,
    compare_int8,
    open_engines,
    segmenter_of,
)
from carmask.exporting.photos import ExportError, ExportPhotos, PhotoOptions, chosen_photos
from carmask.exporting.quantize import quantize
from carmask.files import write_bytes_atomically
from carmask.models.card import EngineParity, Measured, ModelCard
from carmask.models.network import Network
from carmask.progress import counted
from carmask.runtime.engine import Engine
from carmask.runtime.hardware import HardwareSettings, set_up
from carmask.runtime.load import open_onnx
from carmask.runtime.locate import locate
from carmask.runtime.options import RunOptions
from carmask.runtime.torch_engine import TorchEngine
from carmask.training.run_folder import RunFolder

FloatWeights = Literal["float16", "float32"]

_SUFFIX = ".onnx"
_NAME = re.compile(r"\w[\w.+-]*")
# Of a card: what was measured with other weights.
_NO_FIGURES = {"measured": Measured(), "dice_calibration": None}


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written, its size, and the card inside."""

    path: Path
    size_bytes: int
    card: ModelCard


def export(
    model: str | Path,
    *,
    out: Path | None = None,
    name: str | None = None,
    weights: FloatWeights = "float16",
    int8: bool = False,
    allow_drop: bool = False,
    fixed: FixedSize | None = None,
    photos: PhotoOptions | None = None,
    logger: ExportLogger | None = None,
) -> list[ExportedFile]:
    """Export a run's best weights, or a folder of weights, to one `.onnx` file, and with `int8` to a second.

    Args:
        model: Folder of a run or of weights, a float `.onnx` file, or the name of packaged weights.
        out: The file, or a folder for it. Default: NAME.onnx inside the folder `model`, or in the working folder if
            `model` is a file.
        name: Name of the network. Default: the name in its weights.
        weights: How float weights are stored. The engines compute in float32 in both cases.
        int8: Also write a quantized version, to NAME-int8.onnx.
        allow_drop: Write it even if it loses too much Dice or changes the masks.
        fixed: Write a file of one size for other programs instead, NAME-HEIGHTxWIDTH.onnx; see `exporting.fixed`.
        photos: Photos to compare on and to calibrate with; the run's own by default.
        logger: Called with the progress and the figures.

    Raises:
        WeightsError: the folder holds no network, or a damaged one.
        ParityError: an engine's results differ from PyTorch's. Nothing is written.
        DropError: int8 loses too much Dice, or changes the masks. Nothing is written.
        CarmaskError: photos, name or file cannot be used.
    """
    model, photos, logger = locate(str(model), "torch"), photos or PhotoOptions(), logger or ExportLogger()
    network = Network.load(model)
    if fixed is not None:
        if int8:
            raise ExportError("--int8: cannot be combined with --fixed-size or --size; export int8 in a second command")
        network.card = fixed_card(network.card, fixed)
    card = make_card(model, network, name=name, weights=weights)
    path = _output_path(model, card.name, out)
    if fixed is not None and path != out:
        path = path.with_stem("{}-{}x{}".format(path.stem, *card.geometry.size_HW))
    if path.resolve() == model.resolve():
        raise ExportError(f"{path}: is the model itself, and its card would be lost; name another file with --out")
    with chosen_photos(model, photos, channels=card.channels) as chosen:
        logger.photos(chosen)
        hardware = set_up(HardwareSettings(device="cpu", precision="float32"))
        with logger.bar("running PyTorch") as progress:
            reference = Reference(TorchEngine(network, hardware), chosen, progress)
        if fixed is not None:
            built = {path: _fixed_file(network, card, fixed.batch, reference, logger)}
        else:
            graph = build_graph(network)
            built = {path: _float_file(graph, card, reference, logger)}
        if int8:
            int8_path = path.with_stem(f"{path.stem}-int8")
            built[int8_path] = _int8_file(graph, built[path], reference, logger, allow_drop=allow_drop)
    for place, file in built.items():
        write_bytes_atomically(place, file.data)
    return [ExportedFile(place, len(file.data), file.card) for place, file in built.items()]


def make_card(
    model: Path, network: Network, *, name: str | None = None, weights: FloatWeights = "float16"
) -> ModelCard:
    """Return the card of a network in `model`, a run or a folder of weights, for its `.onnx` file."""
    changed: dict[str, Any] = {"name": name or network.card.name, "weights": weights, **_NO_FIGURES}
    if run := find_run(model):
        split = Split.load(RunFolder(run).split)
        for field, ids in (("train_groups", split.train), ("held_out_groups", split.validation)):
            changed[field] = tuple(sorted({split.group_of[id_] for id_ in ids}))
        changed["training"] = _without_groups(network.card.training)
    return network.card.model_copy(update=changed)


def _without_groups(notes: dict[str, Any]) -> dict[str, Any]:
    """Leave out the held-out groups of a training and of those before it; the card has a field for them."""
    kept = {key: value for key, value in notes.items() if key != "groups_held_out"}
    if isinstance(earlier := kept.get("started_from"), dict):
        kept["started_from"] = _without_groups(earlier)
    return kept


def fixed_card(card: ModelCard, fixed: FixedSize) -> ModelCard:
    """Return the card of the same network for another size. Raises `ExportError` if it cannot take it."""
    height_px, width_px = fixed.size_HW or card.geometry.canvas_HW(card.stride_px)
    if height_px % card.stride_px or width_px % card.stride_px or min(height_px, width_px, fixed.batch) < 1:
        raise ExportError(
            f"--size {height_px}x{width_px}, --batch {fixed.batch}: '{card.name}' takes batches of 1 or more and sides "
            f"that are multiples of {card.stride_px}"
        )
    geometry = card.geometry.model_copy(update={"height_px": height_px, "width_px": width_px})
    return card.model_copy(update={"geometry": geometry})


def int8_card(card: ModelCard) -> ModelCard:
    """Return the card of the same network quantized, without figures."""
    changed = {"name": f"{card.name}-int8", "precision": "int8", "weights": "int8"}
    return card.model_copy(update={**changed, **_NO_FIGURES})


@dataclass(frozen=True)
class _OnnxFile:
    """A file that is not written yet, its card, and the engines' figures on the photos."""

    data: bytes
    card: ModelCard
    figures: Sequence[EngineParity]


def _float_file(graph: onnx.ModelProto, card: ModelCard, reference: Reference, logger: ExportLogger) -> _OnnxFile:
    """Return the float file, if every engine agrees with PyTorch. Raises `ParityError`."""
    exact = to_file(graph, card)
    differences = {engine.name: reference.probe(engine) for engine in open_engines(exact, ("float32",))}
    logger.graph(reference, differences)
    check_graph(differences)

    stored = store_float16(graph) if card.weights == "float16" else graph
    figures = _compare_masks(open_engines(to_file(stored, card), ("float32", "auto")), reference, logger)
    parity = {
        "sizes_HW": [list(size_HW) for size_HW in reference.probe_sizes],
        "batches": list(PROBE_BATCHES),
        "largest_difference": {name: float(f"{value:.2g}") for name, value in differences.items()},
    }
    card = _with_measured(card, reference, figures, parity=parity)
    card = _with_dice_calibration(to_file(stored, card), card, reference.photos, logger)
    return _OnnxFile(to_file(stored, card), card, figures)


def _fixed_file(network: Network, card: ModelCard, batch: int, reference: Reference, logger: ExportLogger) -> _OnnxFile:
    """Return the file of one size, if its masks are PyTorch's in every program. Raises `ParityError`."""
    graph = build_fixed_graph(network, batch)
    data = to_fixed_file(store_float16(graph) if card.weights == "float16" else graph, card, batch)
    return _OnnxFile(data, card, _compare_masks(plain_engines(data, card, batch), reference, logger))


def _compare_masks(engines: Iterable[Engine], reference: Reference, logger: ExportLogger) -> list[EngineParity]:
    """Run the photos through each engine. Raises `ParityError` if the masks are not PyTorch's."""
    figures = []
    for engine in engines:
        with logger.bar(f"running {engine.name} in {engine.precision}") as progress:
            figures.append(reference.measure(engine, progress))
    logger.masks(reference, figures)
    check_masks(figures, reference.dice)
    return figures


def _int8_file(
    graph: onnx.ModelProto, floating: _OnnxFile, reference: Reference, logger: ExportLogger, *, allow_drop: bool
) -> _OnnxFile:
    """Return the int8 file, if it loses little Dice and keeps PyTorch's masks. Raises `DropError`."""
    photos = reference.photos
    canvases = (reference.segmenter.fit(photo).views[0].image_HWC for photo in photos.calibration_photos())
    with logger.bar("calibrating") as progress:
        quantized = quantize(graph, counted(canvases, progress, len(photos.calibration)))
    card = int8_card(floating.card)
    data = to_file(quantized, card)
    with logger.bar("running int8") as progress:
        compared = compare_int8(floating.data, floating.figures, data, reference, progress)
    logger.int8(compared, len(floating.data), len(data))
    if not allow_drop:
        check_int8(compared)
    figures = [one.int8 for one in compared]
    drops = {one.int8.engine: round(one.drop, 6) for one in compared}
    card = _with_measured(card, reference, figures, dice_drop=drops, calibrated_on=photos.calibration_description)
    card = _with_dice_calibration(data, card, photos, logger)
    return _OnnxFile(to_file(quantized, card), card, figures)


def _with_measured(card: ModelCard, reference: Reference, figures: Sequence[EngineParity], **more: Any) -> ModelCard:
    measured = Measured(
        compared_on=reference.photos.description,
        pytorch_dice=round(reference.dice, 6),
        engines=tuple(one.rounded() for one in figures),
        **more,
    )
    return card.model_copy(update={"measured": measured})


def _with_dice_calibration(file: bytes, card: ModelCard, photos: ExportPhotos, logger: ExportLogger) -> ModelCard:
    if card.refines:
        # Crops say nothing about the masks of whole photos.
        return card
    with logger.bar("calibrating the expected Dice") as progress:
        calibration = calibrate(segmenter_of(open_onnx(file, RunOptions(device="cpu"))), photos, progress)
    logger.dice(card.name, calibration)
    return card.model_copy(update={"dice_calibration": calibration})


def _output_path(model: Path, name: str, out: Path | None) -> Path:
    if not _NAME.fullmatch(name):
        raise ExportError(f"name '{name}': use letters, digits, '.', '-', '+' and '_' (--name)")
    if out is None or out.is_dir():
        return (out or (model if model.is_dir() else Path())) / f"{name}{_SUFFIX}"
    if out.suffix.lower() != _SUFFIX:
        raise ExportError(f"--out {out}: name a file that ends in {_SUFFIX}, or a folder that exists")
    return out
