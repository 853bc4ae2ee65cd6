"""Pillow's readers with what they lack, and pictures of more than 8 bits a channel."""

import struct
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImagePalette
from PIL import TiffImagePlugin as Tiff
from PIL.BmpImagePlugin import BmpImageFile
from PIL.Jpeg2KImagePlugin import BoxReader, Jpeg2KImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TgaImagePlugin import TgaImageFile
from PIL.WebPImagePlugin import WebPImageFile

# What white may be in numbers that do not say it; the first only of floats.
_WHITES = (1.0, 255.0, 65535.0)
# The share of a photo's floats that may be more than 1 while 1 is white: highlights, and what sharpening adds.
_BEYOND_WHITE = 0.01
# So many rows of deep pixels are computed at once: each step would take four bytes for each value of a picture.
_ROWS = 64


class BmpFile(BmpImageFile):
    """Pillow's reader, without a mistake of Pillow 13.0 and earlier.

    It reads a BMP of 4 or 8 bits a pixel whose palette is black and white as one of 1 bit a pixel. Masks are often
    saved so, and every pixel would be wrong.
    """

    def _open(self) -> None:
        super()._open()
        stream = self.fp
        assert stream is not None
        position = stream.tell()
        stream.seek(0)
        head = stream.read(30)
        stream.seek(position)
        # The field biBitCount, which is elsewhere in the old header of 12 bytes.
        bits = int.from_bytes(head[24:26] if head[14] == 12 else head[28:30], "little")
        if bits not in (4, 8) or {"1": 1, "L": 8}.get(self.mode, bits) == bits:
            return
        levels = (0, 255) if self.mode == "1" else range(256)
        self._mode = "P"
        self.palette = ImagePalette.ImagePalette("RGB", bytes(level for level in levels for _ in range(3)))
        self.palette.dirty = 1
        tile = self.tile[0]
        assert isinstance(tile.args, tuple)
        self.tile = [tile._replace(args=("P;4" if bits == 4 else "P", *tile.args[1:]))]


class UnsupportedPixels(ValueError):
    """Pixels of a kind that cannot be read. The message says which."""


class TiffFile(Tiff.TiffImageFile):
    """Pillow's reader, and OpenCV for numbers that Pillow does not know. Colors become 8 bits, grays 32-bit floats."""

    _unknown_to_pillow = False

    @property
    def most_bytes_per_px(self) -> int:
        """The most memory that OpenCV takes for a pixel; 0 where Pillow reads the pixels."""
        # Its numbers twice, because one strip may be the whole picture, and the result.
        return 2 * sum(self._bits) // 8 + 6 if self._unknown_to_pillow else 0

    @property
    def _bits(self) -> tuple[int, ...]:
        """Of each channel."""
        bits: tuple[int, ...] = self.tag_v2.get(Tiff.BITSPERSAMPLE, (1,))
        return bits

    @property
    def _samples(self) -> int:
        return int(self.tag_v2.get(Tiff.SAMPLESPERPIXEL, 1))

    @property
    def _has_planes(self) -> bool:
        return self._samples > 1 and self.tag_v2.get(Tiff.PLANAR_CONFIGURATION, 1) == 2

    @property
    def _mode_of_four(self) -> str:
        """Pillow's mode for four channels, by TIFF's ExtraSamples: no alpha, colors multiplied by it, or not."""
        extra = self.tag_v2.get(Tiff.EXTRASAMPLES)
        return "RGBX" if extra == (0,) else "RGBa" if extra == (1,) else "RGBA"

    def _setup(self) -> None:
        try:
            super()._setup()
        except SyntaxError as failure:
            if "unknown pixel mode" not in str(failure):
                raise
            self._unknown_to_pillow, self.tile = True, []
            self._mode = {1: "F", 4: "RGB" if self._mode_of_four == "RGBX" else "RGBA"}.get(self._samples, "RGB")
            if Tiff.ICCPROFILE in self.tag_v2:
                self.info["icc_profile"] = self.tag_v2[Tiff.ICCPROFILE]
        if self._has_planes and max(self._bits) == 16:
            self._read_planes_of_16_bits()

    def _read_planes_of_16_bits(self) -> None:
        """Correct a mistake of Pillow, at least to 13.0: it takes uncompressed planes for planes of 8 bits."""
        ending = ";16L" if self.tag_v2.prefix == b"II" else ";16B"
        for number, tile in enumerate(self.tile):
            if tile.codec_name == "raw" and isinstance(tile.args, tuple) and ";" not in tile.args[0]:
                self.tile[number] = tile._replace(args=(tile.args[0] + ending, *tile.args[1:]))

    def load(self) -> Any:
        """Read the pixels."""
        if self._unknown_to_pillow:
            self.im = self._read_numbers().im
            self._unknown_to_pillow = False
        return super().load()

    def _read_numbers(self) -> Image.Image:
        is_float = 3 in self.tag_v2.get(Tiff.SAMPLEFORMAT, (1,))
        is_rgb = self.tag_v2.get(Tiff.PHOTOMETRIC_INTERPRETATION) == 2
        is_known = self._samples == 3 or (is_float and (self._samples == 1 or is_rgb))
        # OpenCV would mix up planes, and what it makes of an orientation differs.
        is_turned = self.tag_v2.get(ExifTags.Base.Orientation, 1) != 1
        unread = {"in planes": self._has_planes, "with an orientation": is_turned}
        value = _by_opencv(self.fp) if is_known and not any(unread.values()) else None
        if value is None or value.shape != (self.height, self.width, self._samples)[: 2 if self._samples == 1 else 3]:
            numbers = "floating-point numbers" if is_float else "whole numbers"
            how = "".join(f" {words}" for words, is_so in unread.items() if is_so)
            raise UnsupportedPixels(f"a TIFF of {self._samples} channels of {self._bits[0]}-bit {numbers}{how}")
        if self._samples == 1:
            return Image.fromarray(value.astype(np.float32))
        white = 65535.0
        if value.dtype != np.uint16:
            usual, beyond = (_WHITES, _BEYOND_WHITE) if is_float else (_WHITES[1:], 0.0)
            value, white = deep_to_uint8(*_with_white(value, usual, beyond)), 255.0
        level_HWC = _to_rgb(value, white)
        if self._samples == 3:
            return Image.fromarray(level_HWC)
        return Image.frombytes(self._mode_of_four, self.size, level_HWC.tobytes()).convert(self.mode)


