"""Which photos there are: a file, a folder, a pattern, a list of paths, or what comes in on standard input."""

import glob
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from carmask.errors import CarmaskError
from carmask.files import is_hidden_file, walk_files
from carmask.imaging.decode import IMAGE_SUFFIXES
from carmask.pipeline.kinds import STREAM, TABLE_SUFFIXES
from carmask.pipeline.parquet import read_paths
from carmask.pipeline.urls import URL, common_folder, path_or_url

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


def rooted(paths: Sequence[str], label: str, *, beside: Path | URL | None) -> tuple[Path | URL, list[str]]:
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
    paths = [str(path_or_url(path)) if "://" in path else path for path in paths]
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


def _addresses(paths: Sequence[str], label: str, beside: Path | URL | None) -> list[URL]:
    """The addresses that a list consists of, each once; none where it is a list of files."""
    places = (path_or_url(path) if "://" in path else None for path in paths)
    if isinstance(beside, URL):
        places = (place or beside / path for place, path in zip(places, paths, strict=True))
    found: dict[URL, None] = {place: None for place in places if isinstance(place, URL)}
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


# The hidden record of a folder of pictures that carmask made, and what its name begins with where shards made them.
PICTURE_RECORD = ".carmask-results"

_WILDCARD = re.compile(r"[*?\[]")


class SamePlace(CarmaskError):
    """The results would lie among the photos as if they were photos."""


@dataclass(frozen=True)
class PhotoFailure:
    """A photo that could not be cut out, or a folder that could not be listed, and why."""

    path: Path | URL
    cause: str


@dataclass(frozen=True)
class PhotoList:
    """Photos in order, as paths relative to `root` with forward slashes: 100,000 of them take some 10 MB.

    unlisted: folders that cannot be looked into. left_out: folders that hold results of carmask. alone: one photo,
    named by itself. data: the bytes of that photo, where it came in on standard input. origins: the files that results
    are made from, where these are not the photos themselves.
    """

    root: Path | URL
    names: Sequence[str]
    unlisted: tuple[PhotoFailure, ...] = ()
    left_out: tuple[Path, ...] = ()
    alone: bool = False
    data: bytes | None = None
    origins: Sequence[Path] | None = None

    def place(self, name: str) -> Path | URL:
        """Where a photo lies."""
        return self.root / name

    def path(self, name: str) -> Path:
        """The file of a photo.

        Raises:
            NoPhotos: the photos lie at addresses.

        """
        if isinstance(self.root, URL):
            raise NoPhotos(f"{self.root}: files are needed here, not addresses; copy them to a folder first")
        return self.root / name


def find_photos(
    source: Path | URL,
    *,
    results: Path | None,
    read_stdin: Callable[[], bytes] | None = None,
    made_too: bool = False,
) -> PhotoList:
    """List the photos that a source means.

    Args:
        source: A photo; a folder, with all its sub-folders; a pattern with `*`, `?`, `[...]` or `**` (its photos are
            mirrored from the part before the first of these); a list, a `.txt` file of one path a line, seen from the
            working folder or else from the list's own, with blank lines and lines that begin with # left out (its
            photos are mirrored from the folder that holds them all); a `.parquet` table, whose column `path` is such a
            list; or `-`, a photo or such a list, whose paths may also be ended by NUL, on standard input. All but
            patterns may be, and paths in lists too, addresses that fsspec reaches.
        results: The folder that pictures will be written to. Pictures in it are results of before, not photos.
        read_stdin: Gives all of standard input.
        made_too: List also folders below the source that carmask filled: of masks they are as good as any.

    Raises:
        NoPhotos: nothing is there, or it cannot be listed.
        SamePlace: `results` is the folder of the photos itself.
        URLError: an address cannot be read.

    """
    if isinstance(source, URL):
        return _from_address(source)
    if source == STREAM:
        return _from_stream(read_stdin() if read_stdin else b"")
    try:
        mode = source.stat().st_mode
    except FileNotFoundError as error:
        if _WILDCARD.search(str(source)):
            return _from_pattern(str(source), results, made_too)
        raise NoPhotos(f"{source}: does not exist; name a photo, a folder of photos or a list of them") from error
    except OSError as error:
        raise NoPhotos(f"{source}: cannot be opened ({error.strerror}); name a photo or a folder of photos") from error
    if source.suffix.lower() in TABLE_SUFFIXES["parquet"]:
        return _from_list(read_paths(source), str(source), beside=source.parent)
    if stat.S_ISDIR(mode):
        return _from_folder(source, results, made_too)
    if source.suffix.lower() == LIST_SUFFIX:
        try:
            data = source.read_bytes()
        except OSError as error:
            raise NoPhotos(f"{source}: cannot be read ({error.strerror}); see to its permissions") from error
        return _from_list(read_list(data), str(source), beside=source.parent)
    return PhotoList(source.parent, (source.name,), alone=True)


