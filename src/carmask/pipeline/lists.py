"""Lists of photos: a path a line, or paths ended by NUL."""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from carmask.errors import CarmaskError
from carmask.pipeline.addresses import Address, common_folder, place_of

LIST_SUFFIX = ".txt"

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")


class NoPhotos(CarmaskError):
    """There is nothing to predict."""


def is_list(data: bytes) -> bool:
    """Whether these are lines or NUL-ended paths. In every picture bytes occur that no path holds, or empty ones do."""
    data = _from_utf_16(data)
    if b"\0" not in data:
        return _CONTROL.search(data) is None
    paths = data.removesuffix(b"\0").split(b"\0")
    return all(path and _CONTROL.search(path) is None for path in paths)


def read_list(data: bytes) -> list[str]:
    """The paths of a list; blank lines and lines that begin with # are left out."""
    data = _from_utf_16(data)
    if b"\0" in data:
        return [os.fsdecode(path) for path in data.split(b"\0") if path]
    lines = (line.strip() for line in data.removeprefix(b"\xef\xbb\xbf").splitlines())
    return [os.fsdecode(line) for line in lines if line and not line.startswith(b"#")]


def rooted(paths: Sequence[str], label: str, *, beside: Path | Address | None) -> tuple[Path | Address, list[str]]:
    """The folder that holds all photos of a list, and their names below it, in the list's order, each once.

    Args:
        paths: Paths or addresses; relative ones are seen from the working folder.
        label: What the list is called in messages.
        beside: The list's own folder, which those are seen from that are not there.

    Raises:
        NoPhotos: there are none, or no folder holds them all.

    """
    if not paths:
        raise NoPhotos(f"{label}: names no photo; write one path a line")
    addresses = _addresses(paths, label, beside)
    if addresses:
        try:
            return common_folder(addresses)
        except ValueError as error:
            raise NoPhotos(f"{label}: its photos lie in several stores; make a list for each") from error
    absolute: dict[str, None] = {}
    paths = [str(place_of(path)) if "://" in path else path for path in paths]
    for path in paths:
        there = not isinstance(beside, Path) or os.path.lexists(path)
        absolute[_absolute(path if there else os.path.join(beside, path))] = None  # type: ignore[arg-type] # noqa: PTH118
    try:
        root = os.path.commonpath({os.path.dirname(path) for path in absolute})  # noqa: PTH120
    except ValueError as error:
        raise NoPhotos(f"{label}: its photos lie on several drives; make a list for each") from error
    shown = Path(root) if all(map(os.path.isabs, paths)) else Path(os.path.relpath(root))
    # For a million names a PurePath takes ten seconds.
    start = len(root) if root.endswith(os.sep) else len(root) + 1
    return shown, [path[start:].replace(os.sep, "/") for path in absolute]


def _addresses(paths: Sequence[str], label: str, beside: Path | Address | None) -> list[Address]:
    """The addresses that a list consists of, each once; none where it is a list of files."""
    places = (place_of(path) if "://" in path else None for path in paths)
    if isinstance(beside, Address):
        places = (place or beside / path for place, path in zip(places, paths, strict=True))
    found: dict[Address, None] = {place: None for place in places if isinstance(place, Address)}
    if found and len(found) < len(set(paths)):
        raise NoPhotos(f"{label}: names files and addresses; make a list for each")
    return list(found)


def _from_utf_16(data: bytes) -> bytes:
    """Lists as Windows' PowerShell writes them, in UTF-8; anything else as it is."""
    if not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data
    try:
        return data.decode("utf-16").encode()
    except UnicodeDecodeError:
        return data


def _absolute(path: str) -> str:
    # `..` behind a link leads elsewhere than the text says.
    return os.path.realpath(path) if ".." in PurePath(path).parts else os.path.abspath(path)  # noqa: PTH100
