"""What a run prints and records: progress bar, a line per epoch, metrics.csv, curves, sample images, TensorBoard."""

import csv
import io
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from carmask.files import write_bytes_atomically
from carmask.imaging.draw import draw_overlay, sheet
from carmask.imaging.encode import encode_png
from carmask.privacy import fonts_in_temporary_folder
from carmask.progress import say
from carmask.training.checkpoint import EpochMetrics
from carmask.training.config import TrainSettings, flatten
from carmask.training.datasets import TrainingData
from carmask.training.run_folder import RunFolder
from carmask.training.validation import ValidationResult

SAMPLE_COLUMNS = 3
SAMPLE_WIDTH_PX = 320
# Drawing takes half a second, longer than an epoch of few photos.
CURVES_EVERY_S = 10.0
SHOWN_ERROR_LENGTH = 200


class RunLogger:
    """Prints to `console` and, once there is a `run`, records in its folder."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.run: RunFolder | None = None
        self._bar: Progress | None = None
        self._tensorboard: TensorBoard | None = None
        self._has_warned = False
        self._undrawn: Sequence[EpochMetrics] = ()
        self._drawn_s = time.monotonic()

    def info(self, text: str) -> None:
        """Print a line, above the bar."""
        say(self.console, text)

    @contextmanager
    def running(self, settings: TrainSettings, step: int, epoch_steps: int) -> Iterator[None]:
        """Show the bar and keep TensorBoard open while inside; `step` steps are already done."""
        if self.run is None:
            yield
            return
        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[rate]:.1f} img/s  left"),
            TimeRemainingColumn(),
        )
        self._epochs, self._epoch_steps = settings.epochs, epoch_steps
        self._tensorboard = TensorBoard(self.run, settings, step, self.info) if settings.tensorboard else None
        with (
            closing(self._tensorboard) if self._tensorboard else nullcontext(),
            Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as self._bar,
        ):
            self._task = self._bar.add_task(
                "training",
                total=settings.epochs * epoch_steps,
                completed=step,
                epoch=self._epoch_text(step),
                loss="-",
                rate=0.0,
            )
            try:
                yield
            finally:
                self._draw_curves()

    def log_step(self, step: int) -> None:
        """Advance the bar: `step` steps are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, epoch=self._epoch_text(step - 1))

    def log_loss(self, step: int, loss: float, images_per_s: float) -> None:
        """Record the loss of the step that `step` steps end with."""
        if self._bar is not None:
            self._bar.update(self._task, loss=f"{loss:.4f}", rate=images_per_s)
        if self._tensorboard is not None:
            self._tensorboard.add_scalars(step, {"loss/train": loss, "images_per_s": images_per_s})

    def log_epoch(
        self, history: Sequence[EpochMetrics], result: ValidationResult, data: TrainingData, *, is_best: bool
    ) -> None:
        """Print and record the last epoch of `history`."""
        if self.run is None:
            return
        metrics, mark = history[-1], "  best" if is_best else ""
        self.info(
            f"epoch {metrics.epoch:>3}/{self._epochs}  loss {metrics.train_loss:.4f}  Dice {metrics.dice:.5f}  "
            f"median {metrics.dice_median:.5f}  worst {metrics.dice_worst:.4f}  {metrics.images_per_s:.1f} img/s  "
            f"{metrics.train_s + metrics.validation_s:.0f} s{mark}"
        )
        if metrics.dice_of_dataset:
            self.info("          " + "  ".join(f"{name} {dice:.4f}" for name, dice in metrics.dice_of_dataset.items()))
        self._warn_of_one_class(result)
        write_bytes_atomically(self.run.metrics, as_csv(history))
        self._undrawn = history
        if time.monotonic() - self._drawn_s >= CURVES_EVERY_S:
            self._draw_curves()
        samples_HWC = draw_samples(result, data)
        samples_png = encode_png(samples_HWC)
        write_bytes_atomically(self.run.samples / f"epoch_{metrics.epoch:03}.png", samples_png)
        if self._tensorboard is not None:
            held_out = {f"held_out/{name}": getattr(metrics, name) for name in ("dice", "dice_median", "dice_worst")}
            held_out |= {f"held_out/dice_{name}": dice for name, dice in metrics.dice_of_dataset.items()}
            self._tensorboard.add_scalars(
                metrics.step, {"loss/epoch": metrics.train_loss, "lr": metrics.lr, **held_out}
            )
            self._tensorboard.add_image(metrics.step, "held_out/samples", samples_png, samples_HWC.shape[:2])

    def _epoch_text(self, step: int) -> str:
        return f"{min(self._epochs, step // self._epoch_steps + 1)}/{self._epochs}"

    def _warn_of_one_class(self, result: ValidationResult) -> None:
        if self._has_warned or result.coverages not in ({0.0}, {1.0}):
            return
        self._has_warned = True
        masks, class_ = ("empty", "background") if result.coverages == {0.0} else ("full", "vehicle")
        self.info(
            f"warning   all held-out masks are {masks}: the network calls every pixel {class_}. In the first "
            "epochs that may pass; if it does not, start again with a lower --optimizer.lr, test with --overfit-batch "
            "whether it can learn one batch at all, and look at the masks with `carmask check`"
        )

    def _draw_curves(self) -> None:
        if self._undrawn:
            assert self.run is not None
            write_bytes_atomically(self.run.path / "curves.png", draw_curves(self._undrawn))
            self._undrawn, self._drawn_s = (), time.monotonic()


