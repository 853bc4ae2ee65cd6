"""Write the rendered data set: photos, masks and tables in Carvana's layout."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from carstudio.arrays import BoolArray, ByteArray
from carstudio.design import car_id, design_car
from carstudio.render import Session, open_session, take_photo

_MANIFEST = "studio.json"
_RENDERER_VERSION = 1  # raise it with every change of the pictures
_JPEG_QUALITY = 90
_BLACK_AND_WHITE = (0, 0, 0, 255, 255, 255)
_VIEWS_PER_TASK = 4  # few, so that progress is even; the empty studio is painted once per task
_SMALLEST_SIDE_PX, _MOST_VIEWS = 32, 99


class StudioError(Exception):
    """The request is impossible, or the folder holds something else or cannot be written. Its text is for a person."""


@dataclass(frozen=True)
class RenderedSet:
    """The set in `root`: its cars, the number of photos, and how many of them this call rendered."""

    root: Path
    car_ids: tuple[str, ...]
    photos: int
    rendered: int


@dataclass(frozen=True)
class _Task:
    folder: Path
    seed: int
    number: int
    first_view: int
    last_view: int
    views: int
    size_HW: tuple[int, int]

    def pending(self) -> list[int]:
        """Views whose photo or mask does not exist yet."""
        files = ((view, _photo_path(self.folder, car_id(self.seed, self.number), view)) for view in self.each_view())
        return [view for view, photo in files if not (photo.exists() and _mask_path(photo).exists())]

    def each_view(self) -> range:
        """First to last view."""
        return range(self.first_view, self.last_view + 1)


def render_dataset(
    root: str | Path,
    *,
    cars: int = 12,
    views: int = 16,
    size_HW: tuple[int, int] = (1280, 1918),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
) -> RenderedSet:
    """Write a set of `cars` invented cars, each seen from `views` sides, in the layout of Kaggle's Carvana folder.

    `root` gets train/<car>_<view>.jpg, train_masks/<car>_<view>_mask.gif, train_masks.csv, metadata.csv and
    studio.json, which names the parameters. A picture depends on (seed, car, view, size) alone: a larger set begins
    with the same cars, and the same call writes the same bytes with the same versions of the libraries.

    The set is written to <root>.partial, and moved to `root` when it is complete. The next call continues an
    interrupted one. If `root` already holds the requested set, only missing files are rendered, usually none.

    progress: called with (photos done, photos in all). workers: number of processes. If it is more than 1, they are
    spawned, so a script needs its `if __name__ == "__main__"` guard.

    Raises StudioError if a number is out of range, `root` holds something else or cannot be written, or a process ends.
    """
    _check_request(cars, views, size_HW, seed, workers)
    wanted = {"renderer": _RENDERER_VERSION, "cars": cars, "views": views, "size_HW": list(size_HW), "seed": seed}
    with _failures_named(root):
        root = Path(root).resolve()  # since "." has no name to which .partial could be added
        folder = _choose_folder(root, wanted)
        tasks = [
            _Task(folder, seed, number, first, min(first + _VIEWS_PER_TASK - 1, views), views, size_HW)
            for number in range(cars)
            for first in range(1, views + 1, _VIEWS_PER_TASK)
        ]
        pending = [task for task in tasks if task.pending()]
        done = sum(len(task.each_view()) for task in tasks) - sum(len(task.pending()) for task in pending)
    rendered = 0
    for count in _run(pending, workers):
        rendered += count
        if progress is not None:
            progress(done + rendered, cars * views)
    with _failures_named(root):
        if rendered or not (folder / "train_masks.csv").exists() or not (folder / "metadata.csv").exists():
            _write_tables(folder, seed, cars, views)
        if folder != root:
            _move(folder, root)
    return RenderedSet(root, tuple(car_id(seed, number) for number in range(cars)), cars * views, rendered)


@contextmanager
def _failures_named(root: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # Python before 3.13 raises RuntimeError for a link to itself
        raise StudioError(
            f"{root}: the example data cannot be written there ({error}); check its permissions or name another folder"
        ) from error


def _check_request(cars: int, views: int, size_HW: tuple[int, int], seed: int, workers: int) -> None:
    if cars < 1:
        raise StudioError(f"cars = {cars}: must be 1 or more")
    if not 1 <= views <= _MOST_VIEWS:
        raise StudioError(f"views = {views}: must be 1 to {_MOST_VIEWS}")
    if min(size_HW) < _SMALLEST_SIDE_PX:
        raise StudioError(f"size (height, width) = {size_HW}: both sides must be {_SMALLEST_SIDE_PX} pixels or more")
    if seed < 0:
        raise StudioError(f"seed = {seed}: must be 0 or more")
    if workers < 1:
        raise StudioError(f"workers = {workers}: must be 1 or more")


def _choose_folder(root: Path, wanted: dict[str, object]) -> Path:
    """The folder to render into: `root` if it already holds this set, else <root>.partial."""
    if root.exists() and not root.is_dir():
        raise StudioError(f"{root}: a file; name a folder for the example data")
    holds_set = root.exists() and any(root.iterdir())
    folder = root if holds_set else root.with_name(root.name + ".partial")
    if folder.exists() and any(folder.iterdir()):
        _refuse_others(folder, wanted)
    for name in ("train", "train_masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if not holds_set:
        _write_file(folder / _MANIFEST, (json.dumps(wanted, indent=2) + "\n").encode())
    return folder


def _move(folder: Path, root: Path) -> None:
    """Move the complete set to `root`, which does not exist or is empty."""
    if not root.exists():
        folder.replace(root)
        return
    # Only its content is replaced, since the folder may be a shell's working directory or a mount point. The manifest
    # is moved first, so that the next call can continue an interrupted one.
    for path in sorted(folder.iterdir(), key=lambda path: path.name != _MANIFEST):
        shutil.move(path, root / path.name)
    folder.rmdir()


def _refuse_others(folder: Path, wanted: dict[str, object]) -> None:
    manifest = folder / _MANIFEST
    if not manifest.exists():
        raise StudioError(f"{folder}: not empty and without {_MANIFEST}; name a new folder for the example data")
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StudioError(f"{manifest}: cannot be read ({error}); delete the folder or name another one") from error
    if found != wanted:
        raise StudioError(
            f"{folder}: holds example data with other parameters ({found} instead of {wanted}); "
            "delete the folder or name another one"
        )


def _run(tasks: list[_Task], workers: int) -> Iterator[int]:
    """Yield the number of photos rendered by each task. A single process needs no pool."""
    if workers == 1 or len(tasks) < 2:
        for task in tasks:
            yield _render(task)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, initializer=_use_one_thread) as pool:
        try:
            for future in as_completed([pool.submit(_render, task) for task in tasks]):
                yield future.result()
        except BrokenExecutor as error:
            raise StudioError("a process ended, perhaps for lack of memory; call again with fewer workers") from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _use_one_thread() -> None:
    cv2.setNumThreads(1)


def _render(task: _Task) -> int:
    """Render the missing photos of one task and return their number."""
    views = task.pending()
    session = _session(task.seed, task.number, task.size_HW)
    for view in views:
        image_HWC, mask_HW = take_photo(session, view, task.views)
        photo = _photo_path(task.folder, session.car.id, view)
        _write_file(_mask_path(photo), _mask_gif(mask_HW))
        _write_file(photo, _photo_jpeg(image_HWC))
    return len(views)


@lru_cache(maxsize=1)
def _session(seed: int, number: int, size_HW: tuple[int, int]) -> Session:
    return open_session(seed, number, size_HW)


def _photo_path(folder: Path, car: str, view: int) -> Path:
    return folder / "train" / f"{car}_{view:02d}.jpg"


def _mask_path(photo: Path) -> Path:
    return photo.parent.parent / "train_masks" / f"{photo.stem}_mask.gif"


def _photo_jpeg(image_HWC: ByteArray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image_HWC).save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()


def _mask_gif(mask_HW: BoolArray) -> bytes:
    """A palette GIF of indices 0 (black) and 1 (white), as the challenge's masks are."""
    image = Image.fromarray(mask_HW.astype(np.uint8))
    image.putpalette(_BLACK_AND_WHITE)
    stream = io.BytesIO()
    image.save(stream, "GIF", optimize=False)
    return stream.getvalue()


