"""Choose the photos to compare engines on and to calibrate int8 with: the run's, a folder's, or rendered ones."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carmask.data.layout import DatasetError, index_folder, locate_dataset
from carmask.data.pairs import Pair, spread
from carmask.data.split import Split
from carmask.errors import CarmaskError
from carmask.evaluation.evaluate import load_truth
from carmask.evaluation.selection import TrainingSplit, find_run, select_pairs
from carmask.imaging.decode import MaskReading, Photo, decode_photo
from carmask.training.config import TrainSettings
from carmask.training.config_sections import SourceSettings
from carmask.training.datasets import find_pairs_of, renamed
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
        calibration_photos: Largest number of photos to calibrate int8 with.
        dice_photos: Largest number of photos to calibrate the expected Dice with; 0 for none.
        foreground: Of the masks in `data`; see `decode_mask`.
        ignore: As `foreground`.
    """

    data: Path | None = None
    calibration: Path | None = None
    photos: int = 24
    calibration_photos: int = 64
    dice_photos: int = 100
    foreground: int | None = None
    ignore: int | None = None

    def __post_init__(self) -> None:
        if self.dice_photos < 0:
            raise ExportError(f"--dice-photos {self.dice_photos}: give a number of photos, or 0 for none")
        if self.photos < 1 or self.calibration_photos < 1:
            raise ExportError("at least one photo is needed to compare on, and one to calibrate with")


@dataclass(frozen=True)
class ExportPhotos:
    """The chosen photos, a short description of each choice, and remarks about it.

    `with_dice` are those to calibrate the expected Dice with; none if the photos are rendered.
    """

    compared: tuple[Pair, ...] = field(repr=False)
    calibration: tuple[Path, ...] = field(repr=False)
    with_dice: tuple[Pair, ...] = field(repr=False)
    description: str
    calibration_description: str
    remarks: tuple[str, ...]
    channels: int

    @property
    def dice_description(self) -> str:
        """The photos that the expected Dice is calibrated with."""
        return f"{len(self.with_dice)} {self.description.partition(' ')[2]}"

    def read(self, pair: Pair) -> tuple[NDArray[np.uint8], MaskReading]:
        """Decode one of the photos with a mask, and its true mask."""
        image_HWC = decode_photo(pair.image, channels=self.channels).image_HWC
        return image_HWC, load_truth(pair, image_HWC.shape[:2])

    def samples(self) -> Iterator[tuple[Photo, NDArray[np.bool_], NDArray[np.bool_] | None]]:
        """Decode the photos to compare on, each with its true mask and where that is known, (height, width).

        Every second one is cut to odd sides, to compare on such sizes, too.
        """
        for number, pair in enumerate(self.compared):
            image_HWC, truth = self.read(pair)
            height, width = (side - (1 - side % 2) * (number % 2) for side in truth.soft_HW.shape)
            known_HW = None if truth.known_HW is None else truth.known_HW[:height, :width]
            yield Photo(image_HWC[:height, :width], (height, width)), truth.mask_HW[:height, :width], known_HW

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
        trained_on = TrainingSplit.from_split(Split.load(RunFolder(run).split)) if run else None
        remark = None
        if options.data:
            sources = {"": SourceSettings(path=options.data, foreground=options.foreground, ignore=options.ignore)}
        else:
            own = settings.sources() if settings else {}
            sources = {name: source for name, source in own.items() if source.weight and source.path.exists()}
        if not sources:
            studio = Path(scratch, "studio")
            try:
                render_dataset(studio, cars=_RENDERED_CARS, views=_RENDERED_VIEWS, size_HW=_RENDERED_HW)
            except StudioError as error:
                raise CarmaskError(str(error)) from error
            sources, trained_on = {"": SourceSettings(path=studio)}, None
            missing = settings and settings.data
            why = f"the run's photos are not in {missing}" if missing else "its training photos are not known"
            remark = f"Compared on rendered example photos, because {why}; name a folder of photos and masks: --data."
        datasets = {name: find_pairs_of(source) for name, source in sources.items()}
        if options.data and trained_on:
            trained_on = trained_on.within(datasets[""], run)
        pairs = [renamed(pair, name) for name, dataset in datasets.items() for pair in dataset.pairs]
        selection = select_pairs(pairs, trained_on=trained_on)
        others = [pair for pair in pairs if trained_on and pair in trained_on.train]
        # A stray pixel of one engine is no difference worth a refusal, but would be all of an empty mask's Dice.
        shown = [pair for pair in selection.pairs if pair.mask is not None] or selection.pairs
        half = max(1, len(shown) // 2)
        compared = spread(shown, options.photos if others else min(options.photos, half))
        others = others or [pair for pair in selection.pairs if pair not in compared] or list(compared)
        roots = ", ".join(dataset.root.resolve().name for dataset in datasets.values())
        # A network that refines masks is compared on the crops that it learned from, whose alpha is a probability.
        source = "rendered example photos" if remark else f"{'crops' if channels == 4 else 'photos'} of {roots}"
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
            with_dice=() if remark or not options.dice_photos else spread(selection.pairs, options.dice_photos),
            description=f"{len(compared)} {'held-out ' if held_out else ''}{source}",
            calibration_description=f"{len(calibration)} {calibration_source}",
            remarks=(remark,) if remark else remarks,
            channels=channels,
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
