"""Masks that are there already, as files or as a table of run lengths, to be written as other kinds."""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import file_digest
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from carmask import __version__
from carmask.data.pairs import photo_stems
from carmask.errors import CarmaskError
from carmask.imaging.decode import decode_mask, read_size
from carmask.imaging.rle import RleError, decode_carvana, read_rows
from carmask.pipeline.jobs import Job
from carmask.pipeline.kinds import TABLE_SUFFIXES
from carmask.pipeline.sources import PhotoFailure, PhotoList, find_photos
from carmask.result import Result

_THRESHOLD = 0.5

Read = Callable[[], Result]


class MasksError(CarmaskError):
    """Masks cannot be taken as they are."""


@dataclass(frozen=True)
class Masks:
    """Masks, named by their photos.

    table: the file that they are rows of, unless each is a file of its own; lines: where in it each row ends, from 1.
    """

    photos: PhotoList
    foreground: int | None = None
    table: Path | None = None
    lines: Sequence[int] = ()

    def describe(self) -> dict[str, Any]:
        """All on which results depend beside the kind, as JSON can hold it."""
        described: dict[str, Any] = {"carmask": __version__, "masks": "files", "foreground": self.foreground}
        if self.table is not None:
            with self.table.open("rb") as stream:
                described["masks"] = f"table {file_digest(stream, 'sha256').hexdigest()[:12]}"
        return described

    def readers(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Read]]:
        """Each job, in the order of the masks, with what reads its mask, in any thread."""
        if self.table is None:
            origins = self.photos.origins or ()
            for job in jobs:
                yield job, partial(_read_file, origins[job.position], self.foreground)
            return
        rows = self.rows()
        for job in jobs:
            runs = next(runs for name, runs in rows if name == job.name)
            photo = self.photos.path(job.name)
            yield job, partial(_read_runs, runs, photo, f"{self.table}, row of {photo.name}")

    def rows(self) -> Iterator[tuple[str, str]]:
        """The photo's name and the run lengths of each mask that is a row of the table, in its order."""
        if self.table is not None:
            rows = read_rows(self.table)
            for name, at in zip(self.photos.names, self.lines, strict=True):
                yield name, next(fields[1] for line, fields in rows if line == at)


def find_masks(source: Path, *, photos: Path | None, foreground: int | None, results: Path | None) -> Masks:
    """List masks by the names of their photos.

    Args:
        source: As for `find_photos`, of masks: `car_mask.gif` or `car.png` is that of the photo `car`. Or a table of
            run lengths (.csv, .csv.gz).
        photos: The photos. Without them a mask is taken for that of a .jpg of the same stem.
        foreground: The stored value that is foreground; see `decode_mask`.
        results: See `find_photos`.

    Raises:
        CarmaskError: there are no masks; or a table without photos, which alone know how large the masks are, or with
            `foreground`, which it does not have.

    """
    known = find_photos(photos, results=results) if photos is not None else None
    if source.name.lower().endswith(TABLE_SUFFIXES["carvana-csv"]):
        if foreground is not None:
            raise MasksError(f"{source}: a table of run lengths has no mask values; leave out --foreground")
        if known is None:
            raise MasksError(f"{source}: does not say how large its masks are; name the folder of its photos, --photos")
        return _of_table(source, known)
    return Masks(_of_files(find_photos(source, results=results, made_too=True), known), foreground)


def _of_files(masks: PhotoList, known: PhotoList | None) -> PhotoList:
    photo_of = _by(known.names, _stem) if known is not None else {}
    names: dict[str, Path] = {}
    failures = list(masks.unlisted)
    for mask in masks.names:
        path = masks.path(mask)
        stem, bare = photo_stems(_stem(mask))
        found = photo_of.get(stem) or photo_of.get(bare) if known is not None else [f"{bare}.jpg"]
        if not found or len(found) > 1:
            cause = "no photo has this name" if not found else f"{' and '.join(found)} have this name"
            failures.append(PhotoFailure(path, f"{path}: {cause}; rename it or take it out of the folder"))
        elif found[0] in names:
            failures.append(
                PhotoFailure(path, f"{path}: {names[found[0]]} is a mask of the same photo; remove one of them")
            )
        else:
            names[found[0]] = path
    if not names:
        raise MasksError(failures[0].cause)
    root = known.root if known is not None else masks.root
    return replace(masks, root=root, names=list(names), unlisted=tuple(failures), origins=list(names.values()))


def _of_table(table: Path, known: PhotoList) -> Masks:
    photo_of = _by(known.names, lambda name: PurePosixPath(name).name)
    names: dict[str, int] = {}
    failures = list(known.unlisted)
    for line, fields in read_rows(table):
        name = fields[0].strip()
        found = photo_of.get(name, [])
        cause = None
        if len(fields) != 2:
            cause = f"has {len(fields)} fields instead of a name and run lengths"
        elif len(found) != 1:
            cause = f"{name}: {' and '.join(found)} have this name" if found else f"{name}: no photo has this name"
        elif found[0] in names:
            cause = f"{name}: has a row already"
        if cause is not None:
            failures.append(PhotoFailure(table, f"{table}, line {line}: {cause}"))
        else:
            names[found[0]] = line
    if not names:
        raise MasksError(failures[0].cause if failures else f"{table}: has no rows")
    photos = PhotoList(known.root, list(names), tuple(failures), known.left_out)
    return Masks(photos, None, table, array("q", names.values()))


def _stem(name: str) -> str:
    """A name without its ending, folders included."""
    return str(PurePosixPath(name).with_suffix(""))


def _by(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(key(name), []).append(name)
    return found


def _read_file(path: Path, foreground: int | None) -> Result:
    soft_HW = decode_mask(path, foreground=foreground).soft_HW
    return Result(soft_HW.astype(np.float32) / np.float32(255), _THRESHOLD)


def _read_runs(runs: str, photo: Path, label: str) -> Result:
    try:
        mask_HW = decode_carvana(runs, read_size(photo))
    except RleError as error:
        raise RleError(f"{label}: {error}") from error
    return Result(mask_HW.astype(np.float32), _THRESHOLD)
