"""The photos of a source in order, what of it cannot be listed, and what was left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from carmask.errors import CarmaskError
from carmask.imaging.formats import OTHER_PICTURE_SUFFIXES, RAW_SUFFIXES
from carmask.pipeline.urls import URL

_SHOWN_ENDINGS = 5


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
    skipped: tuple[Path, ...] = ()
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


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """`PhotoList.left_out` in words, such as: 12 files that are no photos (9 .json, 3 .txt), 2 RAW photos (2 .cr3)."""
    raw = {ending: count for ending, count in left_out.items() if ending in RAW_SUFFIXES}
    pictures = {ending: count for ending, count in left_out.items() if ending in OTHER_PICTURE_SUFFIXES}
    others = {ending: count for ending, count in left_out.items() if ending not in raw | pictures}
    parts = (
        _count(others, "file that is not a photo", "files that are not photos"),
        _count(raw, "RAW photo", "RAW photos", "; export JPEGs of them"),
        _count(pictures, "picture of a kind that is not read", "pictures of kinds that are not read", "; convert them"),
    )
    return ", ".join(part for part in parts if part)


def _count(count_of: Mapping[str, int], one: str, many: str, advice: str = "") -> str:
    if not count_of:
        return ""
    most = sorted(count_of, key=lambda ending: (-count_of[ending], ending))
    named = [f"{count_of[ending]} {ending or 'without an ending'}" for ending in most[:_SHOWN_ENDINGS]]
    if rest := sum(count_of[ending] for ending in most[_SHOWN_ENDINGS:]):
        named.append(f"{rest} others")
    total = sum(count_of.values())
    return f"{total} {many if total > 1 else one} ({', '.join(named)}{advice})"
