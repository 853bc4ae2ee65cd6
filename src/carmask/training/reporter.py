"""What a run shows and writes while it trains: bar, a line for each epoch, CSV, curves, samples, trackers."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from carmask.data.cache import Cache
from carmask.files import write_bytes_atomically
from carmask.imaging.draw import draw_overlay, sheet
from carmask.imaging.encode import encode_png
from carmask.training.history import EpochRow, as_csv, draw_curves
from carmask.training.recording import Trackers
from carmask.training.run import RunFolder
from carmask.training.settings import TrainSettings
from carmask.training.validation import Validation

SAMPLE_COLUMNS = 3
SAMPLE_WIDTH_PX = 320
# Drawing takes half a second, longer than an epoch of few photos.
CURVES_EVERY_S = 10.0


def say(console: Console, text: str, *, style: str = "") -> None:
    """Print a line as it is: not broken, however long, and with no markup seen in names."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


class Reporter(Protocol):
    """Whom the loop tells how the run is going."""

    def showing(self, step: int, total_steps: int, steps_in_epoch: int) -> AbstractContextManager[None]:
        """While inside, the run is under way; `step` steps are done before."""
        ...

    def step(self, step: int) -> None:
        """`step` steps are done."""
        ...

    def loss(self, step: int, value: float, images_per_s: float) -> None:
        """After `step` steps the loss was `value`."""
        ...

    def epoch(self, history: Sequence[EpochRow], result: Validation, *, is_best: bool) -> None:
        """An epoch is done and measured: the last of the history."""
        ...

    def say(self, text: str) -> None:
        """Something for a person to read."""
        ...


class SilentReporter:
    """For every process of a team but the first: shows and writes nothing."""

    def showing(self, step: int, total_steps: int, steps_in_epoch: int) -> AbstractContextManager[None]:  # noqa: ARG002
        """See `Reporter`, as for all that follows."""
        return nullcontext()

    def step(self, step: int) -> None:
        """Nothing."""

    def loss(self, step: int, value: float, images_per_s: float) -> None:
        """Nothing."""

    def epoch(self, history: Sequence[EpochRow], result: Validation, *, is_best: bool) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


class SayingReporter(SilentReporter):
    """For what is no run, and has no folder: says what is for a person to read, and nothing else."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """Print a line."""
        say(self._console, text)


class RunReporter:
    """Shows a run to a person, and has it recorded in its folder and by the trackers that its settings name."""

    def __init__(self, run: RunFolder, console: Console, settings: TrainSettings, cache: Cache) -> None:
        self._run = run
        self._console = console
        self._epochs = settings.epochs
        self._cache = cache
        self._trackers = Trackers(settings)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._has_warned = False
        self._undrawn: Sequence[EpochRow] = ()
        self._drawn_s = time.monotonic()

    @contextmanager
    def showing(self, step: int, total_steps: int, steps_in_epoch: int) -> Iterator[None]:
        """Show the bar while inside, and have the trackers record.

        Raises:
            TrackerError: one cannot begin.

        """
        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[rate]:.1f} img/s  left"),
            TimeRemainingColumn(),
        )
        self._steps_in_epoch = steps_in_epoch
        with (
            self._trackers.recording(self._run.path, step, self.say),
            Progress(
                *columns, console=self._console, transient=True, disable=not self._console.is_terminal
            ) as self._bar,
        ):
            self._task = self._bar.add_task(
                "training", total=total_steps, completed=step, epoch=self._epoch_text(step), loss="-", rate=0.0
            )
            try:
                yield
            finally:
                self._draw_curves()

    def step(self, step: int) -> None:
        """`step` steps are done."""
        self._update(completed=step, epoch=self._epoch_text(step - 1))

    def loss(self, step: int, value: float, images_per_s: float) -> None:
        """After `step` steps the loss was `value`."""
        self._trackers.scalars(step, {"loss/train": value, "images_per_s": images_per_s})
        self._update(loss=f"{value:.4f}", rate=images_per_s)

    def epoch(self, history: Sequence[EpochRow], result: Validation, *, is_best: bool) -> None:
        """An epoch is done and measured: the last of the history."""
        row, mark = history[-1], "  best" if is_best else ""
        held_out = {f"held_out/{name}": getattr(row, name) for name in ("dice", "dice_median", "dice_worst")}
        self._trackers.scalars(row.step, {"loss/epoch": row.train_loss, "lr": row.lr, **held_out})
        self.say(
            f"epoch {row.epoch:>3}/{self._epochs}  loss {row.train_loss:.4f}  Dice {row.dice:.5f}  "
            f"median {row.dice_median:.5f}  worst {row.dice_worst:.4f}  {row.images_per_s:.1f} img/s  "
            f"{row.train_s + row.validation_s:.0f} s{mark}"
        )
        self._warn_of_one_class(result)
        write_bytes_atomically(self._run.metrics, as_csv(history))
        self._undrawn = history
        if time.monotonic() - self._drawn_s >= CURVES_EVERY_S:
            self._draw_curves()
        samples_HWC = self._draw_samples(result)
        write_bytes_atomically(self._run.samples / f"epoch_{row.epoch:03}.png", encode_png(samples_HWC))
        self._trackers.picture(row.step, "held_out/samples", samples_HWC)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        say(self._console, text)

    def _update(self, **fields: Any) -> None:
        assert self._bar is not None
        assert self._task is not None
        self._bar.update(self._task, **fields)

    def _epoch_text(self, step: int) -> str:
        return f"{min(self._epochs, step // self._steps_in_epoch + 1)}/{self._epochs}"

    def _warn_of_one_class(self, result: Validation) -> None:
        if result.one_class is None or self._has_warned:
            return
        self._has_warned = True
        masks = "empty" if result.one_class == "background" else "full"
        self.say(
            f"warning   all held-out masks are {masks}: the network calls every pixel {result.one_class}. In the first "
            "epochs that may pass; if it does not, start again with a lower --optimizer.lr, see with --overfit-batch "
            "whether it can learn one batch at all, and look at the masks with `carmask check`"
        )

    def _draw_curves(self) -> None:
        if self._undrawn:
            write_bytes_atomically(self._run.path / "curves.png", draw_curves(self._undrawn))
            self._undrawn, self._drawn_s = (), time.monotonic()

    def _draw_samples(self, result: Validation) -> NDArray[np.uint8]:
        """The same held-out photos each time, as the network sees and cuts them."""
        tiles = []
        for id_, mask_HW in result.shown.items():
            image_HWC = self._cache.images_NHWC[self._cache.row_of[id_]]
            tiles.append((f"{id_}  {result.dice_of[id_]:.4f}", draw_overlay(image_HWC, mask_HW)))
        return sheet(tiles, columns=SAMPLE_COLUMNS, tile_width_px=SAMPLE_WIDTH_PX)
