"""Float against int8, in each engine: Dice, and milliseconds for a photo on the network's canvas."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from carmask.errors import CarmaskError
from carmask.exporting.parity import Figures, Reference, open_engines
from carmask.progress import Progress
from carmask.runtime.engine import Engine

# An int8 file that loses more Dice than this, or whose masks have less Dice with PyTorch's own, is refused, unless that
# is allowed. A good network's masks have 0.9996, those of one that has seen 32 photos 0.989.
DROP_LIMIT = 5e-4
SAME_MASK_LIMIT = 0.98

# Runs of each file that are timed, in turn, after one that is not.
_TIMED = 9


class DropError(CarmaskError):
    """Quantizing costs too much Dice, or changes the masks too much."""


@dataclass(frozen=True)
class Comparison:
    """One engine's figures for a float file and its int8 version, and its milliseconds for one photo."""

    floating: Figures
    int8: Figures
    floating_ms: float
    int8_ms: float

    @property
    def drop(self) -> float:
        """By how much the Dice is lower in int8."""
        return self.floating.dice - self.int8.dice


def compare(
    floating: bytes, figures: Sequence[Figures], int8: bytes, reference: Reference, progress: Progress
) -> list[Comparison]:
    """Compare an int8 file with the float one, of which `figures` are known, in each engine that is installed.

    Each engine runs the float file in the precision that it chooses by itself. `progress` is called with (photos done,
    photos in all), for each engine anew.
    """
    compared = []
    for float_engine, int8_engine in zip(open_engines(floating, ("auto",)), open_engines(int8, ("auto",)), strict=True):
        key = float_engine.name, float_engine.precision
        known = next(one for one in figures if (one.engine, one.precision) == key)
        measured = reference.measure(int8_engine, progress)
        float_ms, int8_ms = _time([float_engine, int8_engine], reference)
        compared.append(Comparison(known, measured, float_ms, int8_ms))
    return compared


def refuse_drop(compared: Sequence[Comparison]) -> None:
    """Raise `DropError` where int8 loses too much Dice in an engine, or gives other masks than PyTorch."""
    faults = []
    for one in compared:
        if not one.drop <= DROP_LIMIT:
            faults.append(f"its Dice in {one.int8.engine} is {one.drop:.4f} lower, and {DROP_LIMIT:g} is allowed")
        if not one.int8.same_mask >= SAME_MASK_LIMIT:
            faults.append(
                f"its masks in {one.int8.engine} have a Dice of {one.int8.same_mask:.4f} with PyTorch's, and "
                f"{SAME_MASK_LIMIT:g} is wanted"
            )
    if faults:
        raise DropError(
            f"int8 costs too much: {'; '.join(faults)}; nothing was written. Calibrate on photos like those it will "
            "see (--calibration), export without --int8, or take the loss with --allow-drop"
        )


def _time(engines: Sequence[Engine], reference: Reference) -> list[float]:
    """Median milliseconds for one photo in each engine, by turns, so that what else the machine does meets them all."""
    canvas_HWC = reference.looks[0].fitted.views[0].image_HWC
    images_NHWC = np.ascontiguousarray(canvas_HWC[None])
    taken_ms: list[list[float]] = [[] for _ in engines]
    for _ in range(1 + _TIMED):
        for engine, times_ms in zip(engines, taken_ms, strict=True):
            started_s = perf_counter()
            engine.run(images_NHWC)
            times_ms.append((perf_counter() - started_s) * 1000)
    return [median(times_ms[1:]) for times_ms in taken_ms]
