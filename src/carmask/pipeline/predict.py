"""Photos in, masks or pictures out: folders mirrored, results written aside and moved, failures listed, none fatal."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from carmask.ahead import in_batches, map_ahead
from carmask.data.layout import walk
from carmask.errors import CarmaskError
from carmask.imaging.decode import IMAGE_SUFFIXES, Photo, decode_photo
from carmask.imaging.encode import (
    draw_compare,
    draw_overlay,
    encode_cutout,
    encode_mask,
    encode_png,
    encode_soft,
    write_bytes_atomically,
)
from carmask.segmenter import Segmenter

Kind = Literal["mask", "soft", "cutout", "overlay", "compare"]
Progress = Callable[[int, int], None]


class NoPhotos(CarmaskError):
    """There is nothing to predict."""


@dataclass(frozen=True)
class Job:
    """One photo, and the file that its result is written to."""

    photo: Path
    result: Path


@dataclass(frozen=True)
class Failure:
    """A photo that could not be cut out, and why."""

    photo: Path
    cause: str


@dataclass(frozen=True)
class Outcome:
    """What became of the photos. `empty` are those in which no vehicle was found; they have a result all the same."""

    done: int
    empty: tuple[Path, ...]
    failures: tuple[Failure, ...]


def find_jobs(source: Path, destination: Path) -> list[Job]:
    """List the photos of a file or a folder, and where their results go: PNG files in a mirrored tree.

    A photo gives its stem to its result, or its whole name where two photos of a folder share the stem. For one photo
    `destination` may be the result's own name. Pictures inside `destination` are results of before, not photos.

    Raises:
        NoPhotos: nothing is there.
        DatasetError: a folder cannot be listed.

    """
    if source.is_file():
        whole = destination.suffix.lower() == ".png" and not destination.is_dir()
        return [Job(source, destination if whole else destination / f"{source.stem}.png")]
    if not source.is_dir():
        raise NoPhotos(f"{source}: does not exist; name a photo or a folder of photos")
    results = destination.resolve()
    photos = [
        folder / name
        for folder, names in walk(source)
        if results not in (folder.resolve(), *folder.resolve().parents)
        for name in names
        if Path(name).suffix.lower() in IMAGE_SUFFIXES
    ]
    if not photos:
        raise NoPhotos(f"{source}: no photo in it; looked for {', '.join(sorted(IMAGE_SUFFIXES))} in all sub-folders")
    stems = Counter(photo.with_suffix("") for photo in photos)
    return [
        Job(photo, destination / _result_name(photo.relative_to(source), shared=stems[photo.with_suffix("")] > 1))
        for photo in photos
    ]


def predict(
    jobs: Sequence[Job],
    segmenter: Segmenter,
    kind: Kind,
    *,
    batch_size: int = 4,
    workers: int = 2,
    progress: Progress | None = None,
) -> Outcome:
    """Cut out every photo. Decoding, the network and encoding overlap; a few batches are in memory at any time."""
    failures: list[Failure] = []
    empty: list[Path] = []
    encoding: list[Future[bool]] = []
    done = 0

    def decode(job: Job) -> tuple[Job, Photo | Failure]:
        try:
            return job, segmenter.decode(job.photo)
        except CarmaskError as error:
            return job, Failure(job.photo, str(error))

    def collect() -> None:
        """Wait for the batch before this one, so that results do not pile up."""
        for (job, _), future in zip(before, encoding, strict=True):
            try:
                if not future.result():
                    empty.append(job.photo)
            except CarmaskError as error:
                failures.append(Failure(job.photo, str(error)))

    before: list[tuple[Job, Photo]] = []
    with ThreadPoolExecutor(workers) as decoders, ThreadPoolExecutor(workers) as encoders:
        for batch in in_batches(map_ahead(decoders, decode, jobs, 2 * batch_size), batch_size):
            failures += [photo for _, photo in batch if isinstance(photo, Failure)]
            readable = [(job, photo) for job, photo in batch if isinstance(photo, Photo)]
            probabilities = segmenter.predict_photos([photo for _, photo in readable])
            collect()
            before = readable
            encoding = [
                encoders.submit(_write, job, kind, probability_HW, segmenter.threshold)
                for (job, _), probability_HW in zip(readable, probabilities, strict=True)
            ]
            done += len(batch)
            if progress is not None:
                progress(done, len(jobs))
        collect()
    return Outcome(done - len(failures), tuple(empty), tuple(sorted(failures, key=lambda failure: failure.photo)))


def write_failures(path: Path, failures: Sequence[Failure]) -> None:
    """Write `failures.csv`, or remove the one of an earlier run where nothing failed."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["photo", "cause"])
    writer.writerows([failure.photo, failure.cause] for failure in failures)
    write_bytes_atomically(path, text.getvalue().encode("utf-8", "backslashreplace"))


def _result_name(photo: Path, *, shared: bool) -> Path:
    return photo.with_name(f"{photo.name}.png") if shared else photo.with_suffix(".png")


def _write(job: Job, kind: Kind, probability_HW: NDArray[np.float32], threshold: float) -> bool:
    """Encode and write one result. Returns whether a vehicle was found."""
    mask_HW = probability_HW >= threshold
    write_bytes_atomically(job.result, _encode(job.photo, kind, probability_HW, mask_HW))
    return bool(mask_HW.any())


def _encode(photo: Path, kind: Kind, probability_HW: NDArray[np.float32], mask_HW: NDArray[np.bool_]) -> bytes:
    if kind == "mask":
        return encode_mask(mask_HW)
    if kind == "soft":
        return encode_soft(probability_HW)
    whole = decode_photo(photo)
    if kind == "cutout":
        return encode_cutout(whole.image_HWC, probability_HW, whole.icc_profile)
    draw = draw_overlay if kind == "overlay" else draw_compare
    return encode_png(draw(whole.image_HWC, mask_HW))
