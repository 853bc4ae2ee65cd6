"""How the stored values of a mask file become a soft mask; see `carmask.imaging.decode.decode_mask`."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops
from PIL.JpegImagePlugin import JpegImageFile

from carmask.imaging.readers import deep_values, is_deep

# Masks of class numbers are expected to use values below this, masks of a single object a value above.
_CLASS_NUMBERS_BELOW = 32
# A soft mask of one hue has at most 256 colors, and some more if it is a JPEG.
_COLORS_OF_A_PHOTO = 4096
# A soft mask's values this near to black or white are neither class numbers nor an edge.
_NEAR_A_LEVEL = 32
# A mask of classes has no more colors than this, and one of them differs so much in its channels.
_CLASS_COLORS, _COLORFUL = 64, 32
_ADVICE = "choose the class with --foreground VALUE"
# PASCAL VOC and what follows it store class numbers, and this value where a pixel's class is unknown.
_VOID = 255
_BORDER = f", and give --ignore {_VOID} for the border of unknown pixels"
LOOKS_LIKE_A_PHOTO = "thousands of colors: this looks like a photo, not a mask"
# From this value on, one half, a soft mask (uint8 0..255) is foreground.
FOREGROUND_FROM = 128


@dataclass(frozen=True)
class MaskReading:
    """A mask and how it was read.

    soft_HW: uint8, 0 = background, 255 = foreground, in between a share of each. rule: one line on the values found and
    how they were read. odd: a warning if the values do not look like a mask of a single object. known_HW: bool, False
    where nobody labeled what the pixel shows, and `soft_HW` is 0; None where all pixels are known. background: the
    stored value that was read as background, where nobody chose a value. is_first: whether other frames or pages
    follow.
    """

    soft_HW: NDArray[np.uint8]
    rule: str
    odd: str | None = None
    known_HW: NDArray[np.bool_] | None = None
    background: int | None = None
    is_first: bool = False

    @property
    def inverted(self) -> int | None:
        """The `background` of a mask that covers all four corners and most of the picture, else None."""
        corners = self.soft_HW[[0, 0, -1, -1], [0, -1, 0, -1]]
        return self.background if corners.min() >= FOREGROUND_FROM and 0.5 < self.area < 1 else None

    @property
    def mask_HW(self) -> NDArray[np.bool_]:
        """Bool: foreground where `soft_HW` is at least one half."""
        return self.soft_HW >= FOREGROUND_FROM

    @property
    def area(self) -> float:
        """Share of the known pixels, 0..1, that the soft mask covers."""
        known = self.soft_HW.mean() if self.known_HW is None else self.soft_HW[self.known_HW].mean()
        return float(known) / 255

    @property
    def unknown_area(self) -> float:
        """Share of the picture, 0..1, that is unknown."""
        return 0.0 if self.known_HW is None else 1 - float(self.known_HW.mean())


@dataclass(frozen=True)
class _StoredValues:
    """The values stored in a mask file, and how bright a viewer shows them.

    value_HW: uint8 or float32. used: the values that occur and are not ignored, ascending. shown: the brightness of
    each of `used`. white: full scale of `shown`. kind: how the values are stored, in words. colorful: a warning about
    colors that the largest channel hides.
    """

    value_HW: NDArray[np.uint8] | NDArray[np.float32]
    used: NDArray[np.float32]
    shown: NDArray[np.float32]
    white: float
    kind: str
    colorful: str | None = None


def read_mask(image: Image.Image, foreground: int | None, ignore: int | None) -> MaskReading | None:
    """Read a loaded picture, in its stored orientation, as a mask. See `carmask.imaging.decode.decode_mask`.

    Returns None if all its pixels are ignored.
    """
    stored = _read_stored(image, ignore)
    if not len(stored.used):
        return None
    reading = _read_values(stored, lossy=isinstance(image, JpegImageFile))
    if foreground == 0 and _is_of_two_levels(stored, reading):
        reading = MaskReading(255 - reading.soft_HW, f"{stored.kind}: soft, 0 is foreground, as chosen")
    elif foreground is not None:
        soft_HW = np.where(stored.value_HW == foreground, np.uint8(255), np.uint8(0))
        reading = MaskReading(soft_HW, f"{stored.kind}: stored value {foreground} is foreground, as chosen")
    if ignore is None or (known_HW := stored.value_HW != ignore).all():
        return reading
    rule = f"{reading.rule}, and {ignore} is unknown"
    return replace(reading, soft_HW=reading.soft_HW * known_HW, rule=rule, known_HW=known_HW)


def _is_of_two_levels(stored: _StoredValues, reading: MaskReading) -> bool:
    """Whether a gray mask is black and white but for a soft edge, or for what compression did to it."""
    if stored.shown is not stored.used or reading.odd or len(stored.used) < 3:
        return False
    return float(((reading.soft_HW < _NEAR_A_LEVEL) | (reading.soft_HW > 255 - _NEAR_A_LEVEL)).mean()) > 0.9


def _read_values(stored: _StoredValues, *, lossy: bool) -> MaskReading:
    values = np.unique(stored.shown)
    darkest, brightest = float(values[0]), float(values[-1])
    class_like = brightest < _CLASS_NUMBERS_BELOW and stored.white >= 255
    odd = None
    if len(values) == 1:
        target = np.where(stored.shown > 0, 255, 0)
        reading = f"only {brightest:g}, all {'foreground' if brightest > 0 else 'background'}"
        odd = stored.colorful
    elif len(values) == 2 and darkest == 0:
        target = np.where(stored.shown > 0, 255, 0)
        reading = f"0 and {brightest:g}, {brightest:g} is foreground"
        odd = stored.colorful
        if lossy and class_like:
            odd = (
                f"a JPEG whose brightest value is {brightest:g}: almost black, or class numbers damaged by compression"
            )
    else:
        target = np.rint(np.clip(stored.shown / stored.white, 0, 1) * 255)
        reading = f"more than two values, soft, value / {stored.white:g}"
        if len(values) == 2:
            reading = f"{darkest:g} and {brightest:g}, soft, value / {stored.white:g}"
            odd = f"two values, {darkest:g} and {brightest:g}, and neither is 0; {_ADVICE}"
        if class_like:
            listed = ", ".join(f"{value:g}" for value in values[:8]) + (", .." if len(values) > 8 else "")
            odd = f"the values {listed} look like class numbers; {_ADVICE}"
        elif brightest == stored.white == _VOID and 0 < values[-2] < _CLASS_NUMBERS_BELOW:
            odd = f"values up to {values[-2]:g} and {_VOID} look like class numbers with a border; {_ADVICE}{_BORDER}"
        odd = odd or stored.colorful
    background = int(stored.used[stored.shown.argmin()])
    soft_HW = _look_up(stored, target.astype(np.uint8))
    return MaskReading(soft_HW, f"{stored.kind}: {reading}", odd, background=background)


def _look_up(stored: _StoredValues, target: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Replace every stored value `stored.used[i]` by `target[i]`, and an ignored one by any value."""
    if stored.value_HW.dtype == np.uint8:
        table = np.zeros(256, dtype=np.uint8)
        table[stored.used.astype(np.intp)] = target
        return table[stored.value_HW]
    return target[np.searchsorted(stored.used[:-1], stored.value_HW)]


