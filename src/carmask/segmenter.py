"""Photo in, mask out: the class that prediction, evaluation, video and serving share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from carmask.errors import CarmaskError
from carmask.imaging.color import to_srgb
from carmask.imaging.crops import LONGEST_PX, cut_inputs, outline_cells, paste_crops, refined_size
from carmask.imaging.decode import Photo
from carmask.imaging.geometry import Placement, Size, fit_image, plan, resize, restore
from carmask.imaging.masks import Box, slices
from carmask.imaging.tiles import blend, plan_tiles
from carmask.result import PhotoSource, Result, decode_source
from carmask.runtime.load import Member
from carmask.runtime.locate import locate, locate_all
from carmask.runtime.options import RunOptions

Tta = Literal["none", "flip"]
Model = str | Path
# A photo's probabilities on its canvases, in the order of `Fitted.views`; each float32 0..1, canvas height x width.
Raw = tuple[NDArray[np.float32], ...]

# Crops that a refiner computes at once; the last ones of a photo are padded to as many.
_CROPS_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class View:
    """A photo, or a tile of it, on one network's canvas: uint8, canvas height x width x the network's channels."""

    member: int
    image_HWC: NDArray[np.uint8]
    placement: Placement
    flipped: bool = False
    tile: Box | None = None


@dataclass(frozen=True, eq=False)
class Fitted:
    """A photo as the networks see it; `size_HW` is the photo's own.

    remark: see `Photo`. image_HWC: the photo in which masks are refined, uint8 RGB; None if they are not.
    """

    size_HW: Size
    views: tuple[View, ...]
    remark: str = ""
    image_HWC: NDArray[np.uint8] | None = None


class Segmenter:
    """Trained networks with their geometry: `segment("car.jpg").mask`.

    Any thread may call it; the networks run for one thread at a time. You can pickle it, and use it in forked
    processes: each process loads the networks again.
    """

    def __init__(
        self, members: Sequence[Member], *, threshold: float | None = None, tta: Tta = "none", tile: bool = False
    ) -> None:
        if not members:
            raise ValueError("a segmenter needs a network")
        refined = tuple(member for member in members if not member.card.refines)
        refiners = tuple(member for member in members if member.card.refines)
        if len(refiners) > 1:
            raise CarmaskError(
                "only one network can refine the masks of others; name it, and at least one other network"
            )
        # Alone it is a network for crops, as while it is exported.
        self.members = refined or refiners
        self.refiner = refiners[0] if refined and refiners else None
        self.tta: Tta = tta
        self.tile = tile
        self._wanted_threshold = threshold
        cards = [member.card for member in self.members]
        self.name = "+".join(member.card.name for member in self.networks)
        self.threshold = fmean(card.threshold for card in cards) if threshold is None else threshold
        if not 0 < self.threshold < 1:
            raise CarmaskError(f"threshold {self.threshold:g}: give a probability between 0 and 1")
        calibrations = [card.dice_calibration for card in ([self.refiner.card] if self.refiner else cards)]
        self._calibrations = tuple(one for one in calibrations if one) if all(calibrations) else ()
        self.is_calibrated = bool(self._calibrations)
        self._channels = max(card.channels for card in cards)
        self._at_least_HW = (
            max(card.geometry.height_px for card in cards),
            max(card.geometry.width_px for card in cards),
        )
        if self.refiner is not None:
            # Of any proportions the longer side is long enough then.
            self._channels, self._at_least_HW = 3, (LONGEST_PX, LONGEST_PX)

    @classmethod
    def load(
        cls,
        model: Model | Sequence[Model] | None = None,
        options: RunOptions = RunOptions(),
        *,
        tta: Tta = "none",
        tile: bool = False,
        threshold: float | None = None,
    ) -> "Segmenter":
        """Load one network, or several whose probabilities are averaged.

        Args:
            model: The name of packaged weights ("general", which is also the default), an .onnx file, a run's folder
                (its best weights), a folder of folds (the best weights of each), a folder of weights, or a Hub id
                (owner/name); or a list of these. A network that refines masks, such as "sharp", refines those of the
                others in the list, or if it is alone those of the network that it was trained for.
            options: Engine, device, precision and CPU threads; by default the fastest engine installed.
            tta: flip averages each photo with its mirror image, at twice the cost.
            tile: Also look at photos larger than the network's input in overlapping tiles, at up to five times the
                cost.
            threshold: Smallest probability of a pixel in the mask; the networks' own if None.

        Raises:
            CarmaskError: there is no such network, it is damaged, or it cannot run here with these options.
        """
        models = [model] if model is None or isinstance(model, str | Path) else list(model)
        if not models:
            raise CarmaskError("an empty list of models; name at least one, or none for the packaged weights")
        members = [Member(place, options) for one in models for place in locate_all(one, options.engine)]
        if all(member.card.refines for member in members):
            members[:0] = [Member(locate(members[0].card.refines, options.engine), options)]
        return cls(members, threshold=threshold, tta=tta, tile=tile)

    @property
    def networks(self) -> tuple[Member, ...]:
        """All networks: those whose probabilities are averaged, and the one that refines the result."""
        return self.members if self.refiner is None else (*self.members, self.refiner)

    def each(self) -> "tuple[Segmenter, ...]":
        """Return a segmenter for each network, with the same engine and options."""
        return tuple(
            Segmenter(
                [member, self.refiner] if self.refiner else [member],
                threshold=self._wanted_threshold,
                tta=self.tta,
                tile=self.tile,
            )
            for member in self.members
        )

    def describe(self) -> dict[str, Any]:
        """Name, size, threshold and engine, ready for JSON; of several networks each under `members`."""
        each = [member.describe() for member in self.networks]
        networks = each[0] if len(each) == 1 else {"members": each}
        return {**networks, "name": self.name, "threshold": self.threshold, "tta": self.tta, "tile": self.tile}

    def describe_engine(self) -> str:
        """One line for the start of a run: where and how the networks run."""
        return "; ".join(dict.fromkeys(member.describe_engine() for member in self.networks))

    def decode(self, source: PhotoSource) -> Photo:
        """Decode a photo for the networks: with their channels, and no larger than needed.

        Raises:
            UnreadableImage: not a readable picture.
        """
        return decode_source(source, channels=self._channels, at_least_HW=None if self.tile else self._at_least_HW)

    def fit(self, photo: Photo) -> Fitted:
        """Place a photo on the canvases of all networks: whole, and with `tile` and `tta` in tiles and mirrored."""
        if self.refiner is None:
            return Fitted(photo.size_HW, tuple(self._views(photo)), photo.remark)
        image_HWC = resize(_as_channels(photo.image_HWC, 3), refined_size(photo.size_HW))
        image_HWC = to_srgb(image_HWC, photo.icc_profile)
        at_that_size = replace(photo, image_HWC=image_HWC, size_HW=image_HWC.shape[:2], icc_profile=None)
        return Fitted(photo.size_HW, tuple(self._views(at_that_size)), photo.remark, image_HWC)

    def infer(self, fitted: Sequence[Fitted], *, pad_to: int | None = None) -> list[Raw]:
        """Run the networks on these photos.

        Args:
            fitted: The photos; each network runs as many canvases at once as there are photos.
            pad_to: Run this many canvases at once, and repeat some if there are fewer and the engine needs it: then
                the result for a photo is the same to the last bit, whatever the other photos are.

        Raises:
            EngineError: an engine failed.
        """
        if not fitted:
            return []
        found: dict[View, NDArray[np.float32]] = {}
        for index, member in enumerate(self.members):
            views = [view for photo in fitted for view in photo.views if view.member == index]
            canvases = [view.image_HWC for view in views]
            at_once, steady = pad_to or len(fitted), pad_to is not None
            results = member.engine.run_in_batches(canvases, at_once=at_once, steady=steady)
            found.update(zip(views, results, strict=True))
        return [tuple(found[view] for view in photo.views) for photo in fitted]

    def restore(self, fitted: Fitted, raw: Raw) -> NDArray[np.float32]:
        """Average the probabilities at the photo's own size, and refine them: float32 0..1, (height, width).

        Raises:
            EngineError: the engine of the network that refines failed.
        """
        if fitted.image_HWC is None:
            return self._average(fitted.views, raw, fitted.size_HW)
        averaged_HW = self._average(fitted.views, raw, fitted.image_HWC.shape[:2])
        return resize(self._refine(fitted.image_HWC, averaged_HW), fitted.size_HW)

    def _refine(self, image_HWC: NDArray[np.uint8], probability_HW: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self.refiner is not None
        engine, crop_px = self.refiner.engine, self.refiner.card.geometry.height_px
        cells = outline_cells(probability_HW, crop_px)
        crops = cut_inputs(image_HWC, probability_HW, cells, crop_px)
        refined = engine.run_in_batches(crops, at_once=_CROPS_AT_ONCE, steady=True)
        if self.tta == "flip":
            mirrored = engine.run_in_batches(crops[:, :, ::-1], at_once=_CROPS_AT_ONCE, steady=True)
            refined = (_mean([one_HW, other_HW[:, ::-1]]) for one_HW, other_HW in zip(refined, mirrored, strict=True))
        return paste_crops(probability_HW, cells, refined, crop_px)

    def _average(self, views: Sequence[View], raw: Raw, size_HW: Size) -> NDArray[np.float32]:
        # Of each network the whole photo (None) and its tiles, each once or also mirrored.
        canvases: dict[tuple[int, Box | None], list[NDArray[np.float32]]] = {}
        placements: dict[tuple[int, Box | None], Placement] = {}
        for view, canvas_HW in zip(views, raw, strict=True):
            part = view.member, view.tile
            canvases.setdefault(part, []).append(canvas_HW[:, ::-1] if view.flipped else canvas_HW)
            placements[part] = view.placement
        restored = {part: restore(_mean(maps), placements[part]) for part, maps in canvases.items()}
        averaged = []
        for member in range(len(self.members)):
            whole_HW = restored[member, None]
            tiles = [(tile, part_HW) for (of, tile), part_HW in restored.items() if of == member and tile]
            averaged.append(_mean([whole_HW, blend(tiles, size_HW)]) if tiles else whole_HW)
        return _mean(averaged)

    def predict_photos(self, photos: Sequence[Photo]) -> list[NDArray[np.float32]]:
        """Probabilities (float32 0..1) at each photo's own size, from `fit`, `infer` and `restore`."""
        fitted = [self.fit(photo) for photo in photos]
        return [self.restore(one, raw) for one, raw in zip(fitted, self.infer(fitted), strict=True)]

    def result(
        self,
        probability_HW: NDArray[np.float32],
        *,
        threshold: float | None = None,
        source: PhotoSource | None = None,
        remark: str = "",
    ) -> Result:
        """Return the result of a photo from its probability, float32 0..1; `threshold` replaces the segmenter's."""
        return Result(
            probability_HW, self.threshold if threshold is None else threshold, source, self._calibrations, remark
        )

    def __call__(self, source: PhotoSource) -> Result:
        """Cut out one photo.

        Args:
            source: A path, the bytes of a picture file, a Pillow image (rotated as its EXIF says), or a uint8 array
                (height, width), (height, width, 1) gray, (height, width, 3) RGB or (height, width, 4) RGBA.

        Raises:
            UnreadableImage: not a readable picture.
        """
        photo = self.decode(source)
        (probability_HW,) = self.predict_photos([photo])
        return self.result(probability_HW, source=source, remark=photo.remark)

    def _views(self, photo: Photo) -> Iterator[View]:
        for index, member in enumerate(self.members):
            geometry, stride_px = member.card.geometry, member.card.stride_px
            image_HWC = _as_channels(photo.image_HWC, member.card.channels)
            tiles = plan_tiles(photo.size_HW, geometry) if self.tile else []
            for tile in (None, *tiles):
                part_HWC = image_HWC if tile is None else image_HWC[slices(tile)]
                placement = plan(photo.size_HW if tile is None else part_HWC.shape[:2], geometry, stride_px=stride_px)
                canvas_HWC = to_srgb(fit_image(part_HWC, placement), photo.icc_profile)
                yield View(index, canvas_HWC, placement, tile=tile)
                if self.tta == "flip":
                    yield View(index, canvas_HWC[:, ::-1], placement, flipped=True, tile=tile)


def _mean(maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    if len(maps) == 1:
        return maps[0]
    total = maps[0] + maps[1]
    for one in maps[2:]:
        total += one
    total /= np.float32(len(maps))
    return total


def _as_channels(image_HWC: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    if image_HWC.shape[2] == channels:
        return image_HWC
    gray_HW: NDArray[np.uint8] = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY)
    return gray_HW[..., None]