class TensorBoard:
    """Writes to the run's tensorboard folder. If that fails, it warns once, and training goes on."""

    def __init__(self, run: RunFolder, settings: TrainSettings, step: int, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._failed = False
        self._writer: Any = None
        self._try(lambda: self._open(run, settings, step))

    def _open(self, run: RunFolder, settings: TrainSettings, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Events after the checkpoint, from before the run was killed, are discarded: they are written again.
        self._writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=step + 1)
        if step == 0:
            values = flatten(settings.model_dump(mode="json", exclude={"config"}))
            rows = (f"| {name} | {value} |" for name, value in values.items())
            self._writer.add_text("settings", "\n".join(("| setting | value |", "|---|---|", *rows)))

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record values after `step` steps, by names such as "held_out/dice"."""
        self._try(lambda: [self._writer.add_scalar(name, value, step) for name, value in values.items()])

    def add_image(self, step: int, name: str, png: bytes, size_HW: tuple[int, ...]) -> None:
        """Record an RGB picture, encoded as PNG, after `step` steps."""
        self._try(lambda: self._add_image(step, name, png, size_HW))

    def _add_image(self, step: int, name: str, png: bytes, size_HW: tuple[int, ...]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        # The writer's own add_image would encode the pixels once more, which takes several times as long.
        image = Summary.Image(height=size_HW[0], width=size_HW[1], colorspace=3, encoded_image_string=png)
        self._writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def close(self) -> None:
        """Write what is buffered."""
        self._try(lambda: self._writer.close())

    def _try(self, write: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            write()
            # The run may be killed at any time.
            self._writer.flush()
        except Exception as error:  # noqa: BLE001 - whatever TensorBoard raises, training is worth more
            self._failed = True
            cause = shorten(f"{type(error).__name__}: {error}", SHOWN_ERROR_LENGTH, placeholder=" ...")
            self._warn(
                f"warning   TensorBoard has failed ({cause}) and records nothing more; training goes on, and the run's "
                "folder has everything else"
            )


class Throughput:
    """Images per second within an epoch, measured over blocks of steps."""

    def __init__(self, step: int, batch_size: int) -> None:
        self.total_s = 0.0
        self._batch_size = batch_size
        self._step, self._began_s = step, time.perf_counter()
        self._step_s: list[float] = []

    def end_block(self, step: int) -> None:
        """`step` steps are done, and the device has finished them."""
        block_s = time.perf_counter() - self._began_s
        self._step_s.append(block_s / (step - self._step))
        self.total_s += block_s
        self._step, self._began_s = step, time.perf_counter()

    @property
    def images_per_s(self) -> float:
        """Median over the blocks, so that one pause of the machine does not count."""
        return self._batch_size / statistics.median(self._step_s)


def as_csv(history: Sequence[EpochMetrics]) -> bytes:
    """`metrics.csv`, always of the whole history, so that a resumed run has each epoch once."""
    text = io.StringIO()
    rows = [metrics.model_dump() for metrics in history]
    for row in rows:
        row |= {f"dice_{name}": dice for name, dice in row.pop("dice_of_dataset").items()}
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def draw_curves(history: Sequence[EpochMetrics]) -> bytes:
    """Loss and held-out Dice over the epochs, as PNG."""
    with fonts_in_temporary_folder():
        from matplotlib.figure import Figure

    epochs = [metrics.epoch for metrics in history]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [metrics.train_loss for metrics in history], marker=".", color="#b5482f")
    left.set(title="training loss", xlabel="epoch", yscale="log")
    right.plot(epochs, [metrics.dice for metrics in history], marker=".", color="#1f6f8b", label="mean")
    right.plot(epochs, [metrics.dice_median for metrics in history], color="#8fbcd4", label="median")
    right.set(title="Dice on held-out photos, at their own size", xlabel="epoch")
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def draw_samples(result: ValidationResult, data: TrainingData) -> NDArray[np.uint8]:
    """Sheet of a few held-out photos, the same each time, at network size under their predicted masks."""
    tiles = []
    for id_, mask_HW in result.sample_masks.items():
        overlay_HWC = draw_overlay(data.read(id_).image_HWC[..., :3], mask_HW)
        tiles.append((f"{id_}  {result.dice_of[id_]:.4f}", overlay_HWC))
    return sheet(tiles, columns=SAMPLE_COLUMNS, tile_width_px=SAMPLE_WIDTH_PX)
