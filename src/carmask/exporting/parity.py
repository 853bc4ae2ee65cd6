"""Whether an exported file says what PyTorch says: the same pictures through both, in every engine installed.

Two comparisons, since they find different faults. Probes are pictures of other sizes than the network's own, odd ones
too, alone and four at once, through the graph with float32 weights in float32: what is wrong with the graph shows
there, and a right one is no further off than the order of additions takes it. Photos go the way of every photo, at
their own sizes and through the file as it is written, in float32 and in the precision that the engine chooses by
itself: what that and the stored weights change in the masks, and cost in Dice, shows there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.evaluation.metrics import dice
from carmask.exporting.photos import Photos, Sample
from carmask.imaging.decode import Photo
from carmask.imaging.geometry import Geometry, Size, fit_image, plan
from carmask.imaging.masks import PackedMask
from carmask.progress import Progress
from carmask.runtime.card import ModelCard
from carmask.runtime.engine import Engine, EngineMissing
from carmask.runtime.load import Member
from carmask.runtime.open import open_onnx
from carmask.runtime.options import EngineName, Precision, RunOptions
from carmask.segmenter import Fitted, Segmenter

_BATCHES = (1, 4)


class Limits(NamedTuple):
    """How far an engine may be from PyTorch on photos, on average.

    dice: by how much the Dice with the true masks may differ. same_mask: the least Dice with PyTorch's own masks.
    """

    dice: float
    same_mask: float

    def faults(self, one: "Figures", wanted_dice: float) -> Iterator[str]:
        """Say in what an engine is further off, where it is; PyTorch's Dice is `wanted_dice`."""
        where = f"in {one.engine} in {one.precision}"
        if not one.same_mask >= self.same_mask:
            yield f"Dice {one.same_mask:.5f} with its masks {where}, and {self.same_mask:g} or more is right"
        difference = one.dice - wanted_dice
        if not abs(difference) <= self.dice:
            yield f"Dice {difference:+.2g} from its own {where}, and no more than {self.dice:g} is right"


# The largest difference of a probe's probability over which nothing is written; a wrong graph is out by a tenth.
PROBE_LIMIT = 1e-3
# A good network's masks have a Dice of 0.99999 with PyTorch's in float32 and of 0.9999 in bf16, and lose less than
# 0.0001. One that has seen 32 photos, and is in doubt about whole areas, has 0.9997 and 0.998.
FLOAT32_LIMITS = Limits(dice=2e-4, same_mask=0.999)
LOWER_LIMITS = Limits(dice=2e-3, same_mask=0.995)


class ParityError(CarmaskError):
    """An exported file says something else than PyTorch."""


@dataclass(frozen=True)
class Figures:
    """How an engine runs a file, on photos.

    Attributes:
        engine: Its name.
        precision: What it computes in.
        dice: Mean Dice, each photo at its own size.
        same_mask: Mean Dice of its masks and PyTorch's.
        largest_difference: Of a pixel's probability from PyTorch's, on the network's canvas, 0..1.
        mean_difference: The same, of the mean pixel.

    """

    engine: str
    precision: str
    dice: float
    same_mask: float
    largest_difference: float
    mean_difference: float

    def rounded(self) -> dict[str, Any]:
        """The figures as they are kept with a network."""
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Probe:
    """Pictures of one size, and PyTorch's probabilities for them: uint8 N x H x W x C, float32 N x H x W."""

    images_NHWC: NDArray[np.uint8]
    wanted_NHW: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Look:
    """A photo as the network sees it, its true mask, and what PyTorch found: on the canvas, and at the photo's size."""

    fitted: Fitted
    sample: Sample
    probability_HW: NDArray[np.float32]
    mask: PackedMask


