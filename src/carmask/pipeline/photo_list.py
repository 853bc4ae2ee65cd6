"""The photos of a source in order, what of it cannot be listed, and what was left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from carmask.errors import CarmaskError
from carmask.pipeline.urls import URL


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

    unlisted: folders that cannot be listed. skipped: folders that hold results of carmask. left_out: how many files
    beside the photos are no photos, or of a kind that is not read, by the ending of their names in lower case. alone: a
    single photo, named by itself. data: its bytes, if it came from standard input. origins: the files that results are
    made from, if these are not the photos themselves.
    """

    root: Path | URL
    names: Sequence[str]
    unlisted: tuple[PhotoFailure, ...] = ()
    skipped: tuple[Path | URL, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
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