def find_photos_of_all(sources: Sequence[Path | URL], *, results: Path | None) -> PhotoList:
    """List the photos of several files and folders, as a shell gives them; mirrored from the folder that holds all.

    Raises:
        NoPhotos: there are none.
        SamePlace: `results` is one of the folders.

    """
    paths: list[str] = []
    unlisted: list[PhotoFailure] = []
    left_out: list[Path] = []
    for source in sources:
        if isinstance(source, Path) and not source.is_dir():
            paths.append(str(source))
            continue
        found = _from_address(source) if isinstance(source, URL) else _from_folder(source, results)
        paths += [str(found.place(name)) for name in found.names]
        unlisted += found.unlisted
        left_out += found.left_out
    return replace(_from_list(paths, "sources", beside=None), unlisted=tuple(unlisted), left_out=tuple(left_out))


def _from_folder(root: Path, results: Path | None, made_too: bool = False) -> PhotoList:
    if results is not None and root.resolve() == results.resolve():
        raise SamePlace(
            f"{results}: is the folder of the photos itself; name another one, for example {root / 'results'}"
        )
    walk = _Walk(root, results, made_too)
    names = sorted(walk.below(root))
    if not names:
        looked = f"{root}: no photo in it; looked in all sub-folders for {walk.describe()}"
        raise NoPhotos(walk.unlisted[0].cause if walk.unlisted else looked)
    return PhotoList(root, names, tuple(walk.unlisted), tuple(walk.left_out))


def _from_pattern(pattern: str, results: Path | None, made_too: bool) -> PhotoList:
    fixed = []
    for part in PurePath(pattern).parts:
        if _WILDCARD.search(part):
            break
        fixed.append(part)
    root = Path(*fixed)
    walk = _Walk(root, results, made_too)
    names: set[str] = set()
    for match in glob.iglob(pattern, recursive=True):  # noqa: PTH207 - a Path's cannot begin at a drive or root
        path = Path(match)
        if path.is_dir():
            # `**` matches folders too, and gives what lies in them by itself.
            if "**" not in pattern:
                names.update(walk.below(path))
        elif (
            path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden_file(path.name) and not walk.is_result(path.parent)
        ):
            names.add(path.relative_to(root).as_posix())
    if not names:
        raise NoPhotos(
            f"{pattern}: does not exist, and as a pattern it is the name of no photo; looked for {walk.describe()}"
        )
    return PhotoList(root, sorted(names), tuple(walk.unlisted), tuple(walk.left_out))


class _Walk:
    """Goes through folders, and keeps account of those that cannot be listed or that hold results."""

    def __init__(self, root: Path, results: Path | None, made_too: bool) -> None:
        self._root = root
        self._made_too = made_too
        self._results = results.resolve() if results is not None else None
        # A destination that holds the source, like the working folder, does not make results of the photos.
        if self._results is not None and self._results in root.resolve().parents:
            self._results = None
        self.unlisted: list[PhotoFailure] = []
        self.left_out: list[Path] = []

    def below(self, folder: Path) -> Iterable[str]:
        """The names of the pictures in a folder and below, relative to the root."""
        for path, names in walk_files(folder, on_error=self._note):
            if self.is_result(path):
                continue
            prefix = path.relative_to(self._root).as_posix()
            prefix = "" if prefix == "." else f"{prefix}/"
            for name in names:
                if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122 - a Path is ten times slower
                    yield prefix + name

    def is_result(self, folder: Path) -> bool:
        """Whether a folder lies in the destination, or in another that carmask filled."""
        if self._results is not None and self._results in (folder.resolve(), *folder.resolve().parents):
            return True
        if any(left_out in (folder, *folder.parents) for left_out in self.left_out):
            return True
        if not self._made_too and folder != self._root and any(folder.glob(f"{PICTURE_RECORD}*")):
            self.left_out.append(folder)
            return True
        return False

    def describe(self) -> str:
        """What was looked for, and where not."""
        but = f", but not in results of carmask: {', '.join(map(str, self.left_out))}" if self.left_out else ""
        return ", ".join(sorted(IMAGE_SUFFIXES)) + but

    def _note(self, error: OSError) -> None:
        cause = f"{error.filename}: cannot be listed ({error.strerror}); see to its permissions"
        self.unlisted.append(PhotoFailure(Path(error.filename), cause))


def _from_stream(data: bytes) -> PhotoList:
    if not data:
        raise NoPhotos("standard input: nothing came in; pipe a photo or a list of photos into it")
    if is_list(data):
        return _from_list(read_list(data), "standard input", beside=None)
    return PhotoList(Path(), ("standard input",), alone=True, data=data)


def _from_list(paths: Sequence[str], label: str, *, beside: Path | URL | None) -> PhotoList:
    """Photos in the list's order, each once. A path that does not exist is found out when it is opened."""
    return PhotoList(*rooted(paths, label, beside=beside))


def _from_address(source: URL) -> PhotoList:
    suffix = source.suffix.lower()
    if suffix in TABLE_SUFFIXES["parquet"]:
        return _from_list(read_paths(source), str(source), beside=source.parent)
    if suffix == LIST_SUFFIX:
        return _from_list(read_list(source.read_bytes()), str(source), beside=source.parent)
    if not source.is_folder():
        return PhotoList(source.parent, (source.name,), alone=True)
    names = [name for name in source.names_below() if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]  # noqa: PTH122
    if not names:
        raise NoPhotos(f"{source}: no photo in it; looked for {', '.join(sorted(IMAGE_SUFFIXES))} in all sub-folders")
    return PhotoList(source, names)
