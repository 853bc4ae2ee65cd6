"""The folder of a training run, which explains itself.

config.yaml        every setting            metrics.csv     one row for each epoch
environment.json   versions and machine     curves.png      the same, drawn
split.json         who was held out         samples/        held-out photos as predicted, each epoch
checkpoint.pt      to go on from            tensorboard/    for TensorBoard
checkpoint.before.pt   the one before
trackers.json      where others record the run, if any do
left_out.csv       photos that could not be used, and why, where there are any
weights/best, weights/last                  the network: model.safetensors and config.json
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
from carmask.training.settings import TrainSettings


class RunError(CarmaskError):
    """A run's folder that cannot be made or used."""


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run's folder."""

    path: Path

    @classmethod
    def new(cls, settings: TrainSettings) -> "RunFolder":
        """Choose the folder of a new run. Nothing is written yet.

        Raises:
            RunError: there is one of that name.

        """
        now = datetime.datetime.now().astimezone()
        run = cls(settings.runs / (settings.name or f"{settings.preset}-{now:%Y%m%d-%H%M%S}"))
        if run.path.exists():
            raise RunError(
                f"{run.path}: exists already; go on with `carmask train --resume {run.path}`, or choose another --name"
            )
        return run

    @contextmanager
    def being_made(self, settings: TrainSettings) -> Iterator["RunFolder"]:
        """Write settings and environment, and what the caller adds, aside; the folder is there when all of it is.

        Raises:
            RunError: it cannot be made.

        """
        aside = RunFolder(self.path.with_name(f".{self.path.name}.partial"))
        try:
            shutil.rmtree(aside.path, ignore_errors=True)
            aside.samples.mkdir(parents=True)
            write_bytes_atomically(aside.config, settings.to_yaml().encode(), fsync=True)
            write_bytes_atomically(
                aside.path / "environment.json", json.dumps(environment(), indent=1).encode(), fsync=True
            )
            yield aside
            aside.path.rename(self.path)
            flush_to_disk(self.path.parent)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be made ({error.strerror}); choose another --runs folder") from error

    def note_resumption(self) -> None:
        """Add to the environment on which machine and by which version the run goes on."""
        path = self.path / "environment.json"
        began = json.loads(path.read_text()) if path.is_file() else {}
        resumed = [*began.get("resumed", []), environment()]
        write_bytes_atomically(path, json.dumps({**began, "resumed": resumed}, indent=1).encode(), fsync=True)

    @classmethod
    def existing(cls, path: Path) -> "RunFolder":
        """A run made before."""
        run = cls(path)
        if not run.config.is_file():
            raise RunError(f"{path}: not the folder of a run (no {CONFIG_OF_RUN} in it)")
        return run

    @property
    def config(self) -> Path:
        """Every setting."""
        return self.path / CONFIG_OF_RUN

    @property
    def split(self) -> Path:
        """Which photos were held out."""
        return self.path / SPLIT_OF_RUN

    @property
    def checkpoint(self) -> Path:
        """What `--resume` goes on from."""
        return self.path / "checkpoint.pt"

    @property
    def samples(self) -> Path:
        """Pictures of held-out photos as predicted."""
        return self.path / "samples"

    @property
    def metrics(self) -> Path:
        """One row for each epoch."""
        return self.path / METRICS_OF_RUN

    def write_left_out(self, left_out: Sequence[tuple[str, str]]) -> None:
        """List the photos that could not be used, with the cause; no file where there are none."""
        if left_out:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([("photo", "cause"), *left_out])
            write_bytes_atomically(self.path / "left_out.csv", text.getvalue().encode("utf-8", "backslashreplace"))

    def weights(self, which: str) -> Path:
        """The folder of the `best` or the `last` network."""
        return self.path / BEST_OF_RUN.with_name(which)

    def save_weights(self, network: Network, which: str) -> None:
        """Write a network aside, then move it into place. The one before is kept until `forget_old_weights`."""
        place = self.weights(which)
        aside, old = place.with_name(f"{which}.partial"), _old(place)
        shutil.rmtree(aside, ignore_errors=True)
        try:
            network.save_pretrained(aside)
            if which == "best":
                # The checkpoint that comes next calls them that; the last ones it holds itself.
                for file in (*(aside / name for name in WEIGHTS), aside):
                    flush_to_disk(file)
            if place.exists():
                shutil.rmtree(old, ignore_errors=True)
                place.rename(old)
            aside.rename(place)
            if which == "best":
                flush_to_disk(place.parent)
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"{place}: the weights cannot be written ({first_line(error)}); is the disk full?"
            ) from error

    def forget_old_weights(self) -> None:
        """Remove what was kept until a checkpoint knows of the weights that have taken its place."""
        for which in ("best", "last"):
            shutil.rmtree(_old(self.weights(which)), ignore_errors=True)

    def has_best_of(self, epoch: int) -> bool:
        """Whether `weights/best` are of this epoch, and whole; those that were kept are put back where they are."""
        place = self.weights("best")
        if _epoch_of(place) == epoch:
            return True
        if _epoch_of(_old(place)) != epoch:
            return False
        # Of an epoch that was measured, but whose checkpoint was not written any more; or there are none.
        shutil.rmtree(place, ignore_errors=True)
        _old(place).rename(place)
        return True


def _old(weights: Path) -> Path:
    return weights.with_name(f"{weights.name}.old")


def _epoch_of(weights: Path) -> int | None:
    """After which epoch a network was written; nothing where there is none that can be loaded."""
    try:
        epoch = Network.load(weights).card.training.get("epoch")
    except WeightsError:
        return None
    return epoch if isinstance(epoch, int) else None
