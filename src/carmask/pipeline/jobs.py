"""Which photos there are, where their results go, and the list of those that failed."""

import csv
import io
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from carmask.errors import CarmaskError
from carmask.files import UnwritableFile, walk_files, write_bytes_atomically
from carmask.imaging.decode import IMAGE_SUFFIXES

_HEADER = ("photo", "cause")


class NoPhotos(CarmaskError):
    """There is nothing to predict."""


class BadDestination(CarmaskError):
    """The results cannot go where they were asked for."""


@dataclass(frozen=True)
class Job:
    """One photo, and the file that its result is written to."""

    photo: Path
    result: Path


@dataclass(frozen=True)
class Failure:
    """A photo that could not be cut out, or a folder that could not be listed, and why."""

    path: Path
    cause: str


def find_jobs(source: Path, destination: Path) -> tuple[list[Job], list[Failure]]:
    """List the photos of a file or a folder with where their results go, and the folders that cannot be listed.

    Results are PNG files in a mirrored tree. A photo gives its stem to its result, or its whole name where results
    would clash. For one photo `destination` may be the result's own name. Where `destination` lies inside `source`,
    pictures in it are results of before, not photos.

    Raises:
        NoPhotos: nothing is there, or it cannot be listed.
        BadDestination: a result would overwrite a photo, or `destination` is a file.

    """
    try:
        is_folder = stat.S_ISDIR(source.stat().st_mode)
    except FileNotFoundError as error:
        raise NoPhotos(f"{source}: does not exist; name a photo or a folder of photos") from error
    except OSError as error:
        raise NoPhotos(f"{source}: cannot be opened ({error.strerror}); name a photo or a folder of photos") from error
    is_result = _check_destination(destination, of_folder=is_folder)
    unlisted: list[Failure] = []
    if is_folder:
        photos, unlisted = _find_photos(source, destination)
        names = _name_results([photo.relative_to(source) for photo in photos])
        jobs = [Job(photo, destination / name) for photo, name in zip(photos, names, strict=True)]
    else:
        jobs = [Job(source, destination if is_result else destination / f"{source.stem}.png")]
    _refuse_overwriting(jobs)
    return jobs, unlisted


def write_failures(path: Path, failures: Sequence[Failure]) -> None:
    """Write the list of failures, or remove that of an earlier run where nothing failed.

    A file of that name that is something else stays as it is.

    Raises:
        UnwritableFile: the list cannot be written or removed, or something else is in its place.

    """
    header = ",".join(_HEADER)
    try:
        is_there = path.exists()
        is_ours = path.is_file() and path.read_bytes().startswith(header.encode())
        if not failures and is_ours:
            path.unlink()
    except OSError as error:
        raise UnwritableFile(f"{path}: cannot be replaced ({error.strerror}); see to its permissions") from error
    if not failures:
        return
    if is_there and not is_ours:
        raise UnwritableFile(
            f"{path}: is not a list of failures (it does not begin with '{header}') and is left as it is; move it away "
            "and run again to have the failures listed"
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    writer.writerows((failure.path, failure.cause) for failure in failures)
    write_bytes_atomically(path, text.getvalue().encode("utf-8", "backslashreplace"))


def _check_destination(destination: Path, *, of_folder: bool) -> bool:
    """Whether the destination is the result's own name, and not a folder for results."""
    try:
        is_there, is_folder = True, stat.S_ISDIR(destination.stat().st_mode)
    except FileNotFoundError:
        is_there = is_folder = False
    except OSError as error:
        raise BadDestination(
            f"{destination}: cannot be used ({error.strerror}); name another place for the results"
        ) from error
    suffix = destination.suffix.lower()
    if is_folder:
        return False
    if of_folder and (is_there or suffix in IMAGE_SUFFIXES):
        raise BadDestination(f"{destination}: is no folder; name a folder for the results of a folder of photos")
    if suffix == ".png":
        return True
    if is_there or suffix in IMAGE_SUFFIXES:
        raise BadDestination(f"{destination}: results are PNG; give a name that ends in .png, or a folder")
    return False


def _find_photos(source: Path, destination: Path) -> tuple[list[Path], list[Failure]]:
    root, results = source.resolve(), destination.resolve()
    if root == results:
        raise BadDestination(
            f"{destination}: is the folder of the photos itself; name another one, for example {source / 'masks'}"
        )
    unlisted: list[Failure] = []

    def note(error: OSError) -> None:
        cause = f"{error.filename}: cannot be listed ({error.strerror}); see to its permissions"
        unlisted.append(Failure(Path(error.filename), cause))

    # A destination that holds the source, like the working folder, does not make results of the photos.
    holds_source = results in root.parents
    photos = [
        folder / name
        for folder, names in walk_files(source, on_error=note)
        if holds_source or results not in (folder.resolve(), *folder.resolve().parents)
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES
    ]
    if not photos:
        looked = f"{source}: no photo in it; looked for {', '.join(sorted(IMAGE_SUFFIXES))} in all sub-folders"
        raise NoPhotos(unlisted[0].cause if unlisted else looked)
    return photos, unlisted


def _name_results(photos: Iterable[Path]) -> list[Path]:
    """Name each result by the stem of its photo, or by the photo's whole name where two would have one name.

    A whole name may be what another photo's stem gives (`a.jpg`, `a.png` and `a.jpg.png`), so it takes more than one
    round; it ends since no two whole names are the same.
    """
    names = {photo: photo.with_suffix(".png") for photo in photos}
    while True:
        taken = Counter(names.values())
        clashing = [photo for photo, name in names.items() if taken[name] > 1]
        if not clashing:
            return list(names.values())
        names.update((photo, photo.with_name(f"{photo.name}.png")) for photo in clashing)


def _refuse_overwriting(jobs: Iterable[Job]) -> None:
    # Files are compared, not names: they may differ in case or lead over links and still be one.
    photos = {_identity(job.photo) for job in jobs} - {None}
    for job in jobs:
        if _identity(job.result) in photos:
            raise BadDestination(
                f"{job.result}: is itself one of the photos, and the result of {job.photo} would overwrite it; name "
                "another place for the results"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
