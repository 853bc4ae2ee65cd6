"""Whether an exported file gives what PyTorch gives: the same pictures through both, in every engine installed.

Two comparisons, because they find different errors. Probes are pictures of other sizes than the network's own, odd ones
too, one and four at once, through the graph with float32 weights in float32. They show what is wrong with the graph; a
right graph differs by no more than the order of additions. Photos take the way of every photo, at their own sizes and
through the file as it is written, in float32 and in the precision that the engine chooses by itself. They show what
that precision and the stored weights change in the masks and cost in Dice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.evaluation.metrics import dice
from carmask.exporting.photos import ExportPhotos, Sample
from carmask.imaging.decode import Photo
from carmask.imaging.geometry import Geometry, Size, fit_image, plan
from carmask.imaging.masks import PackedMask
from carmask.models.card import EngineParity, ModelCard
from carmask.progress import Progress
from carmask.runtime.engine import Engine, EngineMissing
from carmask.runtime.load import Member, open_onnx
from carmask.runtime.options import EngineName, Precision, RunOptions
from carmask.segmenter import Fitted, Segmenter

_BATCHES = (1, 4)

# The largest difference of a probe's probability that is allowed; a wrong graph differs by a tenth.
PROBE_LIMIT = 1e-3
# On photos, the largest allowed difference of the mean Dice from PyTorch's, and the least Dice with PyTorch's masks.
# A good network's masks have a Dice of 0.99999 with PyTorch's in float32 and of 0.9999 in bf16, and lose less than
# 0.0001. One trained on 32 photos, which is in doubt about whole areas, has 0.9997 and 0.998.
FLOAT32_LIMITS = (2e-4, 0.999)
LOWER_LIMITS = (2e-3, 0.995)
# The same for int8: the largest loss of Dice, and the least Dice with PyTorch's masks. A good network's masks have
# 0.9996, those of one trained on 32 photos 0.989.
DROP_LIMIT = 5e-4
SAME_MASK_LIMIT = 0.98

# Runs of each file that are timed, in turn, after one that is not.
_TIMED = 9


class ParityError(CarmaskError):
    """An exported file gives something else than PyTorch."""


class DropError(CarmaskError):
    """Quantizing costs too much Dice, or changes the masks too much."""


@dataclass(frozen=True)
class Int8Comparison:
    """One engine's figures for a float file and its int8 version, and its milliseconds for one photo."""

    floating: EngineParity
    int8: EngineParity
    floating_ms: float
    int8_ms: float

    @property
    def drop(self) -> float:
        """By how much the Dice is lower in int8."""
        return self.floating.dice - self.int8.dice


@dataclass(frozen=True, eq=False)
class Probe:
    """Pictures of one size, and PyTorch's probabilities for them: uint8 N x H x W x C, float32 N x H x W."""

    images_NHWC: NDArray[np.uint8]
    pytorch_NHW: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ReferencePhoto:
    """A fitted photo, its true mask, and PyTorch's results: probability on the canvas, mask at the photo's size."""

    fitted: Fitted
    sample: Sample
    probability_HW: NDArray[np.float32]
    mask: PackedMask


