"""What a label file says of one photo: labeled shapes, and the mask that they make.

Coordinates are in pixels, x to the right and y down, with the photo's top left corner at (0, 0), as in
`carmask.imaging.polygons`.
"""

import base64
import binascii
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydantic import BaseModel, Field, ValidationError

from carmask.errors import CarmaskError, explain
from carmask.files import unlistable, walk_files
from carmask.imaging.geometry import Size, size_text
from carmask.imaging.image_file import open_image
from carmask.imaging.mask_values import MaskReading
from carmask.imaging.polygons import fill_rings
from carmask.limits import max_pixels

# Adds a shape to a bool mask (height, width); returns how far the shape reaches out of the picture, in pixels.
Draw = Callable[[NDArray[np.bool_]], float]
Points = NDArray[np.float64]
# Of a run, and of a picture's side, as files may have them.
Length = Annotated[int, Field(ge=0, lt=2**40)]
Pixels = Annotated[int, Field(gt=0, lt=2**20)]
Model = TypeVar("Model", bound=BaseModel)

# Labels at the very border are often rounded outward by this much.
_ROUNDED_PX = 1.0
# A compressed picture of one bit a pixel that is larger is no mask of a photo.
_MOST_BYTES = 1 << 26


class LabelError(CarmaskError):
    """A label file, or one shape in it, that cannot be used."""


@dataclass(frozen=True)
class LabeledShape:
    """One labeled object. ignored: its pixels are unknown (a crowd). is_box: a box around the object, not its shape."""

    label: str
    draw: Draw = field(repr=False)
    ignored: bool = False
    is_box: bool = False


@dataclass(frozen=True)
class PhotoLabels:
    """The labels of one photo.

    Attributes:
        file: The label file.
        photo: Name of the photo in that file, perhaps with folders.
        format: The format's name, for people.
        digest: Differs where the file or the choice of labels differs.
        size_HW: Height and width of the photo, if the file says them.
        shapes: In the order of the file.
    """

    file: Path
    photo: str
    format: str
    digest: str
    size_HW: Size | None = None
    shapes: tuple[LabeledShape, ...] = field(default=(), repr=False, compare=False)

    @property
    def has_unknown(self) -> bool:
        """Whether some pixels are unknown."""
        return any(shape.ignored for shape in self.shapes)

    def choose(self, labels: Collection[str], ignored: Collection[str]) -> "PhotoLabels":
        """Return only the shapes of these labels, and those of `ignored` as unknown."""
        kept = tuple(
            replace(shape, ignored=shape.ignored or shape.label in ignored)
            for shape in self.shapes
            if shape.label in labels or shape.label in ignored
        )
        chosen = sha256(repr((self.digest, sorted(labels), sorted(ignored))).encode()).hexdigest()
        return replace(self, shapes=kept, digest=chosen)

    def read(self, photo_HW: Size) -> MaskReading:
        """Draw the shapes at the size that the file says, or else at the photo's. Foreground covers unknown pixels.

        Raises:
            LabelError: a shape cannot be drawn, or is only a box.
        """
        size_HW = self.size_HW or photo_HW
        if size_HW[0] * size_HW[1] > max_pixels():
            raise self._error(f"says that the photo has {size_text(size_HW)}, more than --max-pixels allows")
        mask_HW, unknown_HW = np.zeros(size_HW, np.bool_), np.zeros(size_HW, np.bool_)
        outside_px = []
        for number, shape in enumerate(self.shapes, start=1):
            if shape.is_box and not shape.ignored:
                raise self._error(f"a {shape.label} has only a box; draw its outline, or --ignore-labels {shape.label}")
            with named_errors(f"{self.file}, {self.photo}: shape {number}, {shape.label}"):
                outside_px.append(shape.draw(unknown_HW if shape.ignored else mask_HW))
        labels = ", ".join(sorted({shape.label for shape in self.shapes if not shape.ignored})) or "nothing"
        cut = [px for px in outside_px if px > _ROUNDED_PX]
        odd = (
            f"{len(cut)} shapes reach out of the picture, by up to {max(cut):.0f} px, and are clipped" if cut else None
        )
        unknown_HW &= ~mask_HW
        return MaskReading(
            mask_HW.view(np.uint8) * np.uint8(255),
            f"{self.format}: {labels}",
            odd,
            ~unknown_HW if self.has_unknown else None,
        )

    def _error(self, cause: str) -> LabelError:
        return LabelError(f"{self.file}, {self.photo}: {cause}")


@dataclass(frozen=True)
class LabelFile:
    """All that a label file, or a folder of them, says. classes: those that it declares, whether they occur or not."""

    photos: list[PhotoLabels]
    classes: frozenset[str] = frozenset()

    @property
    def labels(self) -> set[str]:
        """The classes that are declared or occur."""
        return {*self.classes, *(shape.label for photo in self.photos for shape in photo.shapes)}