def _by_opencv(stream: IO[bytes] | None) -> NDArray[Any] | None:
    """Pixels of a whole file as OpenCV decodes them, channels from blue on; None if it cannot."""
    assert stream is not None
    stream.seek(0)
    try:
        return cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None


def _to_rgb(value_HWC: NDArray[Any], white: float) -> NDArray[np.uint8]:
    """Scale OpenCV's colors (blue first, perhaps alpha last) from 0..white to 0..255, rounded; red first."""
    order = cv2.COLOR_BGRA2RGBA if value_HWC.shape[2] == 4 else cv2.COLOR_BGR2RGB
    rgb_HWC: NDArray[np.uint8] = cv2.cvtColor(cv2.convertScaleAbs(value_HWC, alpha=255 / white), order)
    return rgb_HWC


class WebpFile(WebPImageFile):
    """Pillow's reader of the first picture, which frees the decoder's two copies of it early."""

    def _get_next(self) -> tuple[bytes, int, int]:
        frame = super()._get_next()
        self._decoder = None
        return frame


class TargaFile(TgaImageFile):
    """Pillow's reader; the fourth byte of a pixel is alpha only if the file says so (TGA 2.0, field 5.6).

    The highest bit of 16 never is: many programs set it in all pixels, which Pillow would read as transparent.
    """

    def _open(self) -> None:
        super()._open()
        stream = self.fp
        assert stream is not None
        position = stream.tell()
        stream.seek(0)
        header = stream.read(18)
        stream.seek(position)
        has_alpha, bits = header[17] & 0x0F, header[7] if self.mode == "P" else header[16]
        opaque = {16: "BGR;15", 32: None if has_alpha else "BGRX"}.get(bits)
        if opaque is None:
            return
        if self.mode == "RGBA":
            self._mode = "RGB"
            self.tile = [tile._replace(args=(opaque, *tile.args[1:])) for tile in self.tile if tile.args]
        elif self.mode == "P" and self.palette is not None:
            self.palette.mode, self.palette.rawmode = "RGB", opaque


