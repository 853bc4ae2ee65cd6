"""How long networks take, in each engine that is here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from carmask.benchmark.clock import median_s
from carmask.models.card import ModelCard
from carmask.runtime.engine import EngineMissing
from carmask.runtime.load import Member, load_member
from carmask.runtime.options import EngineName, Precision, RunOptions

# Photos that pass through a network together, as many as `carmask predict` takes.
BATCH = 4
_ENGINES: tuple[tuple[EngineName, Precision], ...] = (
    ("torch", "float32"),
    ("torch", "auto"),
    ("onnxruntime", "auto"),
    ("openvino", "float32"),
    ("openvino", "auto"),
    ("tensorrt", "auto"),
)


@dataclass(frozen=True)
class NetworkTime:
    """One network in one engine. one_ms: a photo alone. photos_per_s: in batches of `BATCH`. threads: of the CPU."""

    network: str
    stored: str
    input: str
    engine: str
    precision: str
    threads: int | None
    one_ms: float
    photos_per_s: float


def time_networks(models: Sequence[Path], *, seconds: float) -> Iterator[NetworkTime]:
    """Measure each network in each engine and precision that can be had here, each combination once.

    Args:
        models: `.onnx` files, and folders of weights where PyTorch is installed.
        seconds: How long each figure is measured.

    """
    for model in models:
        seen = set()
        for engine, precision in _ENGINES:
            member = _open(model, engine, precision)
            if member is None or (found := (engine, member.engine.precision)) in seen:
                continue
            seen.add(found)
            yield _time(member, seconds)


def _open(model: Path, engine: EngineName, precision: Precision) -> Member | None:
    """Load a network, or nothing where this engine does not run such a file, or is not here."""
    if (engine == "torch") is not model.is_dir() or (engine == "torch" and find_spec("torch") is None):
        return None
    try:
        return load_member(model, RunOptions(engine, precision=precision))
    except EngineMissing:
        return None


def _time(member: Member, seconds: float) -> NetworkTime:
    card, engine = member.card, member.engine
    one_NHWC = _noise(card, 1)
    batch_NHWC = _noise(card, BATCH)
    one_s = median_s(lambda: engine.run(one_NHWC), seconds=seconds)
    # A batch of a slow network takes as long as the figure may.
    batch_s = median_s(lambda: engine.run(batch_NHWC), seconds=seconds, least_runs=1)
    height, width = one_NHWC.shape[1:3]
    return NetworkTime(
        network=card.name,
        stored=card.precision,
        input=f"{card.channels} x {height} x {width}",
        engine=engine.name,
        precision=engine.precision,
        threads=engine.threads,
        one_ms=1000 * one_s,
        photos_per_s=BATCH / batch_s,
    )


def _noise(card: ModelCard, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    canvas_HW = card.geometry.canvas_HW(card.stride_px)
    return np.random.default_rng(0).integers(0, 256, (count, *canvas_HW, card.channels), np.uint8)