def digest_of(data: bytes) -> str:
    """A digest of a label file's content."""
    return sha256(data).hexdigest()


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files in a folder and below with one of these suffixes (in lower case), folder by folder; see `walk_files`.

    Raises:
        LabelError: a folder cannot be listed.
    """
    found = walk_files(folder, on_error=_refuse_unlistable)
    return [path / name for path, names in found for name in names if Path(name).suffix.lower() in suffixes]


def _refuse_unlistable(error: OSError) -> None:
    raise LabelError(unlistable(error)) from error


def known_size(height: int | None, width: int | None) -> Size | None:
    """Height and width, if a label file says both."""
    return (height, width) if height and width else None


@contextmanager
def named_errors(place: str) -> Iterator[None]:
    """Raise `LabelError` with the place in a label file where something inside fails."""
    try:
        yield
    except CarmaskError as error:
        raise LabelError(f"{place}: {error}") from error


def validate(model: type[Model], document: object, path: Path) -> Model:
    """Check a document of a label file.

    Raises:
        LabelError: it differs from the model; names the place in the file and the cause.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise LabelError(f"{path}: {explain(error)}") from error


def draw_ring(ring_xy: Points, scale_xy: tuple[float, float] | None, mask_HW: NDArray[np.bool_]) -> float:
    """Fill a ring by the centers of pixels. scale_xy: what the picture's width and height are in the ring's unit."""
    height, width = mask_HW.shape
    if scale_xy is not None:
        ring_xy = ring_xy * (width / scale_xy[0], height / scale_xy[1])
    fill_rings((ring_xy,), mask_HW)
    return _outside_px(ring_xy, mask_HW)


def polygon(label: str, ring: list[float] | Points, *, scale_xy: tuple[float, float] | None = None) -> LabeledShape:
    """A polygon without holes; see `draw_ring`. The ring is x, y, x, y, ... or (points, 2).

    Raises:
        LabelError: the ring has an odd count of numbers, or fewer than three points.
    """
    flat = np.asarray(ring, np.float64).reshape(-1)
    if flat.size % 2 or flat.size < 6:
        raise LabelError(f"a polygon needs at least three points, x and y each, not {flat.size} numbers")
    return LabeledShape(label, partial(draw_ring, flat.reshape(-1, 2), scale_xy))


def draw_through_pixels(rings_xy: tuple[Points, ...], mask_HW: NDArray[np.bool_]) -> float:
    """Fill an outline through pixels of the mask, with Pillow; further rings are holes, their outlines included."""
    height, width = mask_HW.shape
    # So far outside, a point's distance hardly moves an outline in the picture, but takes time.
    near = [np.clip(ring_xy, (-width, -height), (2 * width, 2 * height)) for ring_xy in rings_xy]
    picture = Image.new("L", (width, height))
    drawing = ImageDraw.Draw(picture)
    drawing.polygon([tuple(point) for point in near[0].tolist()], outline=1, fill=1)
    for hole_xy in near[1:]:
        drawing.polygon([tuple(point) for point in hole_xy.tolist()], outline=0, fill=0)
    mask_HW |= np.asarray(picture) > 0
    return _outside_px(rings_xy[0], mask_HW)


def require_size(size_HW: Size, mask_HW: NDArray[np.bool_]) -> None:
    """Refuse a mask of the whole photo that has another size, (height, width). Raises `LabelError`."""
    if size_HW != mask_HW.shape:
        raise LabelError(f"its mask is {size_text(size_HW)}, the photo {size_text(mask_HW.shape)}")


def draw_picture(data: bytes, left_top_px: tuple[int, int], channel: str | None, mask_HW: NDArray[np.bool_]) -> float:
    """Add a mask that is stored as a small picture file. channel: the one that is the mask, if there is one."""
    with open_image(data, max_pixels=mask_HW.size, name="its mask") as image:
        gray = image.getchannel(channel) if channel in image.getbands() else image.convert("L")
        part_HW = np.asarray(gray) > 0
    return paste(part_HW, left_top_px, mask_HW)


def from_base64(text: str, *, packed: bool = False) -> bytes:
    """Decode a picture in base64; packed: compressed by zlib before.

    Raises:
        LabelError: it is none.
    """
    try:
        data = base64.b64decode(text, validate=True)
        return zlib.decompressobj().decompress(data, _MOST_BYTES) if packed else data
    except (binascii.Error, ValueError, zlib.error) as error:
        raise LabelError(f"a mask is not a picture in base64 ({error})") from error


def paste(part_HW: NDArray[np.bool_], left_top_px: tuple[int, int], mask_HW: NDArray[np.bool_]) -> float:
    """Add the part of a mask that lies in the picture."""
    (height, width), (left, top) = part_HW.shape, left_top_px
    cut_HW = part_HW[max(-top, 0) :, max(-left, 0) :]
    target_HW = mask_HW[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)]
    target_HW |= cut_HW[: target_HW.shape[0], : target_HW.shape[1]]
    corners_xy = np.array([(left, top), (left + width, top + height)], np.float64)
    return _outside_px(corners_xy, mask_HW)


def box(
    label: str, left: float, top: float, right: float, bottom: float, *, scale_xy: tuple[float, float] | None = None
) -> LabeledShape:
    """A box around an object."""
    ring = [left, top, right, top, right, bottom, left, bottom]
    return replace(polygon(label, ring, scale_xy=scale_xy), is_box=True)


def _outside_px(points_xy: Points, mask_HW: NDArray[np.bool_]) -> float:
    beyond = points_xy - np.array(mask_HW.shape[::-1])
    return float(max(0.0, -points_xy.min(), beyond.max()))
