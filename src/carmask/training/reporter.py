"""What a run shows and writes while it trains: bar, a line for each epoch, CSV, curves, samples, TensorBoard."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from carmask.data.cache import Cache
from carmask.files import write_bytes_atomically
from carmask.imaging.draw import draw_overlay, sheet
from carmask.imaging.encode import encode_png
from carmask.training.history import EpochRow, as_csv, draw_curves
from carmask.training.run import RunFolder
from carmask.training.validation import Validation

SAMPLE_PHOTOS = 6
SAMPLE_COLUMNS = 3
SAMPLE_WIDTH_PX = 320


class RunReporter:
    """Shows a run to a person and writes its records into the run's folder."""

    def __init__(self, run: RunFolder, console: Console, epochs: int, cache: Cache, held_out: Sequence[str]) -> None:
        chosen = np.linspace(0, len(held_out) - 1, min(SAMPLE_PHOTOS, len(held_out))).round().astype(int)
        self.sample_ids = frozenset(held_out[place] for place in chosen)
        self._run = run
        self._console = console
        self._epochs = epochs
        self._cache = cache
        self._bar: Progress | None = None
        self._task: TaskID | None = None

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
            SummaryWriter(str(self._run.path / "tensorboard"), purge_step=step + 1) as self._board,
            Progress(
                *columns, console=self._console, transient=True, disable=not self._console.is_terminal
            ) as self._bar,
        ):
            self._task = self._bar.add_task(
                "training", total=total_steps, completed=step, epoch=self._epoch_text(step), loss="-", rate=0.0
            )
            yield

    def step(self, step: int) -> None:
        """`step` steps are done."""
        self._update(completed=step, epoch=self._epoch_text(step - 1))

    def loss(self, step: int, value: float, images_per_s: float) -> None:
        """After `step` steps the loss was `value`."""
        self._board.add_scalar("loss/train", value, step)
        self._update(loss=f"{value:.4f}", rate=images_per_s)

    def epoch(self, history: Sequence[EpochRow], result: Validation, *, is_best: bool) -> None:
        """An epoch is done and measured: the last of the history."""
        row, mark = history[-1], "  best" if is_best else ""
        self.say(
            f"epoch {row.epoch:>3}/{self._epochs}  loss {row.train_loss:.4f}  Dice {row.dice:.5f}  "
            f"median {row.dice_median:.5f}  worst {row.dice_worst:.4f}  {row.images_per_s:.1f} img/s  "
            f"{row.train_s + row.validation_s:.0f} s{mark}"
        )
        for name in ("dice", "dice_median", "dice_worst"):
            self._board.add_scalar(f"held out/{name}", getattr(row, name), row.step)
        self._board.add_scalar("lr", row.lr, row.step)
        self._board.flush()
        write_bytes_atomically(self._run.metrics, as_csv(history))
        write_bytes_atomically(self._run.path / "curves.png", draw_curves(history))
        write_bytes_atomically(self._run.samples / f"epoch_{row.epoch:03}.png", self._draw_samples(result))

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _update(self, **fields: Any) -> None:
        assert self._bar is not None
        assert self._task is not None
        self._bar.update(self._task, **fields)

    def _epoch_text(self, step: int) -> str:
        return f"{min(self._epochs, step // self._steps_in_epoch + 1)}/{self._epochs}"

    def _draw_samples(self, result: Validation) -> bytes:
        """The same held-out photos each time, as the network sees and cuts them."""
        tiles = []
        for id_, mask_HW in result.shown.items():
            image_HWC = self._cache.images_NHWC[self._cache.row_of[id_]]
            tiles.append((f"{id_}  {result.dice_of[id_]:.4f}", draw_overlay(image_HWC, mask_HW)))
        return encode_png(sheet(tiles, columns=SAMPLE_COLUMNS, tile_width_px=SAMPLE_WIDTH_PX))
