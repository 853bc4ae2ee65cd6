"""Compare an exported file with PyTorch on the same pictures, in every installed engine.

Two comparisons find different errors. Probes are pictures of several sizes, odd ones too, in batches of one and of
four, for the graph with float32 weights in float32. They show errors in the graph: a correct one differs only by the
order of additions. Photos are predicted as usual, at their own sizes, with the file as it is written, in float32 and in
the precision that the engine chooses. They show how that precision and the stored weights change the masks and the
Dice.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.evaluation.metrics import EMPTY_BELOW, dice, photo_dice
from carmask.exporting.photos import ExportPhotos
from carmask.imaging.decode import Photo
from carmask.imaging.geometry import Geometry, Size, fit_image, plan
from carmask.models.card import EngineParity, ModelCard
from carmask.progress import Progress, counted
from carmask.runtime.engine import Engine, EngineMissing
from carmask.runtime.load import Member, open_onnx
from carmask.runtime.options import EngineName, Precision, RunOptions
from carmask.segmenter import Fitted, Segmenter

# Sizes of the batches of probes.
PROBE_BATCHES = (1, 4)

# The largest allowed difference of a probe's probability; a wrong graph differs by a tenth.
PROBE_LIMIT = 1e-3
# On photos, the largest allowed difference of the mean Dice from PyTorch's, and the least Dice with PyTorch's masks.
# A good network's masks have a Dice of 0.99999 with PyTorch's in float32 and of 0.9999 in bf16, and lose less than
# 0.0001. One trained on 32 photos, which is uncertain about whole areas, has 0.9997 and 0.998.
FLOAT32_LIMITS = (2e-4, 0.999)
LOWER_LIMITS = (2e-3, 0.995)
# The same for int8: the largest loss of Dice, and the least Dice with PyTorch's masks. A good network's masks have
# 0.9996, those of one trained on 32 photos 0.989.
DROP_LIMIT = 5e-4
SAME_MASK_LIMIT = 0.98

# Timed runs of each file, in turn, after one that is not timed.
_TIMED = 9


class ParityError(CarmaskError):
    """The results of an exported file differ from PyTorch's."""


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
class ReferencePhoto:
    """A fitted photo, its true mask and where that is known, and PyTorch's results.

    These are the probability on the canvas and the mask at the photo's size.
    """

    fitted: Fitted
    truth_HW: NDArray[np.bool_]
    known_HW: NDArray[np.bool_] | None
    probability_HW: NDArray[np.float32]
    mask_HW: NDArray[np.bool_]

    def dice(self, mask_HW: NDArray[np.bool_]) -> float:
        """Dice with the true mask. Without a vehicle, 1 if next to nothing is found, else 0."""
        return photo_dice(self.truth_HW, mask_HW, self.known_HW)

    def same_mask(self, mask_HW: NDArray[np.bool_]) -> float:
        """Dice with PyTorch's mask; 1 if both found next to nothing."""
        if max(self.mask_HW.mean(), mask_HW.mean()) < EMPTY_BELOW:
            return 1.0
        return dice(self.mask_HW, mask_HW)


class Reference:
    """PyTorch's results in float32 on the photos and probes that engines are compared on.

    Attributes:
        dice: PyTorch's mean Dice with the true masks.
        probe_sizes: Heights and widths of the probes, in pixels.
    """

    def __init__(self, engine: Engine, photos: ExportPhotos, progress: Progress) -> None:
        """Run PyTorch. `progress` is called with (photos done, photos in all)."""
        self.photos = photos
        self.segmenter = segmenter = segmenter_of(engine)
        self.references: list[ReferencePhoto] = []
        probed: list[Photo] = []
        for photo, truth_HW, known_HW in counted(photos.samples(), progress, len(photos.compared)):
            fitted = segmenter.fit(photo)
            self.references.append(ReferencePhoto(fitted, truth_HW, known_HW, *_infer(segmenter, fitted)))
            if len(probed) < max(PROBE_BATCHES):
                probed.append(photo)
        self.dice = fmean(one.dice(one.mask_HW) for one in self.references)
        self.probe_sizes = _probe_sizes(engine.card)
        pictures = [_probe(probed, size_HW, batch) for size_HW in self.probe_sizes for batch in PROBE_BATCHES]
        self.probes = [(images_NHWC, _run_padded(engine, images_NHWC)) for images_NHWC in pictures]

    def probe(self, engine: Engine) -> float:
        """Return the largest difference of a probability from PyTorch's, over all probes."""
        differences = (np.abs(engine.run(images_NHWC) - pytorch_NHW) for images_NHWC, pytorch_NHW in self.probes)
        return max(float(difference_NHW.max(initial=0.0)) for difference_NHW in differences)

    def measure(self, engine: Engine, progress: Progress) -> EngineParity:
        """Run the photos through an engine. `progress` is called with (photos done, photos in all)."""
        segmenter = segmenter_of(engine)
        dices, same, largest, mean = [], [], [], []
        for one in counted(self.references, progress, len(self.references)):
            probability_HW, mask_HW = _infer(segmenter, one.fitted)
            difference_HW = np.abs(probability_HW - one.probability_HW)
            largest.append(float(difference_HW.max()))
            mean.append(float(difference_HW.mean()))
            dices.append(one.dice(mask_HW))
            same.append(one.same_mask(mask_HW))
        return EngineParity(
            engine=engine.name,
            precision=engine.precision,
            dice=fmean(dices),
            same_mask=fmean(same),
            largest_difference=max(largest),
            mean_difference=fmean(mean),
        )

    def time_ms(self, engines: Sequence[Engine]) -> list[float]:
        """Return the median milliseconds for one photo in each engine; they run in turn, so under the same load."""
        images_NHWC = np.ascontiguousarray(self.references[0].fitted.views[0].image_HWC[None])
        taken_ms: list[list[float]] = [[] for _ in engines]
        for _ in range(1 + _TIMED):
            for engine, times_ms in zip(engines, taken_ms, strict=True):
                started_s = perf_counter()
                engine.run(images_NHWC)
                times_ms.append((perf_counter() - started_s) * 1000)
        return [median(times_ms[1:]) for times_ms in taken_ms]


