"""Files and folders that a path cannot name: s3://bucket/photos, zip://car.jpg::photos.zip, whatever fsspec reads."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from carmask.errors import CarmaskError, first_line
from carmask.files import is_hidden_file

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# A Windows drive has one letter.
_ADDRESS = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]+)://(?P<path>.*)", re.DOTALL)
_LOCAL = frozenset({"file", "local"})


class URLError(CarmaskError):
    """An address cannot be read."""


@dataclass(frozen=True, slots=True)
class URL:
    """A file or folder that fsspec reaches. inside: what follows `::`, where it lies in an archive or a cache."""

    protocol: str
    path: str
    inside: str = ""

    def __str__(self) -> str:
        return f"{self.protocol}://{self.path}{f'::{self.inside}' if self.inside else ''}"

    def __truediv__(self, name: str) -> "URL":
        folder = self.path.rstrip("/")
        return replace(self, path=f"{folder}/{name}" if folder else name)

    @property
    def suffix(self) -> str:
        """The ending of the last name, with its dot."""
        return PurePosixPath(self.path).suffix

    @property
    def name(self) -> str:
        """The last name."""
        return PurePosixPath(self.path).name

    @property
    def parent(self) -> "URL":
        """The folder that it lies in."""
        return replace(self, path=self.path.rstrip("/").rpartition("/")[0])

    def is_folder(self) -> bool:
        """Whether it is a folder.

        Raises:
            URLError: there is nothing, or nobody can say.

        """
        with self.opened() as (system, path):
            return path == "" or system.info(path)["type"] == "directory"

    def read_bytes(self) -> bytes:
        """All of the file.

        Raises:
            URLError: it cannot be read.

        """
        with self.opened() as (system, path):
            data: bytes = system.cat_file(path)
            return data

    def names_below(self) -> list[str]:
        """The files below this folder, relative to it, sorted, without hidden ones.

        Raises:
            URLError: it cannot be listed.

        """
        with self.opened() as (system, path):
            prefix = f"{path.rstrip('/')}/".lstrip("/")
            names = (found.lstrip("/").removeprefix(prefix) for found in system.find(path))
            return sorted(name for name in names if not any(map(is_hidden_file, name.split("/"))))

    @contextmanager
    def opened(self) -> Iterator[tuple["AbstractFileSystem", str]]:
        """The file system that it lies in, and its path there. Whatever fails inside is this address's error.

        Raises:
            URLError: fsspec or the store's package is missing, or the store refuses.

        """
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise URLError(
                f"{self}: an address needs fsspec, which is not installed; `pip install 'carmask[cluster]'` brings it"
            ) from error
        try:
            yield url_to_fs(str(self))
        except CarmaskError:
            raise
        except FileNotFoundError as error:
            raise URLError(f"{self}: there is no such file or folder; check the address") from error
        except Exception as error:
            # Every store's package has errors of its own, and a missing package is one more.
            raise URLError(f"{self}: cannot be read ({first_line(error)}); see to address and access") from error


def path_or_url(text: str) -> Path | URL:
    """What a text names: an address, or a path, which file:// is too."""
    outer, chained, inside = text.partition("::")
    match = _ADDRESS.fullmatch(outer)
    if match is None:
        return Path(text)
    if match["protocol"] in _LOCAL and not chained:
        return Path(match["path"])
    return URL(match["protocol"], match["path"], inside)


def common_folder(places: list[URL]) -> tuple[URL, list[str]]:
    """The folder that holds all addresses, and their names below it.

    Raises:
        ValueError: they lie in different stores.

    """
    stores = {(place.protocol, place.inside) for place in places}
    if len(stores) > 1:
        raise ValueError("several stores")
    folders = [path.split("/") for path in {place.parent.path for place in places}]
    # What the first and the last in order have in common all have. `commonpath` would drop empty names between slashes.
    first, last = min(folders), max(folders)
    shared = "/".join(
        name for name, other in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    )
    root = replace(places[0], path=shared)
    return root, [place.path[len(shared) + 1 :] if shared else place.path for place in places]
