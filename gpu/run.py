"""Train a packed data set for some minutes, and leave what must come back in one folder.

    python gpu/run.py pack/carvana-*.zip --config configs/classic-gpu.yaml --split split.json --minutes 8 --out out

The first call unpacks the photos, measures how fast each stage of the configuration is on this machine, and shortens
all stages alike, so that the learning rate reaches its end within the minutes. If a fifth more does not suffice either,
the same call goes on exactly where it stopped. Photos, cache and checkpoints are kept in --work. Written to --out: the
best weights (gpu/weights.py joins them) and NAME-records.zip with settings, metrics, speed, memory and utilization.
"""

import argparse
import csv
import gc
import json
import shutil
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from rich.console import Console

from carmask.environment import environment
from carmask.errors import CarmaskError, explain
from carmask.limits import usable_cpus
from carmask.models.network import Network
from carmask.models.series_file import stages_folder
from carmask.training.config import TrainSettings
from carmask.training.data_loading import epoch_steps, iterate_batches, seed_step
from carmask.training.distributed import DistributedContext
from carmask.training.experiments import run_experiment
from carmask.training.loggers import RunLogger
from carmask.training.run_folder import RunFolder
from carmask.training.series import stage_settings
from carmask.training.setup import set_up_training
from carmask.training.train import train_step
from weights import split

WARM_UP_STEPS, TIMED_STEPS = 4, 8
# Of the time that is left after measuring, this much is planned, and this much of it for the ends of epochs. Training
# that is slower than planned may take up to so much of all minutes.
PLANNED_SHARE, EPOCH_ENDS_SHARE, LATEST_SHARE = 0.95, 0.1, 1.2
# An epoch ends with a checkpoint, validation, and another one.
CHECKPOINTS_PER_EPOCH = 2
# At which the cache of photos is verified when a stage begins.
CHECKSUM_BYTES_PER_S = 1e9
RECORDS = ("config.yaml", "environment.json", "split.json", "metrics.csv", "curves.png")


@dataclass(frozen=True)
class StageSpeed:
    """Photos in an epoch and per second, and the seconds that the end of an epoch and the start of the stage take."""

    epoch_photos: int
    img_per_s: float
    epoch_end_s: float
    begin_s: float


def main() -> None:
    """Unpack, plan, train, and pack the results."""
    began_s = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "photos", type=Path, nargs="+", help="what gpu/pack.py made of a data set, or a folder of photos"
    )
    parser.add_argument("--config", type=Path, required=True, help="settings of the training")
    parser.add_argument("--split", type=Path, help="which photos are held out, if the settings do not say it")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, as preset=small")
    parser.add_argument("--minutes", type=float, required=True, help="plan for so long, decoding included")
    parser.add_argument("--name", help="name of the run; that of the configuration if not given")
    parser.add_argument("--work", type=Path, default=Path("work"), help="folder for photos, cache and checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and records")
    parser.add_argument("--max-mib", type=float, default=15, help="largest size of a file of weights")
    arguments = parser.parse_args()
    name = arguments.name or arguments.config.stem
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        data = unpack(arguments.photos, arguments.work)
        with watch_gpu(arguments.work / f"{name}-gpu.csv"):
            plan_file = arguments.work / f"{name}.yaml"
            if not plan_file.exists():
                settings = TrainSettings.model_validate({
                    "data": data,
                    "config": arguments.config,
                    "name": name,
                    "runs": arguments.work / "runs",
                    "dataset": {"split": arguments.split, "cache": arguments.work / "cache"},
                    "tensorboard": False,
                    **{name: value for name, _, value in (setting.partition("=") for setting in arguments.set)},
                })  # fmt: skip
                seconds = 60 * arguments.minutes
                plan_file.write_text(shorten(settings, began_s + seconds).with_absolute_paths().to_yaml())
            settings = TrainSettings.from_yaml(plan_file)
            minutes_left = LATEST_SHARE * arguments.minutes - (time.monotonic() - began_s) / 60
            result = run_experiment(settings, resume="auto", console=Console(width=120), max_minutes=minutes_left)
        write_results(settings, arguments.out, arguments.work, int(arguments.max_mib * 2**20))
    except ValidationError as error:
        sys.exit(explain(error, TrainSettings))
    except CarmaskError as error:
        sys.exit(str(error))
    print(f"{'finished' if result.finished else 'not finished'} after {time.monotonic() - began_s:.0f} s")