def _write_tables(folder: Path, seed: int, cars: int, views: int) -> None:
    """Write train_masks.csv, from the GIFs in the folder, and metadata.csv; rows in the order of the car ids."""
    ids = {car_id(seed, number): number for number in range(cars)}
    masks = io.StringIO()
    rows = csv.writer(masks)
    rows.writerow(("img", "rle_mask"))
    for car in sorted(ids):
        for view in range(1, views + 1):
            photo = _photo_path(folder, car, view)
            with Image.open(_mask_path(photo)) as gif:
                rows.writerow((photo.name, _run_lengths(np.asarray(gif) > 0)))
    _write_file(folder / "train_masks.csv", masks.getvalue().encode())
    metadata = io.StringIO()
    rows = csv.writer(metadata, quoting=csv.QUOTE_ALL, lineterminator="\n")
    rows.writerow(("id", "year", "make", "model", "trim1", "trim2"))
    for car in sorted(ids):
        made = design_car(seed, ids[car])
        rows.writerow((car, made.year, made.make, made.model, made.model, made.trim))
    _write_file(folder / "metadata.csv", metadata.getvalue().encode())


def _run_lengths(mask_HW: BoolArray) -> str:
    """The challenge's run lengths: pairs of start, counted from 1 along the rows, and length."""
    steps = np.diff(mask_HW.reshape(-1).astype(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return " ".join(map(str, np.column_stack([starts + 1, ends - starts]).reshape(-1).tolist()))


def _write_file(path: Path, data: bytes) -> None:
    """Write a hidden file beside `path`, then rename it, so that an interruption leaves no half of a file."""
    partial = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise StudioError(
            f"{path}: cannot be written ({error.strerror}); check the folder and the free space"
        ) from error