def _read_stored(image: Image.Image, ignore: int | None) -> _StoredValues:
    alpha = _alpha_that_carries_the_mask(image)
    if alpha is not None:
        return _eight_bits(alpha, "alpha channel", ignore)
    if is_deep(image):
        value_HW, white = deep_values(image)
        used = np.unique(value_HW)
        used = used[used != ignore]
        return _StoredValues(value_HW, used, used, white, f"{'16' if image.mode.startswith('I;16') else '32'}-bit gray")
    if image.mode in ("P", "PA"):
        return _palette(image, ignore)
    if image.mode == "1":
        return _eight_bits(Image.fromarray(np.asarray(image).astype(np.uint8)), "1-bit", ignore, white=1.0)
    if image.mode in ("L", "LA", "La"):
        return _eight_bits(image.getchannel("L"), "8-bit gray", ignore)
    colors = image.convert("RGB")
    red, green, blue = colors.split()
    stored = _eight_bits(ImageChops.lighter(ImageChops.lighter(red, green), blue), "largest channel of colors", ignore)
    return replace(stored, colorful=_color_warning(colors, stored, ignore))


def _eight_bits(gray: Image.Image, kind: str, ignore: int | None, *, white: float = 255.0) -> _StoredValues:
    used = np.flatnonzero(gray.histogram()).astype(np.float32)
    used = used[used != ignore]
    return _StoredValues(np.asarray(gray), used, used, white, kind)


def _palette(image: Image.Image, ignore: int | None) -> _StoredValues:
    indices = Image.fromarray(np.asarray(image)[..., 0]) if image.mode == "PA" else image
    used = np.flatnonzero(indices.histogram()[:256])
    used = used[used != ignore]
    palette_C3 = np.zeros((256, 3), dtype=np.float32)
    colors = np.array(image.getpalette("RGB") or [], dtype=np.float32).reshape(-1, 3)[:256]
    palette_C3[: len(colors)] = colors
    used_C3 = palette_C3[used]
    shown = used_C3.max(axis=1)
    colorful = None
    equally_bright = len(used) > 1 and np.ptp(shown) == 0
    if (len(used) > 2 or equally_bright) and np.any(shown != used_C3.min(axis=1)):
        colorful = f"{len(used)} palette colors look like classes; choose one by its index with --foreground VALUE"
        colorful += _BORDER if _VOID in used else ""
    return _StoredValues(np.asarray(indices), used.astype(np.float32), shown, 255.0, "palette colors", colorful)


def _color_warning(colors: Image.Image, stored: _StoredValues, ignore: int | None) -> str | None:
    found = colors.getcolors(_COLORS_OF_A_PHOTO)
    if found is None:
        return LOOKS_LIKE_A_PHOTO
    count = sum(max(np.atleast_1d(color)) != ignore for _, color in found)
    if count > len(stored.used) and len(stored.used) <= 2:
        return f"{count} colors that share a largest channel look like classes; save them as class numbers"
    if 2 < count < _CLASS_COLORS and any(np.ptp(color) >= _COLORFUL for _, color in found):
        return f"{count} colors look like classes; choose one by its largest channel with --foreground VALUE"
    return None


def _alpha_that_carries_the_mask(image: Image.Image) -> Image.Image | None:
    """Return the alpha channel if it varies over the picture and the colors do not; otherwise None."""
    if not image.has_transparency_data or is_deep(image):
        return None
    with_alpha = image.convert("RGBA")
    red, green, blue, alpha = with_alpha.split()
    if not all(_is_constant(channel) for channel in (red, green, blue)) or _is_constant(alpha):
        return None
    return alpha


def _is_constant(channel: Image.Image) -> bool:
    darkest, brightest = channel.getextrema()
    return darkest == brightest
