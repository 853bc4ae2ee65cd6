"""What a run measured, epoch by epoch: as rows, as CSV and as curves."""

import csv
import io
import statistics
import time
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict


class EpochRow(BaseModel):
    """One row of `metrics.csv`. Dice is measured on held-out photos at their own size."""

    model_config = ConfigDict(frozen=True)

    epoch: int
    step: int
    photos: int
    lr: float
    train_loss: float
    dice: float
    dice_median: float
    dice_worst: float
    images_per_s: float
    train_s: float
    validation_s: float


class Pace:
    """Speed within one epoch, by blocks of steps that each end when the device has caught up."""

    def __init__(self, step: int, batch_size: int) -> None:
        self.batch_size = batch_size
        self.total_s = 0.0
        self._step, self._began_s = step, time.perf_counter()
        self._step_s: list[float] = []

    def mark(self, step: int) -> None:
        """`step` steps of the run are done, and the device has nothing left to do."""
        block_s = time.perf_counter() - self._began_s
        if step > self._step:
            self._step_s.append(block_s / (step - self._step))
        self.total_s += block_s
        self._step, self._began_s = step, time.perf_counter()

    @property
    def images_per_s(self) -> float:
        """Median over the blocks: a pause of the machine in one of them does not count."""
        return self.batch_size / statistics.median(self._step_s)


def as_csv(history: Sequence[EpochRow]) -> bytes:
    """`metrics.csv`: the whole history each time, so that a resumed run has each epoch once."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(EpochRow.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in history)
    return text.getvalue().encode()


def draw_curves(history: Sequence[EpochRow]) -> bytes:
    """Loss and held-out Dice over the epochs, as PNG."""
    from matplotlib.figure import Figure

    epochs = [row.epoch for row in history]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [row.train_loss for row in history], marker=".", color="#b5482f")
    left.set(title="training loss", xlabel="epoch", yscale="log")
    right.plot(epochs, [row.dice for row in history], marker=".", color="#1f6f8b", label="mean")
    right.plot(epochs, [row.dice_median for row in history], color="#8fbcd4", label="median")
    right.set(title="Dice on held-out photos, at their own size", xlabel="epoch")
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()
