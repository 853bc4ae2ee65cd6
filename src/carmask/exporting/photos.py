"""Photos to compare engines on and to measure ranges with: the run's own, a folder's, or else rendered ones."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from carmask.data.layout import DatasetError, index_folder, locate_dataset
from carmask.data.pairs import Dataset, Pair, find_pairs, spread
from carmask.data.split import Split
from carmask.errors import CarmaskError
from carmask.evaluation.evaluate import load_truth
from carmask.evaluation.selection import TrainingSplit, find_run, select_pairs
from carmask.imaging.decode import Photo, decode_photo
from carmask.imaging.masks import PackedMask
from carmask.training.run import RunFolder
from carmask.training.settings import TrainSettings
from carstudio import StudioError, render_dataset

Item = TypeVar("Item")

# Rendering takes its time: so many cars, from so many sides, small, with odd sides.
_RENDERED_CARS, _RENDERED_VIEWS, _RENDERED_HW = 6, 4, (321, 479)


class NoPhotos(CarmaskError):
    """There are no photos to compare or to calibrate with."""


@dataclass(frozen=True)
class Sources:
    """Where photos are taken from, and how many.

    data: folder of photos and masks; the run's own photos when not given. calibration: folder of photos, with masks or
    without; those of `data` that are not measured when not given. foreground: see `decode_mask`.
    """

    data: Path | None = None
    calibration: Path | None = None
    measured: int = 24
    calibrated: int = 64
    foreground: int | None = None


@dataclass(frozen=True)
class Sample:
    """A photo at its own size, and its true mask."""

    photo: Photo
    truth: PackedMask


@dataclass(frozen=True)
class Photos:
    """The chosen photos, and in a few words which they are; what is to be said about the choice."""

    measured: tuple[Pair, ...] = field(repr=False)
    calibration: tuple[Path, ...] = field(repr=False)
    told: str
    told_calibration: str
    remarks: tuple[str, ...]
    channels: int
    foreground: int | None

    def samples(self) -> Iterator[Sample]:
        """Decode the photos to measure on.

        Every second one is cut to odd sides: photos of any size must come back as they went in.
        """
        for number, pair in enumerate(self.measured):
            image_HWC = decode_photo(pair.image, channels=self.channels).image_HWC
            truth_HW = load_truth(pair, image_HWC.shape[:2], self.foreground).mask_HW
            if number % 2:
                rows, columns = (side - 1 + side % 2 for side in truth_HW.shape)
                image_HWC, truth_HW = image_HWC[:rows, :columns], truth_HW[:rows, :columns]
            height, width = truth_HW.shape
            yield Sample(Photo(image_HWC, (height, width)), PackedMask.of(truth_HW))

    def calibration_photos(self) -> Iterator[Photo]:
        """Decode the photos to calibrate with."""
        return (decode_photo(path, channels=self.channels) for path in self.calibration)


@contextmanager
def chosen_photos(model: Path, sources: Sources, *, channels: int) -> Iterator[Photos]:
    """Choose photos for the network that lies in `model`, a run or a folder of weights. Rendered ones are gone after.

    Raises:
        CarmaskError: a folder that was named holds no photos, or they cannot be used.

    """
    with tempfile.TemporaryDirectory(prefix="carmask-") as scratch:
        run = find_run(model)
        settings = TrainSettings.from_yaml(RunFolder(run).config) if run and not sources.data else None
        if sources.data:
            dataset, foreground = find_pairs(sources.data), sources.foreground
        elif settings and settings.data.is_dir():
            dataset = find_pairs(settings.data, group_pattern=settings.dataset.group_pattern)
            foreground = settings.dataset.foreground
        else:
            yield _rendered(Path(scratch, "studio"), sources, channels, settings.data if settings else None)
            return
        trained_on = TrainingSplit.from_split(Split.load(RunFolder(run).split)) if run else None
        yield _choose(dataset, trained_on, sources, channels=channels, foreground=foreground)


def _choose(
    dataset: Dataset, trained_on: TrainingSplit | None, sources: Sources, *, channels: int, foreground: int | None
) -> Photos:
    selection = select_pairs(dataset.pairs, trained_on=trained_on)
    others = [pair for pair in dataset.pairs if trained_on and pair in trained_on.train]
    measured = spread(selection.pairs, sources.measured if others else min(sources.measured, _half(selection.pairs)))
    others = others or [pair for pair in selection.pairs if pair not in measured] or list(measured)
    calibration, told_calibration = _calibration(others, dataset.root.resolve().name, sources)
    held_out = "held-out " if selection.part == "validation" else ""
    return Photos(
        measured=measured,
        calibration=calibration,
        told=f"{len(measured)} {held_out}photos of {dataset.root.resolve().name}",
        told_calibration=told_calibration,
        # That they are held out is said with their number.
        remarks=selection.warnings if held_out else (*selection.remarks, *selection.warnings),
        channels=channels,
        foreground=foreground,
    )


def _rendered(folder: Path, sources: Sources, channels: int, missing: Path | None) -> Photos:
    try:
        render_dataset(folder, cars=_RENDERED_CARS, views=_RENDERED_VIEWS, size_HW=_RENDERED_HW)
    except StudioError as error:
        raise CarmaskError(str(error)) from error
    pairs = find_pairs(folder).pairs
    measured = spread(pairs, min(sources.measured, _half(pairs)))
    others = [pair for pair in pairs if pair not in measured]
    calibration, told_calibration = _calibration(others, "", sources)
    why = f"the run's photos are not in {missing}" if missing else "nothing says which photos it was trained on"
    return Photos(
        measured=measured,
        calibration=calibration,
        told=f"{len(measured)} rendered example photos",
        told_calibration=told_calibration,
        remarks=(f"Compared on rendered example photos, for {why}; name a folder of photos and masks with --data.",),
        channels=channels,
        foreground=None,
    )


def _calibration(others: Sequence[Pair], name: str, sources: Sources) -> tuple[tuple[Path, ...], str]:
    """Files to calibrate with, and in a few words which they are."""
    if sources.calibration is None:
        chosen = spread([pair.image for pair in others], sources.calibrated)
        return chosen, f"{len(chosen)} photos of {name}" if name else f"{len(chosen)} rendered example photos"
    files = [path for paths in index_folder(_photo_folder(sources.calibration)).pictures.values() for path in paths]
    if not files:
        raise NoPhotos(f"{sources.calibration}: holds no photos to calibrate with")
    chosen = spread(sorted(files), sources.calibrated)
    return chosen, f"{len(chosen)} photos of {sources.calibration.resolve().name}"


def _photo_folder(folder: Path) -> Path:
    """Where the photos are, also of a folder of photos and masks."""
    try:
        return locate_dataset(folder).photos
    except DatasetError:
        # Photos without masks will do.
        return folder


def _half(items: Sequence[Item]) -> int:
    return max(1, len(items) // 2)
