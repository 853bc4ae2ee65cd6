"""Decode picture files to arrays: the only decoder of the project.

Photos become uint8 arrays in the orientation in which they are shown, masks become soft masks. Opening, limits and
errors are in `carmask.imaging.image_file`.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from carmask.imaging.decode_limits import limit_scans
from carmask.imaging.formats import IMAGE_SUFFIXES
from carmask.imaging.image_file import (
    ImageSource,
    UnreadableImage,
    displayed_orientation,
    has_late_metadata,
    has_more_pictures,
    open_image,
    turn,
)
from carmask.imaging.mask_values import MaskReading, read_mask
from carmask.imaging.readers import TiffFile, deep_to_uint8, deep_values, is_deep

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageSource",
    "MaskReading",
    "Photo",
    "UnreadableImage",
    "decode_mask",
    "decode_photo",
    "decoding_bytes",
    "photo_of_pixels",
    "read_size",
]

# The reductions that libjpeg offers while decoding, and by how many of the photo's pixels a side may then seem longer.
_REDUCTIONS = (8, 4, 2)
_MOST_ADDED_PX = 1

# The most memory that a pixel takes while it is decoded and turned, as measured; two decoders need more than Pillow's.
_BYTES_PER_PX = 18
_BYTES_PER_PX_OF = {"AVIF": 22, "JPEG2000": 28}
# So many rows are laid on white at once: each step takes four bytes for each pixel.
_ROWS = 64

# Remarks, without a subject: messages put them after one file, or after several.
FIRST = "several frames or pages (only the first was used)"
_TRANSPARENT = "partly transparent (the network saw it on white)"


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    image_HWC: uint8, 0..255, C = 3 (RGB) or 1 (luma), turned as EXIF says. size_HW: the displayed (height, width) of
    the photo in pixels, larger than image_HWC's if it was decoded at a reduced size. icc_profile: the embedded color
    profile if it describes the pixels of image_HWC. orientation: the EXIF orientation, 1..8, that it was turned by.
    alpha_HW: uint8, the opacity of its pixels, None if all are opaque. is_first: whether other frames or pages follow.
    """

    image_HWC: NDArray[np.uint8]
    size_HW: tuple[int, int]
    icc_profile: bytes | None = None
    orientation: int = 1
    alpha_HW: NDArray[np.uint8] | None = None
    is_first: bool = False

    @property
    def remark(self) -> str:
        """What was left out, in words; nothing for an opaque photo that is alone in its file."""
        remarks = {FIRST: self.is_first, _TRANSPARENT: self.alpha_HW is not None}
        return ", ".join(remark for remark, is_true in remarks.items() if is_true)


def read_size(source: ImageSource, *, max_pixels: int | None = None, name: str | None = None) -> tuple[int, int]:
    """Return the displayed (height, width) in pixels. Decodes nothing but a PNG with metadata after its pixels.

    name: the picture's name in error messages. Raises `UnreadableImage`.
    """
    with open_image(source, max_pixels=max_pixels, name=name) as image:
        if has_late_metadata(image):
            image.load()
        turned = displayed_orientation(image) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


def count_pixels(data: bytes, *, max_pixels: int | None = None, name: str | None = None) -> int:
    """Return how many pixels a picture file declares; decodes nothing.

    name: the picture's name in error messages. Raises `UnreadableImage`.
    """
    with open_image(data, max_pixels=max_pixels, name=name) as image:
        return image.width * image.height


def decoding_bytes(data: bytes, *, max_pixels: int | None = None, name: str | None = None) -> int:
    """Return the most memory that decoding a picture file takes beside its own bytes; decodes nothing.

    name: the picture's name in error messages. Raises `UnreadableImage`.
    """
    with open_image(data, max_pixels=max_pixels, name=name) as image:
        per_px = _BYTES_PER_PX_OF.get(image.format or "", _BYTES_PER_PX)
        if isinstance(image, TiffFile):
            per_px = max(per_px, image.most_bytes_per_px)
        # Most decoders copy the file.
        return image.width * image.height * per_px + len(data)


