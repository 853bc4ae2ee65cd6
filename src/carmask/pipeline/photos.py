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
from carmask.pipeline.addresses import Address
from carmask.pipeline.kinds import STREAM, TABLE_SUFFIXES
from carmask.pipeline.lists import LIST_SUFFIX, NoPhotos, is_list, read_list, rooted
from carmask.pipeline.parquet import read_paths

__all__ = ["PICTURE_RECORD", "Failure", "NoPhotos", "Photos", "SamePlace", "find_photos", "find_photos_of_all"]

# The hidden record of a folder of pictures that carmask made, and what its name begins with where shards made them.
PICTURE_RECORD = ".carmask-results"

_WILDCARD = re.compile(r"[*?\[]")


class SamePlace(CarmaskError):
    """The results would lie among the photos as if they were photos."""


@dataclass(frozen=True)
class Failure:
    """A photo that could not be cut out, or a folder that could not be listed, and why."""

    path: Path | Address
    cause: str


@dataclass(frozen=True)
class Photos:
    """Photos in order, as paths relative to `root` with forward slashes: 100,000 of them take some 10 MB.

    unlisted: folders that cannot be looked into. left_out: folders that hold results of carmask. alone: one photo,
    named by itself. data: the bytes of that photo, where it came in on standard input. origins: the files that results
    are made from, where these are not the photos themselves.
    """

    root: Path | Address
    names: Sequence[str]
    unlisted: tuple[Failure, ...] = ()
    left_out: tuple[Path, ...] = ()
    alone: bool = False
    data: bytes | None = None
    origins: Sequence[Path] | None = None

    def place(self, name: str) -> Path | Address:
        """Where a photo lies."""
        return self.root / name

    def path(self, name: str) -> Path:
        """The file of a photo.

        Raises:
            NoPhotos: the photos lie at addresses.

        """
        if isinstance(self.root, Address):
            raise NoPhotos(f"{self.root}: files are needed here, not addresses; copy them to a folder first")
        return self.root / name


def find_photos(
    source: Path | Address,
    *,
    results: Path | None,
    read_stdin: Callable[[], bytes] | None = None,
    made_too: bool = False,
) -> Photos:
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
        AddressError: an address cannot be read.

    """
    if isinstance(source, Address):
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
    return Photos(source.parent, (source.name,), alone=True)


def find_photos_of_all(sources: Sequence[Path | Address], *, results: Path | None) -> Photos:
    """List the photos of several files and folders, as a shell gives them; mirrored from the folder that holds all.

    Raises:
        NoPhotos: there are none.
        SamePlace: `results` is one of the folders.

    """
    paths: list[str] = []
    unlisted: list[Failure] = []
    left_out: list[Path] = []
    for source in sources:
        if isinstance(source, Path) and not source.is_dir():
            paths.append(str(source))
            continue
        found = _from_address(source) if isinstance(source, Address) else _from_folder(source, results)
        paths += [str(found.place(name)) for name in found.names]
        unlisted += found.unlisted
        left_out += found.left_out
    return replace(_from_list(paths, "sources", beside=None), unlisted=tuple(unlisted), left_out=tuple(left_out))


def _from_folder(root: Path, results: Path | None, made_too: bool = False) -> Photos:
    if results is not None and root.resolve() == results.resolve():
        raise SamePlace(
            f"{results}: is the folder of the photos itself; name another one, for example {root / 'results'}"
        )
    walk = _Walk(root, results, made_too)
    names = sorted(walk.below(root))
    if not names:
        looked = f"{root}: no photo in it; looked in all sub-folders for {walk.describe()}"
        raise NoPhotos(walk.unlisted[0].cause if walk.unlisted else looked)
    return Photos(root, names, tuple(walk.unlisted), tuple(walk.left_out))


def _from_pattern(pattern: str, results: Path | None, made_too: bool) -> Photos:
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
    return Photos(root, sorted(names), tuple(walk.unlisted), tuple(walk.left_out))


class _Walk:
    """Goes through folders, and keeps account of those that cannot be listed or that hold results."""

    def __init__(self, root: Path, results: Path | None, made_too: bool) -> None:
        self._root = root
        self._made_too = made_too
        self._results = results.resolve() if results is not None else None
        # A destination that holds the source, like the working folder, does not make results of the photos.
        if self._results is not None and self._results in root.resolve().parents:
            self._results = None
        self.unlisted: list[Failure] = []
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
        self.unlisted.append(Failure(Path(error.filename), cause))


def _from_stream(data: bytes) -> Photos:
    if not data:
        raise NoPhotos("standard input: nothing came in; pipe a photo or a list of photos into it")
    if is_list(data):
        return _from_list(read_list(data), "standard input", beside=None)
    return Photos(Path(), ("standard input",), alone=True, data=data)


def _from_list(paths: Sequence[str], label: str, *, beside: Path | Address | None) -> Photos:
    """Photos in the list's order, each once. A path that does not exist is found out when it is opened."""
    return Photos(*rooted(paths, label, beside=beside))


def _from_address(source: Address) -> Photos:
    suffix = source.suffix.lower()
    if suffix in TABLE_SUFFIXES["parquet"]:
        return _from_list(read_paths(source), str(source), beside=source.parent)
    if suffix == LIST_SUFFIX:
        return _from_list(read_list(source.read_bytes()), str(source), beside=source.parent)
    if not source.is_folder():
        return Photos(source.parent, (source.name,), alone=True)
    names = [name for name in source.names_below() if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]  # noqa: PTH122
    if not names:
        raise NoPhotos(f"{source}: no photo in it; looked for {', '.join(sorted(IMAGE_SUFFIXES))} in all sub-folders")
    return Photos(source, names)