class Reference:
    """What PyTorch says in float32 of all that engines are compared on."""

    def __init__(self, engine: Engine, card: ModelCard, photos: Photos, progress: Progress) -> None:
        """Run PyTorch. `progress` is called with (photos done, photos in all)."""
        self.card = card
        self.segmenter = segmenter = _segmenter(engine, card)
        self.looks: list[Look] = []
        for number, sample in enumerate(photos.samples(), 1):
            fitted = segmenter.fit(sample.photo)
            probability_HW, mask_HW = _find(segmenter, fitted)
            self.looks.append(Look(fitted, sample, probability_HW, PackedMask.of(mask_HW)))
            progress(number, len(photos.measured))
        pictures = _pictures([look.sample.photo for look in self.looks], card)
        self.probes = [Probe(images, _run_padded(engine, images, card.stride_px)) for images in pictures]
        self.dice = fmean(dice(look.sample.truth.mask_HW, look.mask.mask_HW) for look in self.looks)

    @property
    def probe_sizes(self) -> list[Size]:
        """Heights and widths of the probes, in pixels."""
        return list(dict.fromkeys((probe.images_NHWC.shape[1], probe.images_NHWC.shape[2]) for probe in self.probes))

    @property
    def probe_batches(self) -> list[int]:
        """How many pictures the probes hold."""
        return sorted({len(probe.images_NHWC) for probe in self.probes})

    def probe(self, engine: Engine) -> float:
        """The largest difference of a probability from PyTorch's, over all probes."""
        return max(
            float(np.abs(engine.run(probe.images_NHWC) - probe.wanted_NHW).max(initial=0.0)) for probe in self.probes
        )

    def measure(self, engine: Engine, progress: Progress) -> Figures:
        """Run the photos through an engine. `progress` is called with (photos done, photos in all)."""
        segmenter = _segmenter(engine, self.card)
        dices, same, largest, mean = [], [], [], []
        for number, look in enumerate(self.looks, 1):
            probability_HW, mask_HW = _find(segmenter, look.fitted)
            difference_HW = np.abs(probability_HW - look.probability_HW)
            largest.append(float(difference_HW.max()))
            mean.append(float(difference_HW.mean()))
            dices.append(dice(look.sample.truth.mask_HW, mask_HW))
            same.append(dice(look.mask.mask_HW, mask_HW))
            progress(number, len(self.looks))
        return Figures(engine.name, engine.precision, fmean(dices), fmean(same), max(largest), fmean(mean))


def open_engines(file: bytes, precisions: Sequence[Precision]) -> Iterator[Engine]:
    """Open a file in each engine installed and each of these precisions, but in none twice.

    Raises:
        EngineMissing: no engine is installed.

    """
    names: list[EngineName] = [name for name in ("openvino", "onnxruntime") if find_spec(name)]
    if not names:
        raise EngineMissing("nothing to compare the file in: `pip install onnxruntime openvino` brings both engines")
    for name in names:
        seen = set()
        for precision in precisions:
            engine = open_onnx(file, RunOptions(name, "cpu", precision))
            if engine.precision not in seen:
                seen.add(engine.precision)
                yield engine


def refuse_other_graph(differences: dict[str, float]) -> None:
    """Raise `ParityError` where an engine (name -> largest difference of a probe's probability) is over the limit."""
    over = {name: value for name, value in differences.items() if not value <= PROBE_LIMIT}
    if over:
        raise ParityError(
            f"the exported graph is not the network: {_some(over)} from PyTorch in a pixel's probability, and no more "
            f"than {PROBE_LIMIT:g} is right; nothing was written. Please report it, with the versions of torch, onnx "
            "and the engine"
        )


def refuse_other_masks(figures: Sequence[Figures], wanted_dice: float) -> None:
    """Raise `ParityError` where an engine's masks or Dice are further from PyTorch's than its precision explains."""
    faults: list[str] = []
    for one in figures:
        faults += (FLOAT32_LIMITS if one.precision == "float32" else LOWER_LIMITS).faults(one, wanted_dice)
    if faults:
        raise ParityError(
            f"the exported file gives other masks than PyTorch: {'; '.join(faults)}; nothing was written. With "
            "--weights float32 the weights are stored exactly"
        )


def _some(differences: dict[str, float]) -> str:
    return ", ".join(f"{value:+.2g} in {name}" for name, value in differences.items())


def _segmenter(engine: Engine, card: ModelCard) -> Segmenter:
    return Segmenter([Member(engine, card, Path(card.name))])


def _find(segmenter: Segmenter, fitted: Fitted) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A photo's probability on the network's canvas, and its mask at the photo's size."""
    (raw,) = segmenter.infer([fitted])
    return raw[0], segmenter.restore(fitted, raw) >= segmenter.threshold


def _pictures(photos: Sequence[Photo], card: ModelCard) -> Iterator[NDArray[np.uint8]]:
    """Photos in batches of one and of four, at the canvas's size and at two smaller, odd ones."""
    canvas_HW = card.geometry.canvas_HW(card.stride_px)
    for part in (1, 2, 3):
        height, width = canvas_HW if part == 1 else (max(16, side // part) | 1 for side in canvas_HW)
        geometry = Geometry(height_px=height, width_px=width)
        for batch in _BATCHES:
            some = [photos[index % len(photos)] for index in range(batch)]
            yield np.stack([fit_image(photo.image_HWC, plan(photo.size_HW, geometry)) for photo in some])


def _run_padded(engine: Engine, images_NHWC: NDArray[np.uint8], stride_px: int) -> NDArray[np.float32]:
    """Run pictures of any size in an engine that takes multiples of the stride: their edges repeated, then cropped."""
    _, height, width, _ = images_NHWC.shape
    padded_NHWC = np.pad(images_NHWC, ((0, 0), (0, -height % stride_px), (0, -width % stride_px), (0, 0)), "edge")
    return engine.run(np.ascontiguousarray(padded_NHWC))[:, :height, :width]