def decode_photo(
    source: ImageSource,
    *,
    channels: int = 3,
    at_least_HW: tuple[int, int] | None = None,
    max_pixels: int | None = None,
    name: str | None = None,
) -> Photo:
    """Decode a photo to uint8, 0..255, shape (height, width, channels), as a viewer would show it.

    Transparency is flattened on white. Grays of more than 8 bits are scaled by their full scale, not clipped. Of an
    animation or a TIFF of several pages the first picture is decoded.

    channels: 3 for RGB, 1 for luma (ITU-R BT.601); gray files are replicated to 3. 4 for RGBA as it is stored, not
    flattened, as in the crops that refiners learn from. at_least_HW: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its
    size, averaged, as long as both displayed sides keep this many pixels. name: the picture's name in error messages.

    Raises `UnreadableImage` for anything that cannot be decoded completely.
    """
    if channels not in (1, 3, 4):
        raise ValueError(f"channels must be 1, 3 or 4, not {channels}")
    with open_image(source, max_pixels=max_pixels, name=name) as image:
        if isinstance(image, PngImageFile):
            image.load()
        orientation = displayed_orientation(image)
        stored_WH = image.size
        if isinstance(image, JpegImageFile):
            limit_scans(image)
            image.draft("L" if channels == 1 else None, _draft_size(stored_WH, at_least_HW, orientation))
        image.load()
        width, height = stored_WH if orientation < 5 else stored_WH[::-1]
        source_mode = image.mode
        image_HWC = _pixels_of(image, orientation, channels)
        profile = image.info.get("icc_profile")
        alpha_HW = _alpha_of(image, orientation)
        # Last, because it leads to the second picture.
        is_first = has_more_pictures(image)
    icc_profile = _matching_profile(profile, source_mode, channels)
    return Photo(image_HWC, (height, width), icc_profile, orientation, alpha_HW, is_first)


def photo_of_pixels(pixels: Image.Image | NDArray[np.uint8], *, channels: int = 3) -> Photo:
    """Convert an already decoded picture to what `decode_photo` would return.

    pixels: a Pillow image, which is turned as its EXIF says, or a uint8 array: (height, width) or (height, width, 1) of
    gray values, (height, width, 3) of RGB or (height, width, 4) of RGBA.

    Raises `UnreadableImage` for any other array, or an image that cannot be decoded completely.
    """
    image = pixels if isinstance(pixels, Image.Image) else _image_of(pixels)
    try:
        # A PNG may have metadata after its pixels.
        image.load()
        orientation = displayed_orientation(image)
        image_HWC, alpha_HW = _pixels_of(image, orientation, channels), _alpha_of(image, orientation)
    except Exception as failure:
        raise UnreadableImage("image", f"its pixels cannot be read ({failure})", "give another picture") from failure
    size_HW = (image_HWC.shape[0], image_HWC.shape[1])
    icc_profile = _matching_profile(image.info.get("icc_profile"), image.mode, channels)
    return Photo(image_HWC, size_HW, icc_profile, orientation, alpha_HW)


def _image_of(pixels: NDArray[np.uint8]) -> Image.Image:
    shape = pixels.shape
    if pixels.dtype != np.uint8 or 0 in shape or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))):
        raise UnreadableImage(
            "array",
            f"{pixels.dtype} of shape {shape}",
            "give uint8 of shape (height, width), or (height, width, channels) with 1, 3 (RGB) or 4 (RGBA) channels",
        )
    gray = len(shape) == 3 and shape[2] == 1
    return Image.fromarray(pixels[..., 0] if gray else pixels)


