"""Existing masks, as files or as a table of run lengths, written as another kind: what `carmask convert` does."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import file_digest
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from carmask import __version__
from carmask.data.pairs import photo_stems
from carmask.files import SimilarNames
from carmask.imaging.decode import decode_mask, read_size
from carmask.imaging.rle import RleError, decode_carvana, read_rows
from carmask.pipeline.jobs import Job, PhotoOutcome
from carmask.pipeline.journal import describe_files
from carmask.pipeline.kinds import TABLE_SUFFIXES
from carmask.pipeline.outputs import Plan
from carmask.pipeline.predict import failed, put_result
from carmask.pipeline.sinks import Put
from carmask.pipeline.sources import PhotoFailure, PhotoList, SourceError, find_photos
from carmask.pipeline.summary import Follow, RunSummary, collect_outcomes
from carmask.runner import default_workers, map_ahead
from carmask.segmenter import Result

_THRESHOLD = 0.5

# Reads a mask, in any thread.
Read = Callable[[], Result]


@dataclass(frozen=True)
class MaskList:
    """Masks, named by their photos. table: the file whose rows they are, unless each has a file of its own."""

    photos: PhotoList
    foreground: int | None = None
    table: Path | None = None

    def provenance(self) -> dict[str, Any]:
        """Return what results depend on beside their kind, as JSON can hold it."""
        masks = "files"
        if self.table is not None:
            with self.table.open("rb") as stream:
                masks = f"table {file_digest(stream, 'sha256').hexdigest()[:12]}"
        return {"carmask": __version__, "masks": masks, "foreground": self.foreground}

    def readers(self) -> Iterator[tuple[str, Read]]:
        """Yield each photo's name with the function that reads its mask, in the order of `photos`."""
        if self.table is None:
            for name, origin in zip(self.photos.names, self.photos.origins or (), strict=True):
                yield name, partial(_read_file, origin, self.foreground)
            return
        for _, name, runs in match_rows(self.table, self.photos, lambda *_: None):
            photo = self.photos.path(name)
            yield name, partial(_read_runs, runs, photo, f"{self.table}, row of {photo.name}")


def convert_masks(masks: MaskList, plan: Plan, *, overwrite: bool = False, follow: Follow | None = None) -> RunSummary:
    """Write masks as the kind that the plan says. See `predict_photos`.

    Raises:
        CarmaskError: the destination holds other results or cannot be written, or the disk is full.

    """
    with plan.open_sink(masks.provenance(), overwrite=overwrite) as sink:
        return collect_outcomes(_convert(masks, sink.jobs, sink.put), plan, sink, follow)


def _convert(masks: MaskList, jobs: Iterable[Job], put: Put) -> Generator[PhotoOutcome, None, None]:
    readers = masks.readers()
    work = ((job, next(read for name, read in readers if name == job.name)) for job in jobs)

    def convert(mask: tuple[Job, Read]) -> PhotoOutcome:
        job, read = mask
        started_s = time.perf_counter()
        try:
            outcome = put_result(replace(job, made_from=describe_files(job)), read(), put)
        except Exception as error:  # noqa: BLE001 - `failed` raises others again
            return failed(job, error)
        return replace(outcome, seconds=time.perf_counter() - started_s)

    workers = default_workers()
    with ThreadPoolExecutor(workers, "convert") as pool:
        yield from map_ahead(pool, convert, work, ahead=4 * workers)


