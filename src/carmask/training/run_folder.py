"""The folder of a training run.

config.yaml        all settings                 metrics.csv     one row per epoch
environment.json   versions and machine         curves.png      the same, as a picture
split.json         which photos are held out    samples/        predictions for held-out photos, each epoch
checkpoint.pt      what a run resumes from      tensorboard/    for TensorBoard
checkpoint.previous.pt   the one before         left_out.csv    photos that could not be used, and why, if any
weights/best, weights/last                      the network: model.safetensors and config.json
"""

import csv
import datetime
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from carmask.environment import environment
from carmask.errors import CarmaskError, first_line
from carmask.files import flush_to_disk, write_bytes_atomically
from carmask.models.config import BEST_OF_RUN, CONFIG_OF_RUN, METRICS_OF_RUN, SPLIT_OF_RUN, WEIGHTS
from carmask.models.network import Network, WeightsError
from carmask.training.config import TrainSettings


class RunError(CarmaskError):
    """A run's folder that cannot be created or used."""


@dataclass
class RunFolder:
    """Paths inside the folder of a run."""

    path: Path

    def __post_init__(self) -> None:
        self.config = self.path / CONFIG_OF_RUN
        self.environment = self.path / "environment.json"
        self.split = self.path / SPLIT_OF_RUN
        self.checkpoint = self.path / "checkpoint.pt"
        self.metrics = self.path / METRICS_OF_RUN
        self.samples = self.path / "samples"

    @classmethod
    def new(cls, settings: TrainSettings) -> "RunFolder":
        """Choose the folder of a new run; writes nothing.

        Raises:
            RunError: it exists.
        """
        now = datetime.datetime.now().astimezone()
        run = cls(settings.runs / (settings.name or f"{settings.preset}-{now:%Y%m%d-%H%M%S}"))
        if run.path.exists():
            raise RunError(
                f"{run.path}: exists already; go on with `carmask train --resume {run.path}`, or choose another --name"
            )
        return run

    @classmethod
    def existing(cls, path: Path) -> "RunFolder":
        """Return the folder of a run that was started.

        Raises:
            RunError: it is not one.
        """
        run = cls(path)
        if not run.config.is_file():
            raise RunError(f"{path}: not the folder of a run (no {CONFIG_OF_RUN} in it)")
        return run

    @contextmanager
    def creating(self, settings: TrainSettings) -> Iterator["RunFolder"]:
        """Write settings and environment to a temporary folder, which gets the run's name when the block ends.

        Raises:
            RunError: it cannot be created.
        """
        partial = RunFolder(self.path.with_name(f".{self.path.name}.partial"))
        try:
            shutil.rmtree(partial.path, ignore_errors=True)
            partial.samples.mkdir(parents=True)
            write_bytes_atomically(partial.config, settings.to_yaml().encode(), fsync=True)
            _write_json(partial.environment, environment())
            yield partial
            partial.path.rename(self.path)
            flush_to_disk(self.path.parent)
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot be created ({error.strerror}); choose another --runs folder"
            ) from error

    def record_resumption(self, settings: TrainSettings) -> None:
        """Add version and machine on which the run is resumed to environment.json, and note settings that changed."""
        if settings.to_yaml() != self.config.read_text(encoding="utf-8"):
            write_bytes_atomically(self.config, settings.to_yaml().encode(), fsync=True)
        try:
            started = json.loads(self.environment.read_bytes())
        except (OSError, ValueError):
            # Missing or damaged. It is only a record, without which the run can go on.
            started = {}
        _write_json(self.environment, {**started, "resumed": [*started.get("resumed", []), environment()]})

    def write_left_out(self, skipped: Sequence[tuple[str, str]]) -> None:
        """List the photos that could not be used, with the cause; no file if there are none."""
        if skipped:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([("photo", "cause"), *skipped])
            write_bytes_atomically(self.path / "left_out.csv", text.getvalue().encode("utf-8", "backslashreplace"))

    def weights(self, which: str) -> Path:
        """The folder of the `best` or the `last` weights."""
        return self.path / BEST_OF_RUN.with_name(which)

    def save_weights(self, network: Network, which: str) -> None:
        """Write weights to a temporary folder and rename it. The old ones are kept until `remove_old_weights`."""
        folder = self.weights(which)
        partial, old = folder.with_name(f"{which}.partial"), _old(folder)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            network.save_pretrained(partial)
            if which == "best":
                # The next checkpoint refers to them. It contains the last weights itself.
                for file in (*(partial / name for name in WEIGHTS), partial):
                    flush_to_disk(file)
            if folder.exists():
                shutil.rmtree(old, ignore_errors=True)
                folder.rename(old)
            partial.rename(folder)
            if which == "best":
                flush_to_disk(folder.parent)
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"{folder}: the weights cannot be written ({first_line(error)}); is the disk full?"
            ) from error

    def remove_old_weights(self) -> None:
        """Remove the weights that were replaced, once a checkpoint refers to the new ones."""
        for which in ("best", "last"):
            shutil.rmtree(_old(self.weights(which)), ignore_errors=True)

    def restore_best(self, epoch: int) -> bool:
        """Whether `weights/best` are intact and of this epoch; if the replaced ones are, they are moved back."""
        folder = self.weights("best")
        if _epoch_of(folder) == epoch:
            return True
        if _epoch_of(_old(folder)) != epoch:
            return False
        # The run died after a better epoch was saved and before its checkpoint, or between the two renames.
        shutil.rmtree(folder, ignore_errors=True)
        _old(folder).rename(folder)
        return True


def _write_json(path: Path, content: object) -> None:
    write_bytes_atomically(path, json.dumps(content, indent=1).encode(), fsync=True)


def _old(weights: Path) -> Path:
    return weights.with_name(f"{weights.name}.old")


def _epoch_of(weights: Path) -> int | None:
    """After which epoch weights were saved; None if they cannot be loaded."""
    try:
        epoch = Network.load(weights).card.training.get("epoch")
    except WeightsError:
        return None
    return epoch if isinstance(epoch, int) else None
