"""Listing folders, and writing files so that there is never half of one."""

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from carmask.errors import CarmaskError

_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir"})


class UnwritableFile(CarmaskError):
    """A result that could not be written."""


def write_bytes_atomically(path: str | Path, data: bytes) -> None:
    """Write a file so that under its name there is never half of it; missing folders are made.

    The data goes to a hidden file beside it, which is then moved over the name. Raises `UnwritableFile`.
    """
    path = Path(path)
    aside = path.parent / f".carmask-{secrets.token_hex(8)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_bytes(data)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as failure:
        reason = failure.strerror or str(failure)
        raise UnwritableFile(
            f"{path}: it cannot be written ({reason}); check the folder and the free space"
        ) from failure


def walk_files(folder: Path, on_error: Callable[[OSError], None]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder below, itself first, with the names of its files, sorted; links followed, hidden files left out.

    `on_error` is called for each folder that cannot be listed (its `filename`), and may raise; else it is passed over.
    """
    seen: set[Path] = set()  # linked folders are followed, and a link to a folder above must end
    for path, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        real = Path(path).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_clutter(name))
        yield Path(path), sorted(name for name in files if not is_clutter(name))


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden, or one that file managers leave behind."""
    return name.startswith(".") or name.lower() in _CLUTTER
