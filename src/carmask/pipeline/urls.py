"""Photos and results at URLs that fsspec serves: s3://bucket/photos, zip://car.jpg::photos.zip."""

import datetime
import posixpath
import random
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from carmask.errors import CarmaskError, first_line
from carmask.files import NoSpace

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# A Windows drive has one letter.
_URL = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]+)://(?P<path>.*)", re.DOTALL)
_LOCAL = frozenset({"file", "local"})
# Stores in which a file appears whole or not at all. On other servers a killed upload would leave half a file.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory"})
# S3 deletes as many with one request.
_REMOVED_AT_ONCE = 1000
# An upload is tried again after 0.2 s, 0.4 s, ... up to 5 s: a store may be busy for half a minute.
_TRIES, _FIRST_PAUSE_S, _MAX_PAUSE_S = 9, 0.2, 5.0
_FINAL_ERRORS = (FileNotFoundError, PermissionError, ImportError, NotImplementedError, CarmaskError)
# What stores call the time at which a file was written.
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")


class URLError(CarmaskError):
    """A URL cannot be read."""


class UnwritableStore(URLError, NoSpace):
    """A store takes no files, so that no other file can be written there either."""


class StoredFile(NamedTuple):
    """A file in a store. mtime_ns: when it was written, 0 where the store does not say."""

    size_bytes: int
    mtime_ns: int


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

    def with_name(self, name: str) -> "URL":
        """Return a neighbor of this name."""
        return self.parent / name

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

    def exists(self) -> bool:
        """Whether there is such a file.

        Raises:
            URLError: the store refuses to say.
        """
        with self.filesystem() as (system, path):
            system.invalidate_cache()
            try:
                return bool(system.info(path)["type"] == "file")
            except FileNotFoundError:
                return False

    def read_if_exists(self, end: int | None = None) -> bytes | None:
        """Return the file, or its first `end` bytes; None if there is none.

        Raises:
            URLError: it cannot be read.
        """
        with self.filesystem() as (system, path):
            try:
                data: bytes = system.cat_file(path, end=end)
            except FileNotFoundError:
                return None
            return data

    def files_below(self) -> dict[str, StoredFile]:
        """Return all files below this folder, hidden ones too, by their names relative to it; none without a folder.

        Raises:
            URLError: they cannot be listed.
        """
        with self.filesystem() as (system, path):
            # Other processes write to the store, too.
            system.invalidate_cache()
            prefix = f"{path.rstrip('/')}/".lstrip("/")
            try:
                found = system.find(path, detail=True)
            except FileNotFoundError:
                found = {}
            files = ((name.lstrip("/"), info) for name, info in found.items())
            return {
                name.removeprefix(prefix): StoredFile(info["size"] or 0, _mtime_ns(info))
                for name, info in files
                if name.startswith(prefix)
            }

    def write_bytes(self, data: bytes, *, tries: int = _TRIES) -> None:
        """Write a whole file. What fails for a reason that may pass is tried again, with growing pauses.

        Raises:
            UnwritableStore: it cannot be written.
        """
        from fsspec.core import url_to_fs

        try:
            for number in range(tries):
                try:
                    system, path = url_to_fs(str(self))
                    system.pipe_file(path, data)
                    return
                except _FINAL_ERRORS:
                    raise
                except Exception:  # stores have errors of their own for what may pass
                    if number + 1 == tries:
                        raise
                    # Not all at the same moment.
                    time.sleep(min(_MAX_PAUSE_S, _FIRST_PAUSE_S * 2**number) * random.uniform(0.5, 1))  # noqa: S311
        except FileNotFoundError as error:
            raise UnwritableStore(f"{self}: there is no such bucket ({first_line(error)}); create it first") from error
        except Exception as error:
            raise UnwritableStore(
                f"{self}: cannot be written ({first_line(error)}); check the URL and your access to it, and run the "
                "same command again"
            ) from error

    def remove(self, names: Iterable[str]) -> None:
        """Delete files below this folder; those that are gone already do not matter.

        Raises:
            URLError: they cannot be deleted.
        """
        with self.filesystem() as (system, path):
            paths = [f"{path.rstrip('/')}/{name}" for name in names]
            # fsspec takes the names of many files for patterns.
            plain = [one for one in paths if not _has_wildcard(one)]
            for start in range(0, len(plain), _REMOVED_AT_ONCE):
                with suppress(FileNotFoundError):
                    system.rm(plain[start : start + _REMOVED_AT_ONCE])
            for one in filter(_has_wildcard, paths):
                with suppress(FileNotFoundError):
                    system.rm_file(one)

    def require_store(self) -> None:
        """Check that results may be written here.

        Raises:
            URLError: they would not appear whole.
        """
        if self.inside or self.protocol not in _OBJECT_STORES:
            raise URLError(
                f"{self}: results are written to folders and object stores (s3://, gs://, az://, ...), where a file "
                "appears whole or not at all; choose one of these"
            )
        if self.protocol != "memory" and not self.path.partition("/")[0]:
            raise URLError(f"{self}: names no bucket; write {self.protocol}://bucket/folder")

    def require_text(self) -> None:
        """Check that a store can hold a file of this name.

        Raises:
            URLError: the name is not valid text.
        """
        try:
            self.path.encode()
        except UnicodeEncodeError as error:
            raise URLError(f"{self}: the name is not valid text, as stores want it; rename the photo") from error

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


def _has_wildcard(path: str) -> bool:
    return any(character in path for character in "*?[")


def _mtime_ns(info: dict[str, Any]) -> int:
    """Return when a file was written, by what a store says of it."""
    moment = next((info[key] for key in _TIMES if info.get(key)), 0)
    if isinstance(moment, str):
        try:
            moment = datetime.datetime.fromisoformat(moment)
        except ValueError:
            return 0
    seconds = moment.timestamp() if isinstance(moment, datetime.datetime) else moment
    return int(seconds * 1e9) if isinstance(seconds, int | float) else 0


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
