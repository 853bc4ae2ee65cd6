"""List the photos of a source: a file, a folder, a pattern, a list of paths, a Parquet table, or standard input."""

import fnmatch
import glob
import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from carmask.errors import CarmaskError, first_line
from carmask.files import expand_home, is_hidden_file, is_system_file, walk_files
from carmask.imaging.decode import IMAGE_SUFFIXES
from carmask.pipeline.kinds import STREAM, TABLE_SUFFIXES
from carmask.pipeline.urls import URL, common_folder, parse_path

# The hidden journal of a folder of pictures that carmask wrote; its name begins with this where shards wrote them.
PICTURE_JOURNAL = ".carmask-results"
# The column of a Parquet table that holds the photos' paths.
PATH_COLUMN = "path"

_LIST_SUFFIX = ".txt"
_SUFFIXES = ", ".join(sorted(IMAGE_SUFFIXES))
_WILDCARD = re.compile(r"[*?\[]")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")


class SourceError(CarmaskError):
    """There are no photos or masks, or they cannot be listed or used, or the results would lie among them."""


@dataclass(frozen=True)
class PhotoFailure:
    """A photo that failed, or a folder that cannot be listed, and why."""

    path: Path | URL
    cause: str


@dataclass(frozen=True)
class PhotoList:
    """Photos in order, as paths relative to `root` with forward slashes: 100,000 of them take some 10 MB.

    unlisted: folders that cannot be listed. skipped: folders that hold results of carmask. alone: a single photo, named
    by itself. data: its bytes, if it came from standard input. origins: the files that results are made from, if these
    are not the photos themselves.
    """

    root: Path | URL
    names: Sequence[str]
    unlisted: tuple[PhotoFailure, ...] = ()
    skipped: tuple[Path, ...] = ()
    alone: bool = False
    data: bytes | None = None
    origins: Sequence[Path] | None = None

    def locate(self, name: str) -> Path | URL:
        """Return where a photo is."""
        return self.root / name

    def path(self, name: str) -> Path:
        """Return the file of a photo.

        Raises:
            SourceError: the photos are at URLs.

        """
        if isinstance(self.root, URL):
            raise SourceError(f"{self.root}: is a URL, and files are needed here; copy the photos to a folder first")
        return self.root / name


def find_photos(
    source: Path | URL,
    *,
    results: Path | None,
    read_stdin: Callable[[], bytes] | None = None,
    with_results: bool = False,
) -> PhotoList:
    """List the photos of a source.

    Args:
        source: A photo; a folder, with all its sub-folders; a pattern with `*`, `?`, `[...]` or `**` (its results
            mirror the tree below the part before the first of these); a list, a `.txt` file of one path a line,
            relative to the working folder or else to the list's own, without blank lines and lines that begin with #
            (its results mirror the tree below the folder that holds all its photos); a `.parquet` table, whose column
            `path` is such a list; or `-`, a photo or such a list on standard input, whose paths may also end with NUL.
            All but patterns may be URLs that fsspec reads, and so may paths in lists.
        results: The folder that pictures will be written to. Pictures in it are results, not photos.
        read_stdin: Returns all of standard input.
        with_results: Include folders below the source that hold results of carmask: of masks they are as good as any.

    Raises:
        SourceError: there are none, they cannot be listed, or `results` is the folder of the photos itself.
        URLError: a URL cannot be read.
        ImportError: a URL needs fsspec, or a table pyarrow.

    """
    if isinstance(source, Path):
        source = Path(expand_home(str(source)))
    if source == STREAM:
        return _from_stream(read_stdin() if read_stdin else b"")
    if isinstance(source, Path) and not source.exists():
        if _WILDCARD.search(str(source)):
            return _from_pattern(str(source), results, with_results)
        raise SourceError(f"{source}: does not exist; give a photo, a folder or a list of photos")
    suffix = source.suffix.lower()
    if suffix in TABLE_SUFFIXES["parquet"]:
        return _from_list(_read_parquet(source), str(source), beside=source.parent)
    if isinstance(source, Path) and source.is_dir():
        return _from_folder(source, results, with_results)
    if suffix == _LIST_SUFFIX:
        return _from_list(_read_list(source.read_bytes()), str(source), beside=source.parent)
    if isinstance(source, Path) or not source.is_folder():
        return PhotoList(source.parent, (source.name,), alone=True)
    names = [name for name in source.names_below() if _is_photo(name)]
    if not names:
        raise SourceError(f"{source}: no photo in it; looked in all sub-folders for {_SUFFIXES}")
    return PhotoList(source, names)


def find_photos_of_all(
    sources: Sequence[Path | URL], *, results: Path | None, read_stdin: Callable[[], bytes] | None = None
) -> PhotoList:
    """List the photos of one source, or of several files and folders below the folder that holds them all.

    Raises:
        SourceError: there are none, or `results` is one of the folders.
        URLError: a URL cannot be read.

    """
    if len(sources) == 1:
        return find_photos(sources[0], results=results, read_stdin=read_stdin)
    paths: list[str] = []
    unlisted: list[PhotoFailure] = []
    skipped: list[Path] = []
    for source in sources:
        if isinstance(source, Path) and not source.is_dir():
            paths.append(str(source))
            continue
        found = find_photos(source, results=results)
        paths += [str(found.locate(name)) for name in found.names]
        unlisted += found.unlisted
        skipped += found.skipped
    return replace(_from_list(paths, "sources", beside=None), unlisted=tuple(unlisted), skipped=tuple(skipped))


