"""Photo in, mask out: the class that prediction, evaluation, video and serving share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carmask.errors import CarmaskError
from carmask.imaging.color import to_srgb
from carmask.imaging.decode import ImageSource, Photo, decode_photo, photo_of_pixels
from carmask.imaging.encode import encode_picture
from carmask.imaging.geometry import Placement, Size, fit_image, plan, restore
from carmask.imaging.look import Look, load_look
from carmask.imaging.masks import Box, box_of, slices
from carmask.imaging.metadata import NO_METADATA, kept_metadata, read_metadata
from carmask.imaging.tiles import blend, plan_tiles
from carmask.models.dice_calibration import DiceCalibration, certainty
from carmask.runtime.load import Member
from carmask.runtime.locate import locate_all
from carmask.runtime.options import RunOptions

Tta = Literal["none", "flip"]
Model = str | Path
# A path, the bytes of a picture file, or a picture that is decoded already.
PhotoSource = ImageSource | Image.Image | NDArray[np.uint8]

# A photo's probabilities on its canvases, in the order of `Fitted.views`; each float32 0..1, canvas height x width.
Raw = tuple[NDArray[np.float32], ...]


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
    """A photo as the networks see it; `size_HW` is the photo's own. remark: see `Photo`."""

    size_HW: Size
    views: tuple[View, ...]
    remark: str = ""


@dataclass(frozen=True, eq=False)
class Result:
    """The mask of one photo. `probability` is float32 0..1, (height, width) of the photo as it is shown.

    Results of networks come from `Segmenter.result`, which adds the calibrations of the networks.
    """

    probability: NDArray[np.float32]
    threshold: float
    source: PhotoSource | None = field(default=None, repr=False)
    calibrations: tuple[DiceCalibration, ...] = field(default=(), repr=False)
    remark: str = ""

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Bool (height, width), at the photo's own size."""
        return self.probability >= self.threshold

    @cached_property
    def coverage(self) -> float:
        """Share of the photo that the mask covers, 0..1."""
        return float(np.count_nonzero(self.mask) / self.mask.size)

    @cached_property
    def box_px(self) -> Box | None:
        """Top, left, bottom, right in pixels, bottom and right exclusive; None if no vehicle was found."""
        return box_of(self.mask)

    @cached_property
    def expected_dice(self) -> float | None:
        """The Dice that this mask will have with the true one, 0..1, as far as the probability tells: low is doubtful.

        Of a photo without a mask, how likely it shows no vehicle. None if a network was not calibrated; of several
        networks the mean of what each one's calibration says.
        """
        if not self.calibrations:
            return None
        certain = certainty(self.probability, self.threshold)
        expected = [dice for one in self.calibrations if (dice := one(certain)) is not None]
        return round(fmean(expected), 4) if len(expected) == len(self.calibrations) else None

    @property
    def score(self) -> float:
        """The expected Dice, or without a calibration the network's certainty of the mask, 0..1: low is doubtful."""
        return certainty(self.probability, self.threshold).score if self.expected_dice is None else self.expected_dice

    def cutout(self, background: str = "transparent", *, crop: bool = False) -> Image.Image:
        """The vehicle on another background, as a Pillow image: RGBA if that is transparent, else RGB.

        The photo is read again, at its full size. Its color profile is kept in `info["icc_profile"]`.

        Args:
            background: transparent, a CSS color name or #rrggbb, blur, studio, or the path of a picture.
            crop: Keep only the box around the mask; the whole picture if no vehicle was found.

        Raises:
            CarmaskError: there is no such background, or the photo cannot be read any more.

        """
        image_HWC, photo = self._composed(Look(background=background, crop=crop), None)
        image = Image.fromarray(image_HWC)
        if photo.icc_profile is not None:
            image.info["icc_profile"] = photo.icc_profile
        return image

    def compose(self, look: Look | str | Path = "showroom", *, extent_HW: Size | None = None) -> bytes:
        """The bytes of the picture that `carmask predict --look` writes; the photo is read again, at its full size.

        Args:
            look: cutout, showroom, marketplace, the path of a YAML file, or a `carmask.imaging.look.Look`.
            extent_HW: With the scale same-car, the largest height and width of the car's boxes in all its photos.

        Raises:
            CarmaskError: there is no such look, or the photo cannot be read any more.

        """
        look = look if isinstance(look, Look) else load_look(look)
        look.require_opaque_jpeg()
        image_HWC, photo = self._composed(look, extent_HW)
        metadata = NO_METADATA
        if isinstance(self.source, str | Path | bytes) and not look.strip:
            metadata = read_metadata(self.source)
        elif isinstance(self.source, Image.Image) and not look.strip:
            metadata = kept_metadata(self.source)
        return encode_picture(image_HWC, look.format, photo.icc_profile, quality=look.quality, metadata=metadata)

    def _composed(self, look: Look, extent_HW: Size | None) -> tuple[NDArray[np.uint8], Photo]:
        # Their tables take a while to build, and masks do not need them.
        from carmask.imaging.compose import compose
        from carmask.imaging.cutout import parse_background

        if self.source is None:
            raise CarmaskError("this result does not know its photo; cut out with carmask.imaging.cutout.cut_out")
        photo = _decode(self.source, channels=3)
        if photo.size_HW != self.probability.shape:
            raise CarmaskError("the photo has another size now; compute its mask again")
        background = parse_background(look.background)
        composed_HWC = compose(
            photo, self.probability, self.box_px, look, background, threshold=self.threshold, extent_HW=extent_HW
        )
        return composed_HWC, photo


