"""The state of a run on disk: all that the next step depends on.

A checkpoint is written aside, read back, checked and only then moved to its name; the one before is kept beside it.
Each begins with the SHA-256 of what follows, by which a damaged one is recognized.
"""

import io
import os
import pickle
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from carmask.errors import CarmaskError, first_line
from carmask.files import flush_to_disk

_HEADING = b"carmask checkpoint, sha256 "
_HEADER_BYTES = len(_HEADING) + 64 + 1


class CheckpointError(CarmaskError):
    """A checkpoint that is missing, damaged or of another run."""


def save_checkpoint(path: Path, state: dict[str, Any], *, is_own: bool = False) -> None:
    """Write `state`, so that a crash at any moment leaves the checkpoint or the one before, whole.

    is_own: the checkpoint there was written by this process, and need not be read again before it is kept as the one
    before. A damaged one is not kept: it would take the place of that which the run was resumed from.

    Raises:
        CheckpointError: it cannot be written.

    """
    packed = io.BytesIO()
    torch.save(state, packed)
    content = packed.getvalue()
    content = _HEADING + sha256(content).hexdigest().encode() + b"\n" + content
    aside = path.with_name(path.name + ".partial")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A full or failing disk does not always say so when it is written to.
        _unpacked(aside)
        if path.exists() and (is_own or _is_whole(path)):
            path.replace(before(path))
        aside.replace(path)
        flush_to_disk(path.parent)
    except (OSError, CheckpointError) as error:
        aside.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: cannot be written ({first_line(error)}); the one before is kept") from error


def load_checkpoint(path: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Read a checkpoint to the CPU, or the one before where it is damaged; only tensors and plain values, never code.

    Raises:
        CheckpointError: there is none, or both are damaged.

    """
    places = [place for place in (path, before(path)) if place.exists()]
    if not places:
        raise CheckpointError(f"{path}: no checkpoint there; start the run again under another --name")
    causes = []
    for place in places:
        try:
            state = _read(place)
        except CheckpointError as error:
            causes.append(str(error))
            continue
        for cause in causes:
            say(f"{cause}; going on from the one before, {place.name}, at step {state.get('step')}")
        return state
    raise CheckpointError(f"{'; '.join(causes)}; the run cannot go on")


def before(path: Path) -> Path:
    """Where the checkpoint before is kept."""
    return path.with_name(f"{path.stem}.before{path.suffix}")


def _read(path: Path) -> dict[str, Any]:
    content = _unpacked(path)
    try:
        state: object = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: not written by this version ({first_line(error)})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not a run's checkpoint")
    return state


def _is_whole(path: Path) -> bool:
    try:
        _unpacked(path)
    except CheckpointError:
        return False
    return True


def _unpacked(path: Path) -> bytes:
    """The content without its header, once the two agree."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    header, content = content[:_HEADER_BYTES], content[_HEADER_BYTES:]
    if header != _HEADING + sha256(content).hexdigest().encode() + b"\n":
        raise CheckpointError(f"{path}: damaged")
    return content