def _from_folder(root: Path, results: Path | None, with_results: bool) -> PhotoList:
    if results is not None and root.resolve() == results.resolve():
        raise SourceError(
            f"{results}: is the folder of the photos itself; choose another one, for example {root / 'results'}"
        )
    walk = _Walk(root, results, with_results)
    return walk.list_photos(walk.below(root), f"{root}: no photo in it; looked in all sub-folders for")


def _from_pattern(pattern: str, results: Path | None, with_results: bool) -> PhotoList:
    parts = PurePath(pattern).parts
    fixed = next(index for index, part in enumerate(parts) if _WILDCARD.search(part))
    # `**` is not left to `glob`, which goes around in circles where a link leads to a folder above it.
    deep = parts.index("**") if "**" in parts else len(parts)
    walk = _Walk(Path(*parts[:fixed]), results, with_results)
    names: list[str] = []
    for match in glob.iglob(str(Path(*parts[:deep]))):  # noqa: PTH207 - a Path's cannot begin at a drive or root
        path = Path(match)
        found = path.relative_to(walk.root).parts
        # A pattern may name hidden folders, but does not mean them with a wildcard.
        if any(is_hidden_file(name) and part[0] != name[0] for name, part in zip(found, parts[fixed:], strict=False)):
            continue
        if path.is_dir():
            names += (name for name in walk.below(path) if _matches(name.split("/")[len(found) :], parts[deep:]))
        elif _is_photo(path.name) and not walk.is_result(path.parent):
            names.append("/".join(found))
    # Of one photo in a folder that is reached by a link as well, take the way that is shorter.
    names = _each_once(str(walk.root), sorted(names, key=lambda name: (name.count("/"), name)))
    return walk.list_photos(names, f"{pattern}: does not exist, and as a pattern it matches no photo; looked for")


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a file, or a folder that it is in, matches a pattern; both in parts."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_matches(names[start:], pattern[1:]) for start in range(len(names)))
    return bool(names) and fnmatch.fnmatch(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _each_once(root: str, names: Iterable[str]) -> list[str]:
    """Return the names below `root`, the first one of each photo that is named twice by links to its folder."""
    real: dict[str, str] = {}
    found: dict[tuple[str, str], str] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder not in real:
            real[folder] = os.path.realpath(os.path.join(root, folder))  # noqa: PTH118
        found.setdefault((real[folder], file), name)
    return list(found.values())


class _Walk:
    """Walks through folders below `root`, and collects those that cannot be listed or that hold results."""

    def __init__(self, root: Path, results: Path | None, with_results: bool) -> None:
        self.root = root
        self._with_results = with_results
        self._results = results.resolve() if results is not None else None
        # A destination above the source, like the working folder, does not make results of the photos.
        if self._results is not None and self._results in root.resolve().parents:
            self._results = None
        self._unlisted: list[PhotoFailure] = []
        self._skipped: list[Path] = []

    def below(self, folder: Path) -> Iterable[str]:
        """Yield the names of the pictures in a folder and below, relative to the root."""
        for path, names in walk_files(folder, on_error=self._add_unlisted):
            if self.is_result(path):
                continue
            prefix = path.relative_to(self.root).as_posix()
            prefix = "" if prefix == "." else f"{prefix}/"
            yield from (prefix + name for name in names if _is_photo(name))

    def is_result(self, folder: Path) -> bool:
        """Whether a folder is in the destination, or in another one that carmask wrote to."""
        if self._results is not None and self._results in (folder.resolve(), *folder.resolve().parents):
            return True
        if any(skipped in (folder, *folder.parents) for skipped in self._skipped):
            return True
        if not self._with_results and folder != self.root and any(folder.glob(f"{PICTURE_JOURNAL}*")):
            self._skipped.append(folder)
            return True
        return False

    def list_photos(self, names: Iterable[str], looked_for: str) -> PhotoList:
        """Return the list of these photos. looked_for: how an error begins if there are none."""
        names = sorted(set(names))
        if not names:
            but = f", but not in results of carmask: {', '.join(map(str, self._skipped))}" if self._skipped else ""
            cause = f"{looked_for} {_SUFFIXES}{but}"
            raise SourceError(self._unlisted[0].cause if self._unlisted else cause)
        return PhotoList(self.root, names, tuple(self._unlisted), tuple(self._skipped))

    def _add_unlisted(self, error: OSError) -> None:
        cause = f"{error.filename}: cannot be listed ({error.strerror}); check its permissions"
        self._unlisted.append(PhotoFailure(Path(error.filename), cause))


def _is_photo(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a Path is ten times slower


def _from_stream(data: bytes) -> PhotoList:
    if not data:
        raise SourceError("standard input: is empty; pipe a photo or a list of photos into it")
    if _is_list(data):
        return _from_list(_read_list(data), "standard input", beside=None)
    return PhotoList(Path(), ("standard input",), alone=True, data=data)


def _from_list(paths: Sequence[str], label: str, *, beside: Path | URL | None) -> PhotoList:
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
        raise SourceError(f"{label}: names no photo; write one path a line")
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
    names = _each_once(root, (path[start:].replace(os.sep, "/") for path in absolute))
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


def _read_parquet(source: Path | URL) -> list[str]:
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


def _is_list(data: bytes) -> bool:
    """Whether these are lines or NUL-ended paths: every picture has bytes that no path has, or empty paths."""
    data = _from_utf_16(data)
    if b"\0" not in data:
        return _CONTROL.search(data) is None
    paths = data.removesuffix(b"\0").split(b"\0")
    return all(path and _CONTROL.search(path) is None for path in paths)


def _read_list(data: bytes) -> list[str]:
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
