"""One job for each photo: where its result goes, named so that none overwrites another, and what became of it."""

import os
import posixpath
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, overload

from carmask.errors import CarmaskError
from carmask.imaging.masks import Box
from carmask.pipeline.sources import PhotoList
from carmask.pipeline.urls import URL
from carmask.result import Result

_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


class BadDestination(CarmaskError):
    """The results cannot go where they were asked for."""


@dataclass(frozen=True)
class Shard:
    """The part `number` (from 1) of `count` parts. A photo belongs to one by its name alone, wherever it stands."""

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
            raise CarmaskError(f"--shard {text}: give a part and the number of parts, from 1/4 to 4/4")
        return cls(number, count)

    @property
    def suffix(self) -> str:
        """What stands in the names of files that each part writes for itself: `-2of4`, or nothing for the whole."""
        return f"-{self.number}of{self.count}" if self.count > 1 else ""

    def holds(self, name: str) -> bool:
        """Whether a photo belongs to this part."""
        return self.count == 1 or zlib.crc32(os.fsencode(name)) % self.count == self.number - 1


@dataclass(frozen=True)
class Job:
    """One photo and its result.

    position: the photo's place among all photos, from 0. name: as in `PhotoList.names`. picture: the photo's place, or
    its bytes. origin: the file that the result is made from: the photo, or a mask of it. result: path below the
    destination, with forward slashes.
    """

    position: int
    name: str
    photo: Path | URL
    picture: Path | URL | bytes
    origin: Path | URL
    result: str

    def read(self) -> Path | bytes:
        """What a decoder takes: the photo's file, or its bytes.

        Raises:
            URLError: it lies at an address, and cannot be read there.

        """
        return self.picture.read_bytes() if isinstance(self.picture, URL) else self.picture


@dataclass(frozen=True)
class Jobs(Sequence[Job]):
    """Jobs in the order of the photos; each is put together when it is asked for.

    whole_names: the photos whose results bear their whole names. positions: which of the photos.
    """

    photos: PhotoList
    suffix: str
    whole_names: frozenset[str]
    positions: Sequence[int]

    @classmethod
    def plan(cls, photos: PhotoList, suffix: str, shard: Shard | None = None) -> "Jobs":
        """Name every result: the photo's stem and `suffix`, or its whole name and `suffix` where results would meet.

        The names do not depend on the shard.
        """
        positions: Sequence[int] = range(len(photos.names))
        if shard is not None and shard.count > 1:
            positions = array("q", (place for place in positions if shard.holds(photos.names[place])))
        return cls(photos, suffix, _whole_names(photos.names, suffix), positions)

    def only(self, positions: Sequence[int]) -> "Jobs":
        """Return the jobs of these photos."""
        return replace(self, positions=positions)

    def at(self, position: int) -> Job:
        """Return the job of one photo."""
        name = self.photos.names[position]
        photo = self.photos.place(name)
        result = _result_name(name, self.suffix, whole=name in self.whole_names)
        picture = photo if self.photos.data is None else self.photos.data
        origin = photo if self.photos.origins is None else self.photos.origins[position]
        return Job(position, name, photo, picture, origin, result)

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, index: int) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> "Jobs": ...
    def __getitem__(self, index: int | slice) -> "Job | Jobs":
        if isinstance(index, slice):
            return self.only(self.positions[index])
        return self.at(self.positions[index])

    def __iter__(self) -> Iterator[Job]:
        return map(self.at, self.positions)


def refuse_overwriting_photos(jobs: Jobs, result_of: Callable[[Job], Path]) -> None:
    """Refuse to let a result take the place of a photo, or of what results are made from.

    Files are compared, not names: they may differ in case or lead over links and still be one.

    Raises:
        BadDestination: a result is itself one of the photos.

    """
    if not any(os.path.lexists(result_of(job)) for job in jobs):
        return
    files = chain(map(jobs.photos.place, jobs.photos.names), jobs.photos.origins or ())
    photos = {_identity(path) for path in files} - {None}
    for job in jobs:
        result = result_of(job)
        if _identity(result) in photos:
            raise BadDestination(
                f"{result}: is itself one of the photos, and the result of {job.origin} would overwrite it; name "
                "another place for the results"
            )


def _result_name(name: str, suffix: str, *, whole: bool) -> str:
    # For 100,000 names, several times over, a PurePath takes seconds.
    return f"{name if whole else posixpath.splitext(name)[0]}{suffix}"


def _whole_names(names: Sequence[str], suffix: str) -> frozenset[str]:
    """The photos whose results have to bear the photo's whole name, since two would have one name by their stems.

    A whole name may be what another photo's stem gives (`a.jpg`, `a.png` and `a.jpg.png`), so it takes more than one
    round; it ends since no two whole names are the same. Names that differ only in case meet on many file systems.
    """
    whole: set[str] = set()
    while True:
        taken = Counter(_result_name(name, suffix, whole=name in whole).casefold() for name in names)
        if taken.total() == len(taken):
            return frozenset(whole)
        met = {
            name
            for name in names
            if name not in whole and taken[_result_name(name, suffix, whole=False).casefold()] > 1
        }
        if not met:  # two photos whose own names differ only in case
            return frozenset(whole)
        whole |= met


def _identity(path: Path | URL) -> tuple[int, int] | None:
    if isinstance(path, URL):
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@dataclass(frozen=True)
class Extent:
    """Where the vehicle is. box_px: top, left, bottom, right, or None where there is none. coverage: share, 0..1."""

    box_px: Box | None = None
    coverage: float = 0.0

    @classmethod
    def of(cls, found: Result) -> "Extent":
        """Measure a mask."""
        return cls(found.box_px, round(found.coverage, 6))


@dataclass(frozen=True)
class PhotoOutcome:
    """What became of one photo.

    cause: why there is no result, or None. row: what a table has to say of it. seconds: computing time of this photo.
    """

    job: Job
    cause: str | None = None
    row: Any = None
    extent: Extent = Extent()
    seconds: float = 0.0