class Jpeg2000File(Jpeg2KImageFile):
    """Pillow's reader, with the ICC profile, and without decoding what is cut short or larger than declared.

    OpenCV reads colors of more than 8 bits: Pillow 13.0 and earlier rounds white up to 256, which it stores as 0.
    """

    _color_bits = 8

    def _open(self) -> None:
        super()._open()
        stream = self.fp
        assert stream is not None
        stream.seek(0)
        start, end = (0, None) if self.codec == "j2k" else self._read_boxes(stream)
        stream.seek(start)
        codestream = stream.read() if end is None else stream.read(end - start)
        # ISO/IEC 15444-1, A.5.1: the markers SOC and SIZ, and the image's area on the reference grid.
        soc, siz, _, _, right, bottom, left, top = struct.unpack_from(">HHHHIIII", codestream)
        if (soc, siz) != (0xFF4F, 0xFF51) or (right - left, bottom - top) != self.size:
            raise SyntaxError("its headers declare two sizes")
        # A.4.4: no other bytes of a codestream look like its end marker.
        if b"\xff\xd9" not in codestream[-1024:]:
            raise EOFError("truncated")
        # A.5.1: the number of components, and for each three bytes, of which the first is its bits less one.
        count = int.from_bytes(codestream[40:42], "big")
        bits = max((size & 0x7F) + 1 for size in codestream[42 : 42 + 3 * count : 3])
        if self.mode != "I;16" and bits > 8:
            self._color_bits, self.tile = bits, []
        stream.seek(0)

    def load(self) -> Any:
        """Read the pixels."""
        if self._color_bits > 8:
            self.im = Image.fromarray(self._read_colors()).im
            self._color_bits = 8
        return super().load()

    def _read_colors(self) -> NDArray[np.uint8]:
        value_HWC = _by_opencv(self.fp)
        shape = (self.height, self.width, {"RGB": 3, "RGBA": 4}.get(self.mode))
        if value_HWC is None or value_HWC.shape != shape or value_HWC.dtype != np.uint16:
            raise UnsupportedPixels(f"a JPEG 2000 picture of {self._color_bits} bits a channel")
        return _to_rgb(value_HWC, 2**self._color_bits - 1)

    def _read_boxes(self, stream: IO[bytes]) -> tuple[int, int | None]:
        """Find the codestream's first byte and its end, and on the way the color profile in the header."""
        boxes = BoxReader(stream)
        while boxes.has_next_box():
            kind = boxes.next_box_type()
            if kind == b"jp2h":
                header = boxes.read_boxes()
                while header.has_next_box():
                    # Methods 2 and 3 hold a profile after three bytes.
                    if header.next_box_type() == b"colr" and header.read_fields(">BBB")[0] in (2, 3):
                        self.info["icc_profile"] = header._read_bytes(header.remaining_in_box)
            elif kind == b"jp2c":
                start = stream.tell()
                length = boxes.remaining_in_box
                return start, start + length if length > 0 else None
        raise SyntaxError("no codestream")


def is_deep(image: Image.Image) -> bool:
    """Whether the picture is gray with more than 8 bits (Pillow's modes I, I;16.., F), which `convert` would clip."""
    return image.mode == "F" or image.mode.startswith("I")


def deep_values(image: Image.Image, *, is_photo: bool = False) -> tuple[NDArray[np.float32], float]:
    """Gray values (height, width) of a deep picture as float32, and the value that means white.

    White is 65535 for 16 bits (2^bits - 1 for a TIFF of 9 to 15 bits), and in a PNM, because Pillow scales it so.
    32-bit integers and floats have no agreed white: it is the smallest of 1 (floats only), 255 and 65535 that is not
    less than the brightest pixel, else that pixel's value. In a photo of floats it is 1 also if 99 % are not more.
    Values that are not finite count as 0. A TIFF in which 0 is white (PhotometricInterpretation 0), which Pillow
    inverts only up to 8 bits, is inverted.
    """
    value_HW, white = _stored_values(image, _BEYOND_WHITE if is_photo else 0.0)
    is_inverted = isinstance(image, Tiff.TiffImageFile) and image.tag_v2.get(Tiff.PHOTOMETRIC_INTERPRETATION) == 0
    return (np.subtract(white, value_HW, out=value_HW) if is_inverted else value_HW), white


def _stored_values(image: Image.Image, beyond: float) -> tuple[NDArray[np.float32], float]:
    if image.mode.startswith("I;16"):
        bits = int(image.tag_v2.get(Tiff.BITSPERSAMPLE, (16,))[0]) if isinstance(image, Tiff.TiffImageFile) else 16
        return np.asarray(image).astype(np.float32), float(2**bits - 1)
    if isinstance(image, PpmImageFile) and image.mode == "I":
        return np.asarray(image).astype(np.float32), 65535.0
    return _with_white(np.asarray(image), *((_WHITES, beyond) if image.mode == "F" else (_WHITES[1:], 0.0)))


def _with_white(value: NDArray[Any], usual: tuple[float, ...], beyond: float) -> tuple[NDArray[np.float32], float]:
    value = np.require(value, np.float32, "W")
    for first in range(0, len(value), _ROWS):
        np.nan_to_num(value[first : first + _ROWS], copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    brightest = float(value.max(initial=0.0))
    if beyond and brightest > usual[0] and np.count_nonzero(value > usual[0]) <= beyond * value.size:
        return value, usual[0]
    return value, next((white for white in usual if brightest <= white), brightest)


def deep_to_uint8(value: NDArray[np.float32], white: float) -> NDArray[np.uint8]:
    """Scale 0..white to 0..255, rounded and clipped."""
    level = np.empty(value.shape, dtype=np.uint8)
    for first in range(0, len(value), _ROWS):
        rows = slice(first, first + _ROWS)
        level[rows] = np.rint(np.clip(value[rows] / white, 0.0, 1.0) * 255.0)
    return level
