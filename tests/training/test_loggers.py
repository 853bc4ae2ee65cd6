import csv
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from carmask.imaging.encode import encode_png
from carmask.models.card import ModelCard
from carmask.models.network import Network
from carmask.training import loggers
from carmask.training.config import TrainSettings
from carmask.training.loggers import RunLogger, TensorBoard
from carmask.training.run_folder import RunFolder
from tiny_runs import SMALL, TINY, assert_same_training, train

SETTINGS = TrainSettings(data=Path("photos"), optimizer={"lr": 0.002})


def events(folder: Path) -> EventAccumulator:
    """What TensorBoard's own reader finds in a run's folder."""
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return found.Reload()


def test_tensorboard_reads_what_the_run_s_folder_says(finished: tuple[RunFolder, str]) -> None:
    run, _ = finished
    found = events(run.path)
    with run.metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for tag, column in (("held_out/dice", "dice"), ("held_out/dice_worst", "dice_worst"), ("loss/epoch", "train_loss")):
        expected = [(int(row["step"]), pytest.approx(float(row[column]), abs=1e-6)) for row in rows]
        assert [(event.step, event.value) for event in found.Scalars(tag)] == expected
    assert [event.step for event in found.Scalars("loss/train")] == [1, 4, 8, 11, 12]
    pictures = found.Images("held_out/samples")
    assert [picture.step for picture in pictures] == [4, 8, 12]
    for picture, name in zip(pictures, ("epoch_001", "epoch_002", "epoch_003"), strict=True):
        shown = Image.open(io.BytesIO(picture.encoded_image_string))
        assert np.array_equal(np.asarray(shown), np.asarray(Image.open(run.samples / f"{name}.png")))
    table = found.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| optimizer.lr | 0.01 |" in table


def test_tensorboard_discards_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    for first, last, value in ((1, 6, 1.0), (5, 8, 2.0)):
        board = TensorBoard(RunFolder(tmp_path), SETTINGS, first - 1, pytest.fail)
        for step in range(first, last + 1):
            board.add_scalars(step, {"loss/train": value})
        board.close()
    values = [(event.step, event.value) for event in events(tmp_path).Scalars("loss/train")]
    assert sorted(values) == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2), (7, 2), (8, 2)]


def test_what_was_recorded_is_on_the_disk_before_the_run_ends(tmp_path: Path) -> None:
    board = TensorBoard(RunFolder(tmp_path), SETTINGS, 0, pytest.fail)
    board.add_scalars(1, {"lr": 0.5})
    assert [event.value for event in events(tmp_path).Scalars("lr")] == [0.5]
    board.close()


def test_tensorboard_is_imported_only_if_it_is_used() -> None:
    script = "import sys; from carmask.training import experiments; print('tensorboard' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("cause", ["no folder", "missing", "broken"])
def test_tensorboard_that_cannot_be_opened_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cause: str
) -> None:
    if cause == "no folder":
        (tmp_path / "tensorboard").write_text("a file where TensorBoard needs a folder")
    elif cause == "missing":
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # Python's sign of a failed import
    else:
        # As a package does that does not fit another one.
        (tmp_path / "packages" / "tensorboard").mkdir(parents=True)
        (tmp_path / "packages" / "tensorboard" / "__init__.py").write_text("raise AttributeError('np.float_')")
        monkeypatch.syspath_prepend(tmp_path / "packages")
        for name in [name for name in sys.modules if name.startswith(("tensorboard", "torch.utils.tensorboard"))]:
            monkeypatch.delitem(sys.modules, name)
    warnings: list[str] = []
    board = TensorBoard(RunFolder(tmp_path), SETTINGS, 0, warnings.append)
    board.add_scalars(1, {"lr": 0.1})
    board.close()
    assert len(warnings) == 1


# TensorBoard's own thread, which writes, ends with the error too.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_is_warned_of_once(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="Windows knows no limit to a file's size")
    warnings: list[str] = []
    board = TensorBoard(RunFolder(tmp_path), SETTINGS, 0, warnings.append)
    board.add_scalars(1, {"lr": 0.1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise_png = encode_png(np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8))
    # Files may not grow beyond this: writing fails as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, before[1]))
    try:
        until_s = time.monotonic() + 60
        while not warnings and time.monotonic() < until_s:
            board.add_image(2, "noise", noise_png, (200, 200))
        for thread in threading.enumerate():
            if type(thread).__name__ == "_AsyncWriterThread":
                thread.join()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    board.add_scalars(9, {"lr": 0.2})
    board.close()
    assert len(warnings) == 1
    assert [event.step for event in events(tmp_path).Scalars("lr")] == [1]


def test_training_goes_on_without_tensorboard_if_it_fails(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = train(make(TINY, name="whole"))

    def fail(*_: object) -> None:
        raise ConnectionError("no route to the file server")

    with monkeypatch.context() as patched:
        patched.setattr(torch.utils.tensorboard.SummaryWriter, "add_scalar", fail)
        run, printed = train(make({**TINY, "tensorboard": True}, name="failing"))
    assert printed.count("warning") == 1
    assert_same_training(run, whole)


def test_without_a_run_only_lines_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    logger = RunLogger(Console(file=printed))
    with logger.running(SETTINGS, 0, 4):
        logger.log_step(1)
        logger.log_loss(1, 0.5, 10.0)
        logger.info("[a line] as it is")
    assert printed.getvalue() == "[a line] as it is\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("one_class", ["background", "vehicle"])
def test_masks_of_one_class_are_warned_of_once(make: Any, tmp_path: Path, one_class: str) -> None:
    settings = make(
        {**SMALL, "network": {"widths": [2, 2]}, "tensorboard": False},
        epochs=2,
        epoch_samples=4,
        optimizer={"name": "sgd", "lr": 1e-12},
        init=tmp_path / "biased",
    )
    network = Network(ModelCard(name="small", unet=settings.unet(), geometry=settings.geometry()))
    with torch.no_grad():
        network.unet.head.bias.fill_(-60.0 if one_class == "background" else 60.0)
    network.save_pretrained(tmp_path / "biased")
    _, printed = train(settings)
    (warning,) = [line for line in printed.splitlines() if line.startswith("warning")]
    assert one_class in warning


def test_a_network_that_finds_both_classes_is_not_warned_of(finished: tuple[RunFolder, str]) -> None:
    assert "warning" not in finished[1]


def test_the_speed_is_the_median_of_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(loggers.time, "perf_counter", lambda: now_s)
    throughput = loggers.Throughput(0, batch_size=8)
    # Blocks of ten steps, in one of which the machine paused.
    for block, block_s in enumerate((5.0, 100.0, 4.0), 1):
        now_s += block_s
        throughput.end_block(10 * block)
    assert throughput.images_per_s == pytest.approx(8 / 0.5)
    assert throughput.total_s == 109