class Segmenter:
    """Trained networks with their geometry: `segment("car.jpg").mask`.

    Any thread may call it; the networks run for one thread at a time. It can be pickled, and used in forked processes:
    each process loads the networks once more.
    """

    def __init__(
        self, members: Sequence[Member], *, threshold: float | None = None, tta: Tta = "none", tile: bool = False
    ) -> None:
        if not members:
            raise ValueError("a segmenter needs a network")
        self.members = tuple(members)
        self.tta: Tta = tta
        self.tile = tile
        self._wanted_threshold = threshold
        cards = [member.card for member in self.members]
        self.name = "+".join(card.name for card in cards)
        self.threshold = fmean(card.threshold for card in cards) if threshold is None else threshold
        if not 0 < self.threshold < 1:
            raise CarmaskError(f"threshold {self.threshold:g}: give a probability between 0 and 1")
        calibrations = [card.dice_calibration for card in cards]
        self._calibrations = tuple(one for one in calibrations if one) if all(calibrations) else ()
        self.is_calibrated = bool(self._calibrations)
        self._channels = max(card.channels for card in cards)
        self._at_least_HW = (
            max(card.geometry.height_px for card in cards),
            max(card.geometry.width_px for card in cards),
        )

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
                (owner/name); or a list of these.
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
        places = [place for one in models for place in locate_all(one, options.engine)]
        return cls([Member(place, options) for place in places], threshold=threshold, tta=tta, tile=tile)

    def each(self) -> "tuple[Segmenter, ...]":
        """Return a segmenter for each network, with the same engine and options."""
        return tuple(
            Segmenter([member], threshold=self._wanted_threshold, tta=self.tta, tile=self.tile)
            for member in self.members
        )

    def describe(self) -> dict[str, Any]:
        """Name, size, threshold and engine, ready for JSON; of several networks each under `members`."""
        each = [member.describe() for member in self.members]
        networks = each[0] if len(each) == 1 else {"members": each}
        return {**networks, "name": self.name, "threshold": self.threshold, "tta": self.tta, "tile": self.tile}

    def describe_engine(self) -> str:
        """One line for the start of a run: where and how the networks run."""
        return "; ".join(dict.fromkeys(member.describe_engine() for member in self.members))

    def decode(self, source: PhotoSource) -> Photo:
        """Decode a photo for the networks: with their channels, and no larger than needed.

        Raises:
            UnreadableImage: not a readable picture.

        """
        return _decode(source, channels=self._channels, at_least_HW=None if self.tile else self._at_least_HW)

    def fit(self, photo: Photo) -> Fitted:
        """Place a photo on the canvases of all networks: whole, and with `tile` and `tta` in tiles and mirrored."""
        return Fitted(photo.size_HW, tuple(self._views(photo)), photo.remark)

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
        found = [[np.empty(0, np.float32)] * len(photo.views) for photo in fitted]
        for member_index, member in enumerate(self.members):
            places = [
                (photo, view)
                for photo, one in enumerate(fitted)
                for view, seen in enumerate(one.views)
                if seen.member == member_index
            ]
            canvases = [fitted[photo].views[view].image_HWC for photo, view in places]
            results = _run(member, canvases, at_once=pad_to or len(fitted), steady=pad_to is not None)
            for (photo, view), canvas_HW in zip(places, results, strict=True):
                found[photo][view] = canvas_HW
        return [tuple(canvases) for canvases in found]

    def restore(self, fitted: Fitted, raw: Raw) -> NDArray[np.float32]:
        """Resize the probabilities to the photo's own size and average them: float32 0..1, (height, width)."""
        by_look: dict[tuple[int, Box | None], list[NDArray[np.float32]]] = {}
        placements: dict[tuple[int, Box | None], Placement] = {}
        for view, canvas_HW in zip(fitted.views, raw, strict=True):
            look = view.member, view.tile
            by_look.setdefault(look, []).append(canvas_HW[:, ::-1] if view.flipped else canvas_HW)
            placements[look] = view.placement
        whole = {look: restore(_mean(canvases), placements[look]) for look, canvases in by_look.items()}
        averaged = []
        for member in range(len(self.members)):
            averaged.append(whole[member, None])
            tiles = [(tile, part_HW) for (of, tile), part_HW in whole.items() if of == member and tile]
            if tiles:
                averaged[-1] = _mean([averaged[-1], blend(tiles, fitted.size_HW)])
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


def _decode(source: PhotoSource, *, channels: int, at_least_HW: Size | None = None) -> Photo:
    """Decode a file or its bytes, or convert a decoded picture; see `decode_photo` and `photo_of_pixels`."""
    if isinstance(source, str | Path | bytes):
        return decode_photo(source, channels=channels, at_least_HW=at_least_HW)
    return photo_of_pixels(source, channels=channels)


def _run(
    member: Member, canvases: Sequence[NDArray[np.uint8]], *, at_once: int, steady: bool
) -> Iterator[NDArray[np.float32]]:
    # For steady results some engines need fewer images at once.
    least = min(at_once, member.engine.steady_batch or at_once) if steady else 1
    for start in range(0, len(canvases), at_once):
        batch = list(canvases[start : start + at_once])
        fill = batch[-1:] * (least - len(batch))
        yield from member.engine.run(np.stack([*batch, *fill]))[: len(batch)]


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
