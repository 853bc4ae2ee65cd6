"""Who records a run beside its own folder: TensorBoard, and Weights & Biases, MLflow or trackio where they are named.

Only what is named is imported. Where its records go, to a server or a folder, is told to each tracker by its own
environment variables: WANDB_MODE, WANDB_PROJECT, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, TRACKIO_DIR,
TRACKIO_SPACE_ID and their like. Nothing is set here that they could say, but that their makers hear nothing of it.
"""

import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.training.settings import TrackerName

# The project or experiment in which runs are gathered, where the user's environment names no other.
PROJECT = "carmask"
DESCRIBED_LENGTH = 200

# Some report to their makers what is used and what fails, unless told not to before they are imported.
_REPORTING_OFF = {
    "wandb": ("WANDB_ERROR_REPORTING", "false"),
    "mlflow": ("MLFLOW_DISABLE_TELEMETRY", "true"),
    "trackio": ("GRADIO_ANALYTICS_ENABLED", "False"),
}


class TrackerError(CarmaskError):
    """A tracker that was asked for and cannot be used."""


@dataclass(frozen=True)
class Beginning:
    """What a tracker is told of a run that begins or goes on."""

    name: str
    folder: Path
    # By name ("optimizer.lr"): text, number, list of such, or None.
    settings: Mapping[str, Any]
    # Done already: what is recorded next comes after it.
    step: int
    # What `begin` gave the first time, for a run that goes on.
    id: str | None


class Tracker(Protocol):
    """Somebody who records a run. Any method may raise whatever the tracker's own library raises.

    `begin` is called by the thread that trains, all else by one other thread, in a copy of that one's context.
    """

    def begin(self, run: Beginning) -> str | None:
        """Begin a record, or go on with one; its id, where one is needed to go on with it."""
        ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """After `step` steps these were the values."""
        ...

    def picture(self, step: int, name: str, image_HWC: NDArray[np.uint8]) -> None:
        """After `step` steps this was to be seen; uint8 RGB 0..255. The last that is told of that step."""
        ...

    def end(self, *, failed: bool) -> None:
        """Nothing more comes; `failed`: the run ended with an error."""
        ...


class _TensorBoard:
    def __init__(self) -> None:
        self._library = _import("tensorboard", "torch.utils.tensorboard")

    def begin(self, run: Beginning) -> None:
        # What was recorded after the checkpoint, before the run was killed, is recorded again.
        self._writer = self._library.SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step + 1)
        if run.step == 0:
            rows = (f"| {name} | {value} |" for name, value in run.settings.items())
            self._writer.add_text("settings", "\n".join(("| setting | value |", "|---|---|", *rows)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        # A run may be killed at any time, and goes on after what it has recorded.
        self._writer.flush()

    def picture(self, step: int, name: str, image_HWC: NDArray[np.uint8]) -> None:
        self._writer.add_image(name, image_HWC, step, dataformats="HWC")
        self._writer.flush()

    def end(self, *, failed: bool) -> None:  # noqa: ARG002 - TensorBoard has no word for it
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self) -> None:
        self._library = _import("wandb")

    def begin(self, run: Beginning) -> str:
        self._run = self._library.init(
            project=self._library.setup().settings.project or PROJECT,
            name=run.name,
            id=run.id,
            resume="allow" if run.id else None,
            config=dict(run.settings),
            reinit="create_new",  # and leave one of the caller's alone
        )
        # Of a killed run it may have more steps than the checkpoint, and takes none of them twice.
        self._next_step: int = self._run.step
        return str(self._run.id)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._log(step, dict(values))

    def picture(self, step: int, name: str, image_HWC: NDArray[np.uint8]) -> None:
        # Otherwise it waits for the next step, and would be lost with all values of this one if the run were killed.
        self._log(step, {name: self._library.Image(image_HWC)}, commit=True)

    def end(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))

    def _log(self, step: int, values: dict[str, Any], *, commit: bool = False) -> None:
        if step >= self._next_step:
            self._run.log(values, step=step, commit=commit)


class _MLflow:
    """By the client, not by the functions for 'the active run', which would be mixed up with one of the caller's."""

    def __init__(self) -> None:
        self._library = _import("mlflow")

    def begin(self, run: Beginning) -> str:
        self._client = self._library.MlflowClient()
        if run.id is not None:
            self._client.update_run(run.id, status="RUNNING")
            self._id = run.id
        else:
            self._id = self._client.create_run(self._experiment_id(), run_name=run.name).info.run_id
            self._library.log_params(dict(run.settings), run_id=self._id)
        return self._id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._library.log_metrics(dict(values), step=step, run_id=self._id)

    def picture(self, step: int, name: str, image_HWC: NDArray[np.uint8]) -> None:
        self._client.log_image(self._id, image_HWC, key=name, step=step)

    def end(self, *, failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")

    def _experiment_id(self) -> str:
        given = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if given:
            return given
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))


class _Trackio:
    def __init__(self) -> None:
        self._library = _import("trackio")

    def begin(self, run: Beginning) -> str:
        # It goes on with a run by its name, and the folder's name may occur in another folder too.
        name = run.id or f"{run.name}-{secrets.token_hex(3)}"
        self._run = self._library.init(PROJECT, name=name, config=dict(run.settings), resume="allow", embed=False)
        return name

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, image_HWC: NDArray[np.uint8]) -> None:
        self._run.log({name: self._library.Image(image_HWC)}, step=step)

    def end(self, *, failed: bool) -> None:  # noqa: ARG002 - trackio has no word for it
        self._library.finish()


TRACKERS: dict[TrackerName, Callable[[], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WeightsAndBiases,
    "mlflow": _MLflow,
    "trackio": _Trackio,
}


def check_trackers(names: Iterable[TrackerName]) -> None:
    """Import what trackers need, before anything is done for a run.

    Raises:
        TrackerError: a package is missing or broken.

    """
    for name in names:
        TRACKERS[name]()


def _import(package: str, module: str | None = None) -> ModuleType:
    if package in _REPORTING_OFF:
        os.environ.setdefault(*_REPORTING_OFF[package])
    try:
        imported = import_module(module or package)
        # A folder of that name, such as wandb makes where it runs, can be imported too.
        if getattr(imported, "__file__", None) is None:
            raise ImportError(f"No module named '{package}'")
    except Exception as error:  # whatever a library raises that does not fit the others that are installed
        raise TrackerError(
            f"tracker '{package}' needs the package {package}, which cannot be imported ({describe(error)}); "
            f"`pip install --upgrade {package}` brings it, or leave it out of --trackers"
        ) from error
    return imported


def describe(error: Exception) -> str:
    """Which error, and the beginning of what it says, in one line: some tell all that they have tried."""
    return shorten(f"{type(error).__name__}: {error}", DESCRIBED_LENGTH, placeholder=" ...")
