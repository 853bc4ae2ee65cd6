"""Lists of paths: lines of text, paths that end with NUL, Parquet tables."""

import os
import re
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path, PurePath

from carmask.errors import first_line
from carmask.files import expand_home, is_system_file
from carmask.pipeline.photo_list import PhotoList, SourceError
from carmask.pipeline.urls import URL, common_folder, parse_path
from carmask.pipeline.walk import each_once

# The column of a Parquet table that holds the photos' paths.
PATH_COLUMN = "path"

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")


def list_paths(paths: Sequence[str], label: str, *, beside: Path | URL | None) -> PhotoList:
    """List the photos of a list in its order, each once, without system files below the folder that holds them all.

    Whether they exist is found out when they are opened.

    Args:
        paths: Paths or URLs; relative ones start at the working folder.
        label: The list's name in messages.
        beside: The list's own folder, where paths start that do not exist below the working folder.

    Raises:
        SourceError: there are none, or no folder holds them all.
    """
    if not paths:
        raise SourceError(f"{label}: names no photo; write one path per line")
    urls = _urls(paths, label, beside)
    if urls:
        try:
            return PhotoList(*common_folder(urls))
        except ValueError as error:
            raise SourceError(f"{label}: its photos are in several stores; write a list for each") from error
    absolute: dict[str, None] = {}
    paths = [str(parse_path(path)) if "://" in path else expand_home(path) for path in paths]
    for path in paths:
        exists = not isinstance(beside, Path) or os.path.lexists(path)
        absolute[_absolute(path if exists else os.path.join(beside, path))] = None  # type: ignore[arg-type] # noqa: PTH118
    try:
        root = os.path.commonpath({os.path.dirname(path) for path in absolute})  # noqa: PTH120
    except ValueError as error:
        raise SourceError(f"{label}: its photos are on several drives; write a list for each") from error
    shown = Path(root) if all(map(os.path.isabs, paths)) else Path(os.path.relpath(root))
    # For a million names a PurePath takes ten seconds.
    start = len(root) if root.endswith(os.sep) else len(root) + 1
    names = each_once(root, (path[start:].replace(os.sep, "/") for path in absolute))
    # A list may be made by a program that knows nothing of these, such as `find`.
    return PhotoList(shown, [name for name in names if not any(map(is_system_file, name.split("/")))] or names)


def _urls(paths: Sequence[str], label: str, beside: Path | URL | None) -> list[URL]:
    """Return the URLs of a list, each once; none if it is a list of files."""
    parsed = (parse_path(path) if "://" in path else None for path in paths)
    if isinstance(beside, URL):
        parsed = (url or beside / path for url, path in zip(parsed, paths, strict=True))
    found: dict[URL, None] = {url: None for url in parsed if isinstance(url, URL)}
    if found and len(found) < len(set(paths)):
        raise SourceError(f"{label}: names files and URLs; write a list for each")
    return list(found)


def _absolute(path: str) -> str:
    # `..` behind a link leads elsewhere than the text says.
    return os.path.realpath(path) if ".." in PurePath(path).parts else os.path.abspath(path)  # noqa: PTH100


def read_parquet(source: Path | URL) -> list[str]:
    """Return the column `path` of a table, a file or a folder of parts, without empty rows."""
    from pyarrow import ArrowException, dataset, types

    try:
        with source.filesystem() if isinstance(source, URL) else nullcontext((None, str(source))) as (system, path):
            table = dataset.dataset(path, filesystem=system, format="parquet")
            if PATH_COLUMN not in table.schema.names:
                raise SourceError(
                    f"{source}: has no column '{PATH_COLUMN}' (it has {', '.join(table.schema.names)}); use that name "
                    "for the column of the photos' paths"
                )
            kind = table.schema.field(PATH_COLUMN).type
            if not (types.is_string(kind) or types.is_large_string(kind)):
                raise SourceError(f"{source}: its column '{PATH_COLUMN}' holds {kind}, not text")
            return [path for path in table.to_table(columns=[PATH_COLUMN]).column(0).to_pylist() if path]
    except (ArrowException, OSError) as error:
        raise SourceError(f"{source}: cannot be read as a Parquet table ({first_line(error)})") from error


def is_list(data: bytes) -> bool:
    """Whether these are lines or NUL-ended paths: every picture has bytes that no path has, or empty paths."""
    data = _from_utf_16(data)
    if b"\0" not in data:
        return _CONTROL.search(data) is None
    paths = data.removesuffix(b"\0").split(b"\0")
    return all(path and _CONTROL.search(path) is None for path in paths)


def read_list(data: bytes) -> list[str]:
    """Return the paths of a list, without blank lines and lines that begin with #."""
    data = _from_utf_16(data)
    if b"\0" in data:
        return [os.fsdecode(path) for path in data.split(b"\0") if path]
    lines = (line.strip() for line in data.removeprefix(b"\xef\xbb\xbf").splitlines())
    return [os.fsdecode(line) for line in lines if line and not line.startswith(b"#")]


def _from_utf_16(data: bytes) -> bytes:
    """Convert a list in UTF-16, as Windows' PowerShell writes it; anything else stays as it is."""
    if not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data
    try:
        return data.decode("utf-16").encode()
    except UnicodeDecodeError:
        return data
