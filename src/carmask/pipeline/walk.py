"""Find the photos in folders and by patterns, without results of carmask and what file managers leave behind."""

import fnmatch
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from carmask.files import is_hidden_file, unlistable, walk_files
from carmask.imaging.formats import FORMATS, IMAGE_SUFFIXES, describe_left_out
from carmask.pipeline.photo_list import PhotoFailure, PhotoList, SourceError
from carmask.pipeline.urls import URL

# The hidden journal of a folder of pictures that carmask wrote; its name begins with this where shards wrote them.
PICTURE_JOURNAL = ".carmask-results"

_WILDCARD = re.compile(r"[*?\[]")


def list_folder(root: Path, results: Path | None, with_results: bool) -> PhotoList:
    """List the photos of a folder and of all folders below it; see `find_photos`."""
    if results is not None and root.resolve() == results.resolve():
        raise SourceError(
            f"{results}: is the folder of the photos itself; choose another one, for example {root / 'results'}"
        )
    walk = _Walk(root, results, with_results)
    return walk.list_photos(walk.below(root), f"{root}: no photo in it; looked in all sub-folders for")


def list_url(root: URL, results: URL | None) -> PhotoList:
    """List the photos below a folder at a URL; see `find_photos`."""
    # Both end in a slash, however they were written.
    start, taken = f"{root / ''}", f"{results / ''}" if results is not None else ""
    if taken == start:
        raise SourceError(f"{root}: is the folder of the photos itself; choose another one, such as {root / 'results'}")
    every = sorted(root.files_below())
    names = [name for name in every if not any(map(is_hidden_file, name.split("/")))]
    if taken.startswith(start):  # a destination above the source does not make results of the photos
        names = [name for name in names if not f"{root / name}".startswith(taken)]
    written = sorted({folder for name in every if (folder := _folder_of_results(name))})
    skipped = tuple(root / folder for folder in written if any(name.startswith(f"{folder}/") for name in names))
    below = tuple(f"{folder}/" for folder in written)
    photos, left_out = _divide(name for name in names if not name.startswith(below))
    if not photos:
        raise SourceError(f"{root}: no photo in it; looked in all sub-folders for {FORMATS}{_but(skipped)}")
    return PhotoList(root, photos, skipped=skipped, left_out=left_out)


def _folder_of_results(name: str) -> str:
    """Return the folder of a journal of pictures; nothing for other files."""
    folder, _, file = name.rpartition("/")
    return folder if file.startswith(PICTURE_JOURNAL) else ""


def _but(skipped: Sequence[Path | URL]) -> str:
    return f", but not in results of carmask: {', '.join(map(str, skipped))}" if skipped else ""


def is_pattern(source: str) -> bool:
    """Whether it has wildcards."""
    return _WILDCARD.search(source) is not None


def list_pattern(pattern: str, results: Path | None, with_results: bool) -> PhotoList:
    """List the photos that a pattern names, or that are in folders that it names; see `find_photos`."""
    parts = PurePath(pattern).parts
    # A folder that is there is meant before a pattern, as in `find_photos`.
    heads = [Path(*parts[: index + 1]) for index in range(len(parts))]
    is_fixed = (not is_pattern(head.name) or head.exists() for head in heads[:-1])
    fixed = next((index for index, fixed in enumerate(is_fixed) if not fixed), len(heads) - 1)
    # `**` is not left to `glob`, which goes around in circles where a link leads to a folder above it.
    deep = parts.index("**") if "**" in parts else len(parts)
    walk = _Walk(Path(*parts[:fixed]), results, with_results)
    names: list[str] = []
    searched = str(Path(glob.escape(str(walk.root)), *parts[fixed:deep]))
    for match in glob.iglob(searched):  # noqa: PTH207 - a Path's cannot begin at a drive or root
        path = Path(match)
        found = path.relative_to(walk.root).parts
        # A pattern may name hidden folders, but does not mean them with a wildcard.
        if any(is_hidden_file(name) and part[0] != name[0] for name, part in zip(found, parts[fixed:], strict=False)):
            continue
        if path.is_dir():
            names += (name for name in walk.below(path) if _matches(name.split("/")[len(found) :], parts[deep:]))
        elif deep == len(parts) and not walk.is_result(path.parent):
            names.append("/".join(found))
    names = each_once(str(walk.root), names)
    return walk.list_photos(names, f"{pattern}: does not exist, and as a pattern it matches no photo; looked for")


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a file, or a folder that it is in, matches a pattern; both in parts."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_matches(names[start:], pattern[1:]) for start in range(len(names)))
    return bool(names) and fnmatch.fnmatch(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def each_once(root: str, names: Iterable[str]) -> list[str]:
    """Return the names below `root`, the one in the fewest folders of each photo that links to folders name twice."""
    real: dict[str, str] = {}
    found: dict[tuple[str, str], str] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder not in real:
            real[folder] = os.path.realpath(os.path.join(root, folder))  # noqa: PTH118
        known = found.setdefault((real[folder], file), name)
        if (name.count("/"), name) < (known.count("/"), known):
            found[real[folder], file] = name
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
        """Yield the names of the files in a folder and below, relative to the root."""
        for path, names in walk_files(folder, on_error=self._add_unlisted):
            if self.is_result(path):
                continue
            prefix = path.relative_to(self.root).as_posix()
            prefix = "" if prefix == "." else f"{prefix}/"
            yield from (prefix + name for name in names)

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
        """Return the list of the photos among these files. looked_for: how an error begins if there are none."""
        photos, left_out = _divide(names)
        if not photos:
            but = _but(self._skipped)
            but += f"; there are {describe_left_out(left_out)}" if left_out else ""
            cause = f"{looked_for} {FORMATS}{but}"
            raise SourceError(self._unlisted[0].cause if self._unlisted else cause)
        return PhotoList(self.root, sorted(photos), tuple(self._unlisted), tuple(self._skipped), left_out)

    def _add_unlisted(self, error: OSError) -> None:
        self._unlisted.append(PhotoFailure(Path(error.filename), unlistable(error)))


def _divide(names: Iterable[str]) -> tuple[list[str], Counter[str]]:
    """Return the photos among these files, and how many others there are by the ending of their names."""
    photos, left_out = [], Counter[str]()
    for name in names:
        ending = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path is ten times slower
        if ending in IMAGE_SUFFIXES:
            photos.append(name)
        else:
            left_out[ending] += 1
    return photos, left_out