def unpack(archives: list[Path], work: Path) -> Path:
    """Unpack the archives of one data set, those that are unpacked already excepted. Returns the data set's folder."""
    if archives[0].is_dir():
        return archives[0]
    folder = work / archives[0].stem.rpartition("-")[0]
    for path in archives:
        mark = folder / f".{path.name}"
        if not mark.exists():
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
            mark.touch()
    return folder


def shorten(settings: TrainSettings, until_s: float) -> TrainSettings:
    """Return the settings with fewer photos and epochs in all stages, so that training ends at `until_s` (monotonic).

    The stages keep their shares of the time.
    """
    settings = settings.model_copy(update={"stages": settings.stages or ({},)})
    stages = stage_settings(settings)
    speeds = [measure(stage) for stage in stages]
    full_s = [stage.epochs * speed.epoch_photos / speed.img_per_s for stage, speed in zip(stages, speeds, strict=True)]
    left_s = (until_s - time.monotonic()) * PLANNED_SHARE - sum(speed.begin_s for speed in speeds)
    if left_s <= sum(speed.epoch_end_s for speed in speeds):
        raise CarmaskError("decoding and measuring leave no time for training: call again with more --minutes")
    shortened: list[dict[str, Any]] = []
    for given, stage, speed, stage_s in zip(settings.stages, stages, speeds, full_s, strict=True):
        planned_s = left_s * stage_s / sum(full_s)
        epochs = max(1, min(stage.epochs, int(planned_s * EPOCH_ENDS_SHARE / speed.epoch_end_s)))
        photos_s = max(0.0, planned_s - epochs * speed.epoch_end_s)
        samples = max(epochs, min(int(photos_s * speed.img_per_s), stage.epochs * speed.epoch_photos))
        shortened.append({**given, "epochs": epochs, "epoch_samples": samples // epochs})
        print(
            f"stage     {stage.geometry().size_HW}: {speed.img_per_s:.1f} img/s, epochs end in {speed.epoch_end_s:.1f} "
            f"s; {epochs} epochs of {samples // epochs} photos in {photos_s:.0f} s",
            flush=True,
        )
    return settings.model_copy(update={"stages": tuple(shortened)})


def measure(settings: TrainSettings) -> StageSpeed:
    """Train some steps of a stage, and write a checkpoint; nothing of it is kept but the cache of photos."""
    setup, state = set_up_training(settings, DistributedContext(), RunLogger(Console(quiet=True)))
    batch_size = setup.settings.batch_size
    assert batch_size is not None
    for group in state.optimizer.param_groups:
        group["lr"] = 0.0
    state.network.train()
    # Composites are made ahead, one batch in each thread: the first ones would seem to take no time.
    warm_up_steps = WARM_UP_STEPS + (usable_cpus() if settings.composite.probability else 0)
    steps = range(warm_up_steps + TIMED_STEPS)
    step_began_s = 0.0
    for step, batch in iterate_batches(
        setup.data, steps, batch_size, settings.seed, setup.hardware.device, composite=settings.composite
    ):
        if step == warm_up_steps:
            step_began_s = time.perf_counter()
        seed_step(settings.seed, step)
        train_step(setup, state, batch)
    img_per_s = TIMED_STEPS * batch_size / (time.perf_counter() - step_began_s)
    epoch_photos = epoch_steps(setup.settings, setup.data) * batch_size
    checkpoint = settings.runs / ".trial.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    began_s = time.perf_counter()
    state.save(checkpoint, setup.distributed)
    checkpoint_s = time.perf_counter() - began_s
    checkpoint.unlink()
    # A photo is validated in a third of the time: forward only.
    epoch_end_s = CHECKPOINTS_PER_EPOCH * checkpoint_s + len(setup.data.validation) / (3 * img_per_s)
    caches = [source.cache for source in setup.data.sources]
    cache_bytes = sum(cache.images_NHWC.nbytes + cache.masks_NHW.nbytes for cache in caches)
    begin_s = checkpoint_s + cache_bytes / CHECKSUM_BYTES_PER_S
    del setup, state
    gc.collect()
    torch.cuda.empty_cache()
    return StageSpeed(epoch_photos, img_per_s, epoch_end_s, begin_s)


@contextmanager
def watch_gpu(table: Path) -> Iterator[None]:
    """Record utilization, memory and power twice a second while inside, where nvidia-smi is."""
    table.parent.mkdir(parents=True, exist_ok=True)
    tool = shutil.which("nvidia-smi")
    if tool is None:
        yield
        return
    query = ["--query-gpu=timestamp,utilization.gpu,memory.used,power.draw", "--format=csv,noheader,nounits"]
    with table.open("a") as file:
        process = subprocess.Popen([tool, *query, "--loop-ms=500"], stdout=file)  # noqa: S603 - a fixed command
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def write_results(settings: TrainSettings, out: Path, work: Path, limit_bytes: int) -> None:
    """Write the best weights of the last stage that has any, and the records of all stages."""
    assert settings.name is not None
    last = settings.runs / settings.name
    numbers = range(1, len(settings.stages))
    runs = [run for run in (*(stages_folder(last) / str(number) for number in numbers), last) if run.exists()]
    trained = [run for run in runs if RunFolder(run).weights("best").exists()]
    if trained:
        network = Network.load(trained[-1])
        split(network, out, settings.name, limit_bytes)
        dice = network.card.training.get("held_out_dice", "not measured, since no photo is held out")
        print(f"weights   of {trained[-1]}, held-out Dice {dice}")
    figures = {**environment(), "stages": [_speed(run) for run in trained], **_gpu_figures(work, settings.name)}
    print(json.dumps({key: figures[key] for key in figures if key.startswith("gpu")}))
    with zipfile.ZipFile(out / f"{settings.name}-records.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("figures.json", json.dumps(figures, indent=1))
        for file in (work / f"{settings.name}.yaml", work / f"{settings.name}-gpu.csv"):
            if file.exists():
                archive.write(file, file.name)
        for number, run in enumerate(runs, 1):
            for record in filter(Path.exists, (run / file for file in RECORDS)):
                archive.write(record, f"stage-{number}/{record.name}")


def _speed(run: Path) -> dict[str, Any]:
    """The size of the input, and of each epoch Dice, speed and times."""
    with RunFolder(run).metrics.open(newline="") as file:
        rows = [{key: float(row[key]) for key in row if row[key]} for row in csv.DictReader(file)]
    geometry = TrainSettings.from_yaml(RunFolder(run).config).geometry()
    return {"input": geometry.size_HW, "epochs": rows}


def _gpu_figures(work: Path, name: str) -> dict[str, Any]:
    """Peak memory of this process, and median utilization, with all stretches in the table."""
    if not torch.cuda.is_available():
        return {}
    table = work / f"{name}-gpu.csv"
    rows = [line.split(", ") for line in table.read_text().splitlines()] if table.exists() else []
    busy = [float(row[1]) for row in rows if len(row) == 4 and row[1].strip().isdigit()]
    return {
        "gpu": torch.cuda.get_device_name(),
        "gpu_peak_memory_GB": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "gpu_median_utilization_percent": statistics.median(busy) if busy else None,
    }


if __name__ == "__main__":
    main()
