"""Photos at URLs that fsspec reads: s3://bucket/photos, zip://car.jpg::photos.zip."""

import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from carmask.errors import CarmaskError, first_line
from carmask.files import is_hidden_file

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# A Windows drive has one letter.
_URL = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]+)://(?P<path>.*)", re.DOTALL)
_LOCAL = frozenset({"file", "local"})


class URLError(CarmaskError):
    """A URL cannot be read."""


@dataclass(frozen=True, slots=True)
class URL:
    """A file or folder that fsspec reads. inside: what follows `::`, the archive or cache that holds it."""

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
        """The folder that holds it."""
        return replace(self, path=self.path.rstrip("/").rpartition("/")[0])

    def is_folder(self) -> bool:
        """Whether it is a folder.

        Raises:
            URLError: it does not exist, or the store refuses.

        """
        with self.filesystem() as (system, path):
            return path == "" or system.info(path)["type"] == "directory"

    def read_bytes(self) -> bytes:
        """Return the whole file.

        Raises:
            URLError: it cannot be read.

        """
        with self.filesystem() as (system, path):
            data: bytes = system.cat_file(path)
            return data

    def names_below(self) -> list[str]:
        """Return the files below this folder, relative to it, sorted, without hidden ones.

        Raises:
            URLError: it cannot be listed.

        """
        with self.filesystem() as (system, path):
            prefix = f"{path.rstrip('/')}/".lstrip("/")
            names = (found.lstrip("/").removeprefix(prefix) for found in system.find(path))
            return sorted(name for name in names if not any(map(is_hidden_file, name.split("/"))))

    @contextmanager
    def filesystem(self) -> Iterator[tuple["AbstractFileSystem", str]]:
        """Open its file system; gives that and the path in it. Any error inside the block becomes a `URLError`.

        Raises:
            URLError: the store's package is missing, or the store refuses.
            ImportError: fsspec is missing.

        """
        from fsspec.core import url_to_fs

        try:
            yield url_to_fs(str(self))
        except CarmaskError:
            raise
        except FileNotFoundError as error:
            raise URLError(f"{self}: there is no such file or folder; check the URL") from error
        except Exception as error:
            # Every store's package has errors of its own, and a missing package is one more.
            raise URLError(
                f"{self}: cannot be read ({first_line(error)}); check the URL and your access to it"
            ) from error


def parse_path(text: str) -> Path | URL:
    """Read a path or a URL; file:// is a path."""
    outer, chained, inside = text.partition("::")
    match = _URL.fullmatch(outer)
    if match is None:
        return Path(text)
    if match["protocol"] in _LOCAL and not chained:
        return Path(match["path"])
    return URL(match["protocol"], match["path"], inside)


def common_folder(urls: list[URL]) -> tuple[URL, list[str]]:
    """Return the folder that holds all URLs, and their names below it.

    Raises:
        ValueError: they are in different stores.

    """
    stores = {(url.protocol, url.inside) for url in urls}
    if len(stores) > 1:
        raise ValueError("several stores")
    # Of lists of names `commonprefix` is right; `commonpath` would drop empty names.
    shared = "/".join(posixpath.commonprefix([path.split("/") for path in {url.parent.path for url in urls}]))
    return replace(urls[0], path=shared), [url.path[len(shared) + 1 :] if shared else url.path for url in urls]