class Reference:
    """PyTorch's results in float32 on everything that engines are compared on."""

    def __init__(self, engine: Engine, card: ModelCard, photos: ExportPhotos, progress: Progress) -> None:
        """Run PyTorch. `progress` is called with (photos done, photos in all)."""
        self.card = card
        self.photos = photos
        self.segmenter = segmenter = _segmenter(engine, card)
        self.references: list[ReferencePhoto] = []
        for number, sample in enumerate(photos.samples(), 1):
            fitted = segmenter.fit(sample.photo)
            probability_HW, mask_HW = _infer(segmenter, fitted)
            self.references.append(ReferencePhoto(fitted, sample, probability_HW, PackedMask.of(mask_HW)))
            progress(number, len(photos.compared))
        pictures = _probe_pictures([reference.sample.photo for reference in self.references], card)
        self.probes = [Probe(images, _run_padded(engine, images, card.stride_px)) for images in pictures]
        self.dice = fmean(dice(one.sample.truth.mask_HW, one.mask.mask_HW) for one in self.references)

    @property
    def probe_sizes(self) -> list[Size]:
        """Heights and widths of the probes, in pixels."""
        return list(dict.fromkeys((probe.images_NHWC.shape[1], probe.images_NHWC.shape[2]) for probe in self.probes))

    @property
    def probe_batches(self) -> list[int]:
        """Batch sizes of the probes."""
        return sorted({len(probe.images_NHWC) for probe in self.probes})

    def probe(self, engine: Engine) -> float:
        """Return the largest difference of a probability from PyTorch's, over all probes."""
        return max(
            float(np.abs(engine.run(probe.images_NHWC) - probe.pytorch_NHW).max(initial=0.0)) for probe in self.probes
        )

    def measure(self, engine: Engine, progress: Progress) -> EngineParity:
        """Run the photos through an engine. `progress` is called with (photos done, photos in all)."""
        segmenter = _segmenter(engine, self.card)
        dices, same, largest, mean = [], [], [], []
        for number, one in enumerate(self.references, 1):
            probability_HW, mask_HW = _infer(segmenter, one.fitted)
            difference_HW = np.abs(probability_HW - one.probability_HW)
            largest.append(float(difference_HW.max()))
            mean.append(float(difference_HW.mean()))
            dices.append(dice(one.sample.truth.mask_HW, mask_HW))
            same.append(dice(one.mask.mask_HW, mask_HW))
            progress(number, len(self.references))
        return EngineParity(
            engine=engine.name,
            precision=engine.precision,
            dice=fmean(dices),
            same_mask=fmean(same),
            largest_difference=max(largest),
            mean_difference=fmean(mean),
        )

    def time_ms(self, engines: Sequence[Engine]) -> list[float]:
        """Return the median milliseconds for one photo in each engine, run in turns so that all see the same load."""
        canvas_HWC = self.references[0].fitted.views[0].image_HWC
        images_NHWC = np.ascontiguousarray(canvas_HWC[None])
        taken_ms: list[list[float]] = [[] for _ in engines]
        for _ in range(1 + _TIMED):
            for engine, times_ms in zip(engines, taken_ms, strict=True):
                started_s = perf_counter()
                engine.run(images_NHWC)
                times_ms.append((perf_counter() - started_s) * 1000)
        return [median(times_ms[1:]) for times_ms in taken_ms]


def open_engines(file: bytes, precisions: Sequence[Precision]) -> Iterator[Engine]:
    """Open a file in each installed engine and each of these precisions, but in none twice.

    Raises:
        EngineMissing: no engine is installed.

    """
    names: list[EngineName] = [name for name in ("openvino", "onnxruntime") if find_spec(name)]
    if not names:
        raise EngineMissing("no engine to compare the file in; `pip install onnxruntime openvino` brings both")
    for name in names:
        seen = set()
        for precision in precisions:
            engine = open_onnx(file, RunOptions(name, "cpu", precision))
            if engine.precision not in seen:
                seen.add(engine.precision)
                yield engine


def compare_int8(
    floating: bytes, figures: Sequence[EngineParity], int8: bytes, reference: Reference, progress: Progress
) -> list[Int8Comparison]:
    """Compare an int8 file with the float one, of which `figures` are known, in each engine that is installed.

    Each engine runs the float file in the precision that it chooses by itself. `progress` is called with (photos done,
    photos in all), for each engine anew.
    """
    known = {(one.engine, one.precision): one for one in figures}
    compared = []
    for float_engine, int8_engine in zip(open_engines(floating, ("auto",)), open_engines(int8, ("auto",)), strict=True):
        measured = reference.measure(int8_engine, progress)
        float_ms, int8_ms = reference.time_ms([float_engine, int8_engine])
        compared.append(Int8Comparison(known[float_engine.name, float_engine.precision], measured, float_ms, int8_ms))
    return compared