def _draft_size(
    stored_WH: tuple[int, int], at_least_HW: tuple[int, int] | None, orientation: int
) -> tuple[int, int] | None:
    """Stored width and height to request from libjpeg: the strongest reduction that is allowed and exact.

    libjpeg rounds sides up. At an eighth of 1918 px the last column would stand for two pixels that do not exist, and
    the photo would be shifted against its mask by as much.
    """
    if at_least_HW is None:
        return None
    wanted_WH = at_least_HW[::-1] if orientation < 5 else at_least_HW
    for scale in _REDUCTIONS:
        sides = list(zip(stored_WH, wanted_WH, strict=True))
        if all(side // scale >= max(1, wanted) and -side % scale <= _MOST_ADDED_PX for side, wanted in sides):
            return stored_WH[0] // scale, stored_WH[1] // scale
    return None


def _alpha_of(image: Image.Image, orientation: int) -> NDArray[np.uint8] | None:
    """Opacity (height, width) of a loaded picture, None if it is opaque."""
    if is_deep(image) or not image.has_transparency_data:
        return None
    alpha_HW = np.array(turn(image.convert("RGBA").getchannel("A"), orientation))
    return alpha_HW if alpha_HW.min(initial=255) < 255 else None


def _pixels_of(image: Image.Image, orientation: int, channels: int) -> NDArray[np.uint8]:
    """Pixels of a loaded picture, uint8 (height, width, channels), as they are shown."""
    if channels == 4:
        return np.array(turn(_as_mode(image, "RGBA"), orientation))
    image_HWC = np.array(_as_mode(turn(_flatten(image), orientation), "L" if channels == 1 else "RGB"))
    return image_HWC.reshape(*image_HWC.shape[:2], channels)


def _flatten(image: Image.Image) -> Image.Image:
    """Opaque image of mode L or RGB, 8 bits."""
    if is_deep(image):
        return Image.fromarray(deep_to_uint8(*deep_values(image, is_photo=True)))
    if image.has_transparency_data:
        return _on_white(image)
    return _as_mode(image, "L" if image.mode in ("1", "L") else "RGB")


def _on_white(image: Image.Image) -> Image.Image:
    flat = Image.new("RGB", image.size)
    for top in range(0, image.height, _ROWS):
        rows = image.crop((0, top, image.width, min(top + _ROWS, image.height))).convert("RGBA")
        flat.paste(Image.alpha_composite(Image.new("RGBA", rows.size, "white"), rows).convert("RGB"), (0, top))
    return flat


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    # `convert` copies also an image that has the mode already, which takes a third of a JPEG's decoding time.
    return image if image.mode == mode else image.convert(mode)


def _matching_profile(profile: object, source_mode: str, channels: int) -> bytes | None:
    """Return the profile if it is complete and made for these pixels (ICC.1:2022, 7.2: size, color space, 'acsp')."""
    if not isinstance(profile, bytes) or len(profile) < 132 or profile[36:40] != b"acsp":
        return None
    if int.from_bytes(profile[:4], "big") > len(profile):
        return None
    wanted = b"RGB " if channels == 3 else b"GRAY"
    return profile if profile[16:20] == wanted and source_mode != "CMYK" else None


def decode_mask(
    source: ImageSource,
    *,
    foreground: int | None = None,
    ignore: int | None = None,
    max_pixels: int | None = None,
    name: str | None = None,
) -> MaskReading:
    """Read a mask as uint8, 0 = background .. 255 = foreground, shape (height, width).

    A pixel's value is what a viewer shows: the palette's color and not its index, the largest channel of a color, 16
    bits at their full scale. Transparency counts only if all colors are the same and it alone differs. In a mask of 0
    and one other value, the other one is foreground, whatever it is. A mask of a single value is all foreground, unless
    that is 0. Any other mask is soft: value / full scale.

    foreground: the stored value (palette index, gray level, largest channel, 16-bit value) that is foreground instead;
    0 inverts a soft gray mask that is black and white but for its edge.
    ignore: the stored value of pixels that nobody labeled. They are False in `known_HW`, and the mask is read as if
    they were not there. Raises `UnreadableImage`, also if all pixels are ignored, or the foreground is.
    """
    with open_image(source, max_pixels=max_pixels, name=name) as image:
        if isinstance(image, JpegImageFile):
            limit_scans(image)
        image.load()
        orientation = displayed_orientation(image)
        reading = read_mask(image, foreground, ignore)
        if reading is not None and has_more_pictures(image):
            reading = replace(reading, odd=reading.odd or FIRST, is_first=True)
    label = name or ("image data" if isinstance(source, bytes) else str(source))
    if foreground is not None and foreground == ignore:
        raise UnreadableImage(label, f"{ignore} is given both as foreground and as ignored", "choose two values")
    if reading is None:
        raise UnreadableImage(label, f"every pixel has the ignored value {ignore}", "leave out this photo")
    if orientation == 1:
        return reading
    known_HW = (
        None if reading.known_HW is None else _turned(reading.known_HW.view(np.uint8), orientation).view(np.bool_)
    )
    return replace(reading, soft_HW=_turned(reading.soft_HW, orientation), known_HW=known_HW)


def _turned(value_HW: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    return np.array(turn(Image.fromarray(value_HW), orientation))
