"""Choose the photos to compare engines on and to calibrate int8 with: the run's, a folder's, or rendered ones."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carmask.data.layout import DatasetError, index_folder, locate_dataset
from carmask.data.pairs import Pair, find_pairs, spread
from carmask.data.split import Split
from carmask.errors import CarmaskError
from carmask.evaluation.evaluate import load_truth
from carmask.evaluation.selection import TrainingSplit, find_run, select_pairs
from carmask.imaging.decode import Photo, decode_photo
from carmask.training.config import TrainSettings
from carmask.training.run_folder import RunFolder
from carstudio import StudioError, render_dataset

# Rendering takes time: few cars, from few sides, small, with odd sides.
_RENDERED_CARS, _RENDERED_VIEWS, _RENDERED_HW = 6, 4, (321, 479)


class ExportError(CarmaskError):
    """An export that its arguments make impossible."""


@dataclass(frozen=True)
class PhotoOptions:
    """The source and the number of photos. Raises `ExportError` for a number below 1.

    Attributes:
        data: Folder of photos and masks; None for the run's own.
        calibration: Folder of photos, with or without masks; None for those of `data` that are not compared.
        photos: Largest number of photos to compare on.
        calibration_photos: Largest number of photos to calibrate with.
        foreground: See `decode_mask`.

    """

    data: Path | None = None
    calibration: Path | None = None
    photos: int = 24
    calibration_photos: int = 64
    foreground: int | None = None

    def __post_init__(self) -> None:
        if self.photos < 1 or self.calibration_photos < 1:
            raise ExportError("at least one photo is needed to compare on, and one to calibrate with")


@dataclass(frozen=True)
class ExportPhotos:
    """The chosen photos, a short description of each choice, and remarks about it."""

    compared: tuple[Pair, ...] = field(repr=False)
    calibration: tuple[Path, ...] = field(repr=False)
    description: str
    calibration_description: str
    remarks: tuple[str, ...]
    channels: int
    foreground: int | None

    def samples(self) -> Iterator[tuple[Photo, NDArray[np.bool_]]]:
        """Decode the photos to compare on, each with its true mask, (height, width).

        Every second one is cut to odd sides, to compare on such sizes, too.
        """
        for number, pair in enumerate(self.compared):
            image_HWC = decode_photo(pair.image, channels=self.channels).image_HWC
            truth_HW = load_truth(pair, image_HWC.shape[:2], self.foreground).mask_HW
            if number % 2:
                rows, columns = (side - 1 + side % 2 for side in truth_HW.shape)
                image_HWC, truth_HW = image_HWC[:rows, :columns], truth_HW[:rows, :columns]
            height, width = truth_HW.shape
            yield Photo(image_HWC, (height, width)), truth_HW

    def calibration_photos(self) -> Iterator[Photo]:
        """Decode the photos to calibrate with."""
        return (decode_photo(path, channels=self.channels) for path in self.calibration)


@contextmanager
def chosen_photos(model: Path, options: PhotoOptions, *, channels: int) -> Iterator[ExportPhotos]:
    """Choose photos for the network in `model`, a run or a folder of weights. Rendered ones are removed afterwards.

    Raises:
        CarmaskError: a given folder holds no photos, or they cannot be used.

    """
    with tempfile.TemporaryDirectory(prefix="carmask-") as scratch:
        run = find_run(model)
        settings = TrainSettings.from_yaml(RunFolder(run).config) if run and not options.data else None
        foreground = options.foreground if options.data else None
        trained_on = TrainingSplit.from_split(Split.load(RunFolder(run).split)) if run else None
        remark = None
        if options.data:
            dataset = find_pairs(options.data)
        elif settings and settings.data.is_dir():
            dataset = find_pairs(settings.data, group_pattern=settings.dataset.group_pattern)
            foreground = settings.dataset.foreground
        else:
            try:
                render_dataset(
                    Path(scratch, "studio"), cars=_RENDERED_CARS, views=_RENDERED_VIEWS, size_HW=_RENDERED_HW
                )
            except StudioError as error:
                raise CarmaskError(str(error)) from error
            dataset, trained_on = find_pairs(Path(scratch, "studio")), None
            missing = settings and settings.data
            why = f"the run's photos are not in {missing}" if missing else "its training photos are not known"
            remark = f"Compared on rendered example photos, because {why}; name a folder of photos and masks: --data."
        selection = select_pairs(dataset.pairs, trained_on=trained_on)
        others = [pair for pair in dataset.pairs if trained_on and pair in trained_on.train]
        half = max(1, len(selection.pairs) // 2)
        compared = spread(selection.pairs, options.photos if others else min(options.photos, half))
        others = others or [pair for pair in selection.pairs if pair not in compared] or list(compared)
        source = "rendered example photos" if remark else f"photos of {dataset.root.resolve().name}"
        files = [pair.image for pair in others]
        calibration_source = source
        if options.calibration:
            files = _files_in(options.calibration)
            calibration_source = f"photos of {options.calibration.resolve().name}"
        calibration = spread(files, options.calibration_photos)
        held_out = selection.part == "validation"
        # The description already says that photos are held out.
        remarks = selection.warnings if held_out else (*selection.remarks, *selection.warnings)
        yield ExportPhotos(
            compared=compared,
            calibration=calibration,
            description=f"{len(compared)} {'held-out ' if held_out else ''}{source}",
            calibration_description=f"{len(calibration)} {calibration_source}",
            remarks=(remark,) if remark else remarks,
            channels=channels,
            foreground=foreground,
        )


def _files_in(folder: Path) -> list[Path]:
    """Return the photos of a data set, or of a folder without masks."""
    try:
        folders = [paths.photos for paths in locate_dataset(folder)]
    except DatasetError:
        folders = [folder]
    files = [path for photos in folders for paths in index_folder(photos).pictures.values() for path in paths]
    if not files:
        raise ExportError(f"{folder}: holds no photos to calibrate with")
    return sorted(files)
