"""What a run shows and writes while it trains: bar, a line for each epoch, CSV, curves, samples, TensorBoard."""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from carmask.data.cache import Cache
from carmask.imaging.encode import draw_overlay, encode_png, sheet, write_bytes_atomically
from carmask.runtime.hardware import Hardware
from carmask.training.run import RunFolder
from carmask.training.validation import Validation

if TYPE_CHECKING:
    from carmask.training.loop import TrainingState

SAMPLE_PHOTOS = 6
SAMPLE_COLUMNS = 3
SAMPLE_WIDTH_PX = 320
LOSS_SHOWN_STEPS = 10


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


class RunReporter:
    """Shows a run to a person and writes its records into the run's folder."""

    def __init__(
        self, run: RunFolder, console: Console, epochs: int, cache: Cache, held_out: Sequence[str], hardware: Hardware
    ) -> None:
        self._run = run
        self._console = console
        self._epochs = epochs
        self._cache = cache
        self._hardware = hardware
        chosen = np.linspace(0, len(held_out) - 1, min(SAMPLE_PHOTOS, len(held_out))).round().astype(int)
        self._sample_ids = [held_out[place] for place in chosen]
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._loss = ""

    @contextmanager
    def showing(self, step: int, total_steps: int, steps_in_epoch: int) -> Iterator[None]:
        """Show the bar while inside; open TensorBoard's file."""
        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[rate]:.1f} img/s  left"),
            TimeRemainingColumn(),
        )
        self._steps_in_epoch = steps_in_epoch
        with (
            SummaryWriter(str(self._run.path / "tensorboard"), purge_step=step) as self._board,
            Progress(
                *columns, console=self._console, transient=True, disable=not self._console.is_terminal
            ) as self._bar,
        ):
            self._task = self._bar.add_task(
                "training", total=total_steps, completed=step, epoch=self._epoch_text(step), loss="-", rate=0.0
            )
            yield

    def step(self, step: int, loss: Tensor, images_per_s: float) -> None:
        """A step is done (`step` of them by now)."""
        assert self._bar is not None
        assert self._task is not None
        if step % LOSS_SHOWN_STEPS == 1 or not self._loss:
            value = float(loss)
            self._loss = f"{value:.4f}"
            self._board.add_scalar("loss/train", value, step)
        epoch = self._epoch_text(step - 1)
        self._bar.update(self._task, completed=step, epoch=epoch, loss=self._loss, rate=images_per_s)

    def epoch(self, row: EpochRow, state: "TrainingState", result: Validation) -> None:
        """An epoch is done and measured."""
        mark = "  best" if state.best_epoch == row.epoch else ""
        self.say(
            f"epoch {row.epoch:>3}/{self._epochs}  loss {row.train_loss:.4f}  Dice {row.dice:.5f}  "
            f"median {row.dice_median:.5f}  worst {row.dice_worst:.4f}  {row.images_per_s:.1f} img/s  "
            f"{row.train_s + row.validation_s:.0f} s{mark}"
        )
        for name in ("dice", "dice_median", "dice_worst"):
            self._board.add_scalar(f"held out/{name}", getattr(row, name), row.step)
        self._board.add_scalar("lr", row.lr, row.step)
        self._board.flush()
        write_bytes_atomically(self._run.metrics, as_csv(state.history))
        write_bytes_atomically(self._run.path / "curves.png", draw_curves(state.history))
        write_bytes_atomically(self._run.samples / f"epoch_{row.epoch:03}.png", self._draw_samples(state, result))

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _epoch_text(self, step: int) -> str:
        return f"{min(self._epochs, step // self._steps_in_epoch + 1)}/{self._epochs}"

    def _draw_samples(self, state: "TrainingState", result: Validation) -> bytes:
        """The same held-out photos each time, as the network sees and cuts them."""
        images_NHWC = self._cache.images_NHWC[[self._cache.row_of[id_] for id_ in self._sample_ids]]
        x_BCHW = torch.from_numpy(images_NHWC).to(self._hardware.device).permute(0, 3, 1, 2).float() / 255
        network = state.validated
        network.eval()
        with torch.inference_mode(), self._hardware.autocast():
            masks_BHW = (network(x_BCHW)[:, 0].float().sigmoid() >= network.config.threshold).cpu().numpy()
        state.network.train()
        tiles = []
        for id_, image_HWC, mask_HW in zip(self._sample_ids, images_NHWC, masks_BHW, strict=True):
            tiles.append((f"{id_}  {result.dice_of[id_]:.4f}", draw_overlay(_as_rgb(image_HWC), mask_HW)))
        return encode_png(sheet(tiles, columns=SAMPLE_COLUMNS, tile_width_px=SAMPLE_WIDTH_PX))


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


def _as_rgb(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(image_HWC, 3, axis=2) if image_HWC.shape[2] == 1 else image_HWC