def check_graph(differences: dict[str, float]) -> None:
    """Raise `ParityError` where an engine (name -> largest difference of a probe's probability) is over the limit."""
    over = {name: value for name, value in differences.items() if not value <= PROBE_LIMIT}
    if over:
        found = ", ".join(f"{value:+.2g} in {name}" for name, value in over.items())
        raise ParityError(
            f"the exported graph is not the network: a pixel's probability differs from PyTorch's by {found}, and "
            f"{PROBE_LIMIT:g} is allowed; nothing was written. Please report it, with the versions of torch, onnx and "
            "the engine"
        )


def check_masks(figures: Sequence[EngineParity], pytorch_dice: float) -> None:
    """Raise `ParityError` where masks or Dice differ more from PyTorch's than the engine's precision explains."""
    errors = []
    for one in figures:
        difference_limit, same_mask_limit = FLOAT32_LIMITS if one.precision == "float32" else LOWER_LIMITS
        where = f"{one.engine} in {one.precision}"
        if not one.same_mask >= same_mask_limit:
            errors.append(
                f"the masks of {where} have a Dice of {one.same_mask:.5f} with PyTorch's, below {same_mask_limit:g}"
            )
        difference = one.dice - pytorch_dice
        if not abs(difference) <= difference_limit:
            errors.append(f"the Dice of {where} differs by {difference:+.2g}, more than {difference_limit:g}")
    if errors:
        raise ParityError(
            f"the exported file gives other masks than PyTorch: {'; '.join(errors)}; nothing was written. With "
            "--weights float32 the weights are stored exactly"
        )


def check_int8(compared: Sequence[Int8Comparison]) -> None:
    """Raise `DropError` where int8 loses too much Dice in an engine, or gives other masks than PyTorch."""
    errors = []
    for one in compared:
        if not one.drop <= DROP_LIMIT:
            errors.append(f"its Dice in {one.int8.engine} is {one.drop:.4f} lower, and {DROP_LIMIT:g} is allowed")
        if not one.int8.same_mask >= SAME_MASK_LIMIT:
            errors.append(
                f"its masks in {one.int8.engine} have a Dice of {one.int8.same_mask:.4f} with PyTorch's, below "
                f"{SAME_MASK_LIMIT:g}"
            )
    if errors:
        raise DropError(
            f"int8 costs too much: {'; '.join(errors)}; nothing was written. Calibrate on photos like those it will "
            "see (--calibration), export without --int8, or accept the loss with --allow-drop"
        )


def _segmenter(engine: Engine, card: ModelCard) -> Segmenter:
    return Segmenter([Member(engine, card, Path(card.name))])


def _infer(segmenter: Segmenter, fitted: Fitted) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return a photo's probability on the network's canvas, and its mask at the photo's size."""
    (raw,) = segmenter.infer([fitted])
    return raw[0], segmenter.restore(fitted, raw) >= segmenter.threshold


def _probe_pictures(photos: Sequence[Photo], card: ModelCard) -> Iterator[NDArray[np.uint8]]:
    """Photos in batches of one and of four, at the canvas's size and at two smaller, odd ones."""
    canvas_HW = card.geometry.canvas_HW(card.stride_px)
    for part in (1, 2, 3):
        height, width = canvas_HW if part == 1 else (max(16, side // part) | 1 for side in canvas_HW)
        geometry = Geometry(height_px=height, width_px=width)
        for batch in _BATCHES:
            some = [photos[index % len(photos)] for index in range(batch)]
            yield np.stack([fit_image(photo.image_HWC, plan(photo.size_HW, geometry)) for photo in some])


def _run_padded(engine: Engine, images_NHWC: NDArray[np.uint8], stride_px: int) -> NDArray[np.float32]:
    """Run pictures of any size in an engine that takes multiples of the stride: edges repeated, then cropped."""
    _, height, width, _ = images_NHWC.shape
    padded_NHWC = np.pad(images_NHWC, ((0, 0), (0, -height % stride_px), (0, -width % stride_px), (0, 0)), "edge")
    return engine.run(np.ascontiguousarray(padded_NHWC))[:, :height, :width]
