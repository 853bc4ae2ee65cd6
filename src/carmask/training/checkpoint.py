"""The state of a run on disk: all that the next step depends on, written aside and then moved."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from carmask.errors import CarmaskError, first_line


class CheckpointError(CarmaskError):
    """A checkpoint that is missing, damaged or of another run."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` so that a crash at any moment leaves the old checkpoint or the new one, never half of one.

    Raises:
        CheckpointError: it cannot be written.

    """
    aside = path.with_name(path.name + ".partial")
    try:
        with aside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except (OSError, RuntimeError) as error:
        aside.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot be written ({first_line(error)}); the one before is kept") from error


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values, never code.

    Raises:
        CheckpointError: missing or damaged.

    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no checkpoint there; start the run again under another --name")
    try:
        state: object = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged ({first_line(error)}); the run cannot go on from it") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not a run's checkpoint; the run cannot go on from it")
    return state
