"""Match the photos that label files name with the pictures at hand."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from carmask.imaging.decode import IMAGE_SUFFIXES


class PhotoNames:
    """Finds photos by the names that label files have for them."""

    def __init__(self, names: Iterable[str]) -> None:
        """names: paths of the photos below their folder, with forward slashes."""
        # By each end of the path, with and without the photo's suffix: the paths.
        self._by_end: dict[str, list[str]] = defaultdict(list)
        self._whole: dict[str, list[str]] = defaultdict(list)
        for name in names:
            for path in {name, _stem(name)}:
                parts = path.split("/")
                self._whole[path].append(name)
                for start in range(len(parts)):
                    self._by_end["/".join(parts[start:])].append(name)

    def find(self, name: str) -> list[str]:
        """Photos that a label file may mean by a name.

        Of both paths, the label file's and the photo's, one has to be the end of the other, since exports often have
        more or fewer folders.
        """
        path = plain_name(name)
        parts = path.split("/")
        if path in self._whole:
            return self._with_suffix(path)
        if found := self._by_end.get(path):
            return found
        below = ("/".join(parts[start:]) for start in range(1, len(parts)))
        return next((self._with_suffix(end) for end in below if end in self._whole), [])

    def _with_suffix(self, path: str) -> list[str]:
        """The photo of this path, or those of this path without their suffix."""
        found = self._whole[path]
        return [path] if path in found else found


def plain_name(name: str) -> str:
    """Return a relative path that stays below its folder, with forward slashes."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))


def _stem(name: str) -> str:
    """Return a name without the suffix of a picture, with its folders."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in IMAGE_SUFFIXES else name