def open_engines(file: bytes, precisions: Sequence[Precision]) -> Iterator[Engine]:
    """Open a file in each installed engine, once for each different precision that these give.

    Raises:
        EngineMissing: no engine is installed.
    """
    names: list[EngineName] = [name for name in ("openvino", "onnxruntime") if find_spec(name)]
    if not names:
        raise EngineMissing("no engine to compare the file in; run `pip install onnxruntime openvino`")
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
    """Compare an int8 file in each installed engine with the float one, whose `figures` are known.

    Each engine runs the float file in the precision that it chooses. `progress` is called with (photos done, photos in
    all), starting again for each engine.
    """
    known = {(one.engine, one.precision): one for one in figures}
    compared = []
    for float_engine, int8_engine in zip(open_engines(floating, ("auto",)), open_engines(int8, ("auto",)), strict=True):
        measured = reference.measure(int8_engine, progress)
        float_ms, int8_ms = reference.time_ms([float_engine, int8_engine])
        compared.append(Int8Comparison(known[float_engine.name, float_engine.precision], measured, float_ms, int8_ms))
    return compared


def check_graph(differences: dict[str, float]) -> None:
    """Raise `ParityError` if an engine (name -> largest difference of a probe's probability) is over the limit."""
    over = {name: value for name, value in differences.items() if not value <= PROBE_LIMIT}
    if over:
        found = ", ".join(f"{value:+.2g} in {name}" for name, value in over.items())
        raise ParityError(
            f"the exported graph disagrees with the network: a pixel's probability differs from PyTorch's by {found}, "
            f"and at most {PROBE_LIMIT:g} is allowed; nothing was written. Please report it, with the versions of "
            "torch, onnx and the engine"
        )


def check_masks(figures: Sequence[EngineParity], pytorch_dice: float) -> None:
    """Raise `ParityError` if masks or Dice differ more from PyTorch's than the engine's precision explains."""
    errors = []
    for one in figures:
        limits = FLOAT32_LIMITS if one.precision == "float32" else LOWER_LIMITS
        errors += _over_limits(one, abs(one.dice - pytorch_dice), *limits)
    if errors:
        raise ParityError(
            f"the exported file gives other masks than PyTorch: {'; '.join(errors)}; nothing was written. With "
            "--weights float32 the weights are stored exactly"
        )


def check_int8(compared: Sequence[Int8Comparison]) -> None:
    """Raise `DropError` if int8 loses too much Dice in an engine, or gives other masks than PyTorch."""
    errors = [error for one in compared for error in _over_limits(one.int8, one.drop, DROP_LIMIT, SAME_MASK_LIMIT)]
    if errors:
        raise DropError(
            f"int8 costs too much: {'; '.join(errors)}; nothing was written. Calibrate on photos like those it will "
            "see (--calibration), export without --int8, or accept the loss with --allow-drop"
        )


def _over_limits(one: EngineParity, difference: float, difference_limit: float, same_mask_limit: float) -> list[str]:
    """Describe the figures that are over their limits, or not a number."""
    where = f"{one.engine} in {one.precision}"
    errors = []
    if not difference <= difference_limit:
        errors.append(f"the Dice of {where} differs by {difference:.2g}, more than {difference_limit:g}")
    if not one.same_mask >= same_mask_limit:
        errors.append(
            f"the masks of {where} have a Dice of {one.same_mask:.5f} with PyTorch's, below {same_mask_limit:g}"
        )
    return errors


def segmenter_of(engine: Engine) -> Segmenter:
    """Return a segmenter that runs in this engine."""
    return Segmenter([Member(Path(engine.card.name), engines={os.getpid(): engine})])


def _infer(segmenter: Segmenter, fitted: Fitted) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return a photo's probability on the network's canvas, and its mask at the photo's size."""
    (raw,) = segmenter.infer([fitted])
    return raw[0], segmenter.restore(fitted, raw) >= segmenter.threshold


def _probe_sizes(card: ModelCard) -> list[Size]:
    """Return the canvas's size and two smaller, odd ones."""
    height, width = card.geometry.canvas_HW(card.stride_px)
    smaller = [(max(16, height // part) | 1, max(16, width // part) | 1) for part in (2, 3)]
    return list(dict.fromkeys([(height, width), *smaller]))


def _probe(photos: Sequence[Photo], size_HW: Size, batch: int) -> NDArray[np.uint8]:
    """Return a batch of photos of one size, uint8 N x H x W x C."""
    geometry = Geometry(height_px=size_HW[0], width_px=size_HW[1])
    some = [photos[index % len(photos)] for index in range(batch)]
    return np.stack([fit_image(photo.image_HWC, plan(photo.size_HW, geometry)) for photo in some])


def _run_padded(engine: Engine, images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run pictures of any size in an engine that takes multiples of the stride: repeat the edges, then crop."""
    _, height, width, _ = images_NHWC.shape
    stride_px = engine.card.stride_px
    padded_NHWC = np.pad(images_NHWC, ((0, 0), (0, -height % stride_px), (0, -width % stride_px), (0, 0)), "edge")
    return engine.run(np.ascontiguousarray(padded_NHWC))[:, :height, :width]
