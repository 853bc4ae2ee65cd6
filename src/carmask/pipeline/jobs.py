"""One job for each photo: the name of its result, so that none overwrites another, and its outcome."""

import math
import os
import posixpath
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from carmask.errors import CarmaskError
from carmask.imaging.masks import Box
from carmask.pipeline.photo_list import PhotoList
from carmask.pipeline.urls import URL

_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


class BadDestination(CarmaskError):
    """The results cannot be written to this destination."""


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `count`. The part of a photo depends on nothing but its name."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `2/4`.

        Raises:
            CarmaskError: it is not a part and a number of parts.
        """
        match = _SHARD.fullmatch(text)
        number, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= count:
            raise CarmaskError(f"--shard {text}: write the part and the number of parts, such as 1/4 to 4/4")
        return cls(number, count)

    @property
    def suffix(self) -> str:
        """What the names of the files end with that each part writes for itself: `-2of4`; nothing for the whole."""
        return f"-{self.number}of{self.count}" if self.count > 1 else ""

    def holds(self, name: str) -> bool:
        """Whether a photo belongs to this part."""
        return self.count == 1 or zlib.crc32(os.fsencode(name)) % self.count == self.number - 1


@dataclass(frozen=True)
class Job:
    """One photo and its result.

    position: of the photo in the list of all, from 0. name: as in `PhotoList.names`. picture: where the photo is, or
    its bytes. origin: the file that the result is made from, the photo or a mask of it. result: path below the
    destination, with forward slashes. made_from: what `carmask.pipeline.origins` says of `origin` and `photo`.
    remark: what of the photo was left out. extent_HW: the largest height and width of the vehicles that are to have the
    scale of this one, in pixels; None if each has its own.
    """

    position: int
    name: str
    photo: Path | URL
    picture: Path | URL | bytes
    origin: Path | URL
    result: str
    made_from: str = ""
    remark: str = ""
    extent_HW: tuple[int, int] | None = None

    def read(self) -> Path | bytes:
        """Return what a decoder takes: the photo's file, or its bytes.

        Raises:
            URLError: the photo is at a URL that cannot be read.
        """
        return self.picture.read_bytes() if isinstance(self.picture, URL) else self.picture


@dataclass(frozen=True)
class PhotoOutcome:
    """The outcome of one photo.

    cause: why it has no result, or None. row: its row, where results go into a table. box_px: around the mask, None if
    it is empty. coverage: share of the photo, 0..1. expected_dice, score: see `Result`; the score is NaN where no
    network ran. seconds: computing time of this photo.
    """

    job: Job
    cause: str | None = None
    row: Any = None
    box_px: Box | None = None
    coverage: float = 0.0
    expected_dice: float | None = None
    score: float = math.nan
    seconds: float = 0.0


@dataclass(frozen=True)
class Jobs:
    """Jobs in the order of the photos. Only names are kept; each job is created when it is asked for.

    whole_names: photos whose results are named by the photo's whole name. positions: of the photos in `photos`.
    folder: of the results below the destination, with a slash at its end. extent_of: `Job.extent_HW` by photo's name.
    """

    photos: PhotoList
    suffix: str
    whole_names: frozenset[str]
    positions: Sequence[int]
    folder: str = ""
    extent_of: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def plan(cls, photos: PhotoList, suffix: str, shard: Shard) -> "Jobs":
        """Name every result: the photo's stem and `suffix`, or its whole name and `suffix` where two would be equal.

        The names do not depend on the shard.
        """
        positions: Sequence[int] = range(len(photos.names))
        if shard.count > 1:
            positions = array("q", (position for position in positions if shard.holds(photos.names[position])))
        return cls(photos, suffix, _whole_names(photos.names, suffix), positions)

    def only(self, positions: Sequence[int]) -> "Jobs":
        """Return the jobs of these photos."""
        return replace(self, positions=positions)

    def at(self, position: int) -> Job:
        """Return the job of one photo."""
        name = self.photos.names[position]
        photo = self.photos.locate(name)
        result = self.folder + _result_name(name, self.suffix, whole=name in self.whole_names)
        picture = photo if self.photos.data is None else self.photos.data
        origin = photo if self.photos.origins is None else self.photos.origins[position]
        return Job(position, name, photo, picture, origin, result, extent_HW=self.extent_of.get(name))

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Job]:
        return map(self.at, self.positions)


def refuse_overwriting_photos(jobs: Jobs, result_of: Callable[[Job], Path | URL]) -> None:
    """Refuse a result that would replace a photo, or a file that results are made from.

    Files are compared, not names: two names may differ in case, or by a link, and be the same file.

    Raises:
        BadDestination: a result is one of the photos.
    """
    if not any(isinstance(result := result_of(job), URL) or os.path.lexists(result) for job in jobs):
        return
    sources = chain(map(jobs.photos.locate, jobs.photos.names), jobs.photos.origins or ())
    identities = {_identity(path) for path in sources} - {None}
    for job in jobs:
        result = result_of(job)
        if _identity(result) in identities:
            raise BadDestination(
                f"{result}: is one of the photos, and the result of {job.origin} would overwrite it; choose another "
                "destination"
            )


def _result_name(name: str, suffix: str, *, whole: bool) -> str:
    # For 100,000 names, several times over, a PurePath takes seconds.
    return f"{name if whole else posixpath.splitext(name)[0]}{suffix}"


def _whole_names(names: Sequence[str], suffix: str) -> frozenset[str]:
    """Return the photos whose results need the photo's whole name, because two results would have the same name.

    A whole name may equal what another photo's stem gives (`a.jpg`, `a.png` and `a.jpg.png`), so this takes more than
    one round; it ends because no two whole names are equal. Many file systems ignore the case of names.
    """
    whole: set[str] = set()
    while True:
        taken = Counter(_result_name(name, suffix, whole=name in whole).casefold() for name in names)
        if taken.total() == len(taken):
            return frozenset(whole)
        clashing = {
            name
            for name in names
            if name not in whole and taken[_result_name(name, suffix, whole=False).casefold()] > 1
        }
        if not clashing:  # two photos whose own names differ only in case
            return frozenset(whole)
        whole |= clashing


def _identity(path: Path | URL) -> URL | tuple[int, int] | None:
    if isinstance(path, URL):
        return path
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
