"""Photos in, masks or pictures out: results written aside and moved, failures noted, none fatal."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from carmask.ahead import in_batches, map_ahead
from carmask.errors import CarmaskError
from carmask.files import write_bytes_atomically
from carmask.imaging.decode import Photo, decode_photo
from carmask.imaging.draw import draw_compare, draw_overlay
from carmask.imaging.encode import encode_cutout, encode_mask, encode_png, encode_soft
from carmask.pipeline.jobs import Failure, Job
from carmask.progress import Progress
from carmask.segmenter import Segmenter

Kind = Literal["mask", "soft", "cutout", "overlay", "compare"]


@dataclass(frozen=True)
class Outcome:
    """What became of the photos. `empty` are those in which no vehicle was found; they have a result all the same."""

    done: int
    empty: tuple[Path, ...]
    failures: tuple[Failure, ...]


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
    return Outcome(done - len(failures), tuple(empty), tuple(sorted(failures, key=lambda failure: failure.path)))


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
