"""Damaged and hostile picture files, the same ones every time, for every test that reads folders.

`write_hostile_files(folder)` writes over 300 small files (under 3 MB together) and says of each whether it has to be
readable. All stems differ, so that a folder of them can stand as `images/` beside a folder `masks/`.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from hostile_damage import damaged_files
from hostile_oddities import unusual_files
from hostile_parts import encoded, photo, png_from_chunks

__all__ = ["HostileFile", "encoded", "photo", "png_from_chunks", "write_hostile_files"]


@dataclass(frozen=True)
class HostileFile:
    """A path in the folder, whether its content is a readable picture, and what is special about it."""

    path: Path
    readable: bool
    note: str


def write_hostile_files(folder: Path) -> list[HostileFile]:
    """Write all files into `folder`, which is made if need be; returns them sorted by path."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, data, readable, note in chain(damaged_files(), unusual_files()):
        path = folder / name
        path.write_bytes(data)
        files.append(HostileFile(path, readable, note))
    (folder / "folder_named_like_a_photo.jpg").mkdir()
    (folder / "dangling_link.jpg").symlink_to("nowhere.jpg")
    (folder / "link_to_itself.png").symlink_to("link_to_itself.png")
    files += [
        HostileFile(folder / "folder_named_like_a_photo.jpg", False, "a folder"),
        HostileFile(folder / "dangling_link.jpg", False, "a link to nothing"),
        HostileFile(folder / "link_to_itself.png", False, "a link to itself"),
    ]
    files += _endless(folder)
    return sorted(files, key=lambda file: file.path)


def _endless(folder: Path) -> Iterator[HostileFile]:
    """What never ends, or never begins, when it is read."""
    if os.name != "posix":
        return
    os.mkfifo(folder / "named_pipe.jpg")
    yield HostileFile(folder / "named_pipe.jpg", False, "a named pipe that nobody writes to")
    (folder / "link_to_device.png").symlink_to("/dev/zero")
    yield HostileFile(folder / "link_to_device.png", False, "a link to a device of endless zeros")