def find_masks(source: Path, *, photos: Path | None, foreground: int | None, results: Path | None) -> MaskList:
    """List masks by the names of their photos.

    Args:
        source: As for `find_photos`, of masks: `car_mask.gif` and `car.png` are masks of the photo `car`. Or a table of
            run lengths (.csv, .csv.gz).
        photos: The photos. Without them the photo of a mask is assumed to be a .jpg of the same stem.
        foreground: The stored value that is foreground; see `decode_mask`.
        results: See `find_photos`.

    Raises:
        CarmaskError: there are no masks; or a table without photos, which alone know the size of the masks, or with
            `foreground`, which a table does not have.

    """
    known = find_photos(photos, results=results) if photos is not None else None
    if source.name.lower().endswith(TABLE_SUFFIXES["carvana-csv"]):
        if foreground is not None:
            raise SourceError(f"{source}: a table of run lengths has no mask values; leave out --foreground")
        if known is None:
            raise SourceError(f"{source}: does not hold the size of its masks; give the folder of the photos, --photos")
        failures = list(known.unlisted)
        rows = match_rows(source, known, lambda _, cause: failures.append(PhotoFailure(source, cause)))
        names = [name for _, name, _ in rows]
        if not names:
            raise SourceError(failures[0].cause if failures else f"{source}: has no rows")
        return MaskList(replace(known, names=names, unlisted=tuple(failures)), table=source)
    return MaskList(_match_files(find_photos(source, results=results, with_results=True), known), foreground)


def match_rows(
    table: Path, photos: PhotoList, report: Callable[[str, str], None], *, strip: bool = True
) -> Iterator[tuple[int, str, str]]:
    """Yield the line, the photo and the run lengths of each row that belongs to one photo, the first of each photo.

    Args:
        table: Run lengths by the photos' file names, .csv or .csv.gz.
        photos: Their names are those that are yielded.
        report: Called for every other row, with the kind of the problem and with a sentence that names the line.
        strip: Whether spaces around a name, its case and how its accents are stored do not matter.

    Raises:
        TableError: it is not such a table.

    """
    photos_of = _group(photos.names, lambda name: PurePosixPath(name).name)
    similar = SimilarNames(photos_of if strip else ())
    done: set[str] = set()
    for line, fields in read_rows(table):
        label = f"{table}, line {line}"
        if len(fields) != 2:
            report("rows with other fields", f"{label}: {len(fields)} fields instead of a name and run lengths")
            continue
        name = fields[0].strip() if strip else fields[0]
        name = similar.find(name) or name
        found = photos_of.get(name, [])
        if not found:
            report("unknown photos", f"{label}: there is no photo {name!r}")
        elif len(found) > 1:
            report("photos of the same name", f"{label}: {name}: {' and '.join(found)} have this name")
        elif name in done:
            report("photos with several rows", f"{label}: {name}: has a row already")
        else:
            done.add(name)
            yield line, found[0], fields[1]


def _match_files(masks: PhotoList, known: PhotoList | None) -> PhotoList:
    photo_of = _group(known.names, _stem) if known is not None else {}
    similar = SimilarNames(photo_of)
    names: dict[str, Path] = {}
    failures = list(masks.unlisted)
    for mask in masks.names:
        path = masks.path(mask)
        stem, bare = photo_stems(_stem(mask))
        found = photo_of.get(similar.find(stem, bare) or "") if known is not None else [f"{bare}.jpg"]
        if not found or len(found) > 1:
            cause = "no photo has this name" if not found else f"{' and '.join(found)} have this name"
            failures.append(PhotoFailure(path, f"{path}: {cause}; rename it or move it out of the folder"))
        elif found[0] in names:
            cause = f"{names[found[0]]} is a mask of the same photo; remove one of them"
            failures.append(PhotoFailure(path, f"{path}: {cause}"))
        else:
            names[found[0]] = path
    if not names:
        raise SourceError(failures[0].cause)
    root = known.root if known is not None else masks.root
    return replace(masks, root=root, names=list(names), unlisted=tuple(failures), origins=list(names.values()))


def _stem(name: str) -> str:
    """Return a name without its ending, with its folders."""
    return str(PurePosixPath(name).with_suffix(""))


def _group(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups


def _read_file(path: Path, foreground: int | None) -> Result:
    soft_HW = decode_mask(path, foreground=foreground).soft_HW
    return Result(soft_HW.astype(np.float32) / np.float32(255), _THRESHOLD)


def _read_runs(runs: str, photo: Path, label: str) -> Result:
    try:
        mask_HW = decode_carvana(runs, read_size(photo))
    except RleError as error:
        raise RleError(f"{label}: {error}") from error
    return Result(mask_HW.astype(np.float32), _THRESHOLD)
