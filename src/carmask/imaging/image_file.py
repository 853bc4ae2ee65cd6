"""Open a file or bytes as a Pillow image that is safe to decode.

Every picture that the project reads is opened by `open_image`. It chooses a reader by the first bytes (never by the
file's name), reads the header only, and refuses a picture that declares more pixels than the caller
allows. Whatever Pillow raises for damaged data is raised as `UnreadableImage`.
"""

import io
import re
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

from carmask.errors import CarmaskError
from carmask.files import SimilarNames
from carmask.imaging.decode_limits import DecodeLimitExceeded, LimitedReader
from carmask.imaging.formats import FORMATS, JPEG_XL, POINTER, RAW, find_reader, is_raw, name_data
from carmask.imaging.readers import UnsupportedPixels, WebpFile
from carmask.limits import max_pixels as allowed_pixels

ImageSource = str | Path | bytes

# By EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_REPAIR = "replace the file with an intact copy or take it out of the folder"
_CONVERT = f"convert it to {FORMATS}, or take it out of the folder"
_FETCH = "fetch the file with `git lfs pull` or `git annex get`"
_EXPORT = "export it as JPEG with a photo editor or the camera's own program"
_DJXL = "convert it, for example with `djxl photo.jxl photo.png`, or take it out of the folder"


class UnreadableImage(CarmaskError):
    """A picture that cannot be read.

    name: the file, or the caller's name for a picture in memory. cause: what is wrong with it. advice: what to do.
    """

    def __init__(self, name: str, cause: str, advice: str = _REPAIR) -> None:
        super().__init__(f"{name}: {cause}; {advice}")
        self.name = name
        self.cause = cause
        self.advice = advice

    def __reduce__(self) -> tuple[type["UnreadableImage"], tuple[str, str, str]]:
        return type(self), (self.name, self.cause, self.advice)


class TooManyPixels(UnreadableImage):
    """A picture with more pixels than the caller allows."""


@contextmanager
def open_image(source: ImageSource, *, max_pixels: int | None, name: str | None) -> Iterator[ImageFile.ImageFile]:
    """Open a picture, header only. Whatever Pillow raises inside the `with` block is raised as `UnreadableImage`.

    A `CarmaskError` stays as it is.

    Raises:
        UnreadableImage: also if the file is missing, not a plain file, empty or in no format that is read.
        TooManyPixels: it declares more than `max_pixels` pixels; by default `carmask.limits.max_pixels`.
    """
    label = name if name is not None else ("image data" if isinstance(source, bytes) else str(source))
    with _byte_stream(source, label) as stream:
        try:
            image = _read_header(stream, label, max_pixels)
            yield image
        except CarmaskError:
            raise
        except UnsupportedPixels as failure:
            advice = "save it as RGB or gray of 8 bits a channel, or take it out of the folder"
            raise UnreadableImage(label, f"{failure}, which cannot be read", advice) from failure
        except MemoryError as failure:
            advice = "reduce the picture first, or allow the process more memory"
            raise UnreadableImage(label, "there is not enough memory to decode it", advice) from failure
        except Exception as failure:
            raise UnreadableImage(label, _plain_words(failure)) from failure


def displayed_orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8 that is still to be applied; 1 where there is none or the metadata is damaged.

    Every viewer shows a photo with damaged metadata as it is stored. A TIFF is turned by Pillow while it loads, and
    reports its turned size before. A PNG must be loaded first if it `has_late_metadata`.
    """
    if isinstance(image, TiffImageFile):
        return 1
    try:
        # PngImageFile.getexif would decode the whole picture to look for metadata after the pixels.
        orientation = Image.Image.getexif(image).get(0x0112, 1)
    except Exception:  # noqa: BLE001 - Pillow raises almost anything for damaged data
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def has_late_metadata(image: ImageFile.ImageFile) -> bool:
    """Whether a PNG has chunks after its pixels that can hold an orientation (EXIF, or text with EXIF or XMP)."""
    if not isinstance(image, PngImageFile) or image.fp is None:
        return False
    stream = image.fp
    position = stream.tell()
    stream.seek(8)
    seen_pixels = late = False
    while len(head := stream.read(8)) == 8 and not late:
        length, kind = struct.unpack(">I4s", head)
        seen_pixels |= kind == b"IDAT"
        late = seen_pixels and kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
        stream.seek(length + 4, io.SEEK_CUR)
    stream.seek(position)
    return late


def has_more_pictures(image: ImageFile.ImageFile) -> bool:
    """Whether an animation or a TIFF of pages goes on after its first picture; may leave that one.

    A second page that is a reduced copy of the first (TIFF 6.0, NewSubfileType) does not count.
    """
    try:
        if not getattr(image, "is_animated", False) or not isinstance(image, TiffImageFile):
            return bool(getattr(image, "is_animated", False))
        image.seek(1)
        return not int(image.tag_v2.get(254, 0)) & 1
    except Exception:  # noqa: BLE001 - damage after the first picture, which is intact
        return False


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """Turn and mirror a stored picture as EXIF orientation 1..8 says."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


@contextmanager
def _byte_stream(source: ImageSource, label: str) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes):
        yield LimitedReader(io.BytesIO(source))
        return
    try:
        # A named pipe or a device could block or never end.
        mode = Path(source).stat().st_mode
        if stat.S_ISDIR(mode):
            raise UnreadableImage(label, "a folder, not a file", "rename it or take it out of the folder")
        if not stat.S_ISREG(mode):
            raise UnreadableImage(label, "a device, pipe or socket, not a file", "take it out of the folder")
        stream = LimitedReader(io.FileIO(source))
    except FileNotFoundError as failure:
        dangling = Path(source).is_symlink()
        cause = "the link points to a file that does not exist" if dangling else "there is no such file"
        if similar := None if dangling else _similar_file(Path(source)):
            cause += f", only {similar!r}, which differs in case or in how accents are stored"
        raise UnreadableImage(label, cause, "check the path") from failure
    except (OSError, ValueError) as failure:
        cause = getattr(failure, "strerror", None) or str(failure)
        advice = "check the path, and that you may read it"
        raise UnreadableImage(label, f"it cannot be opened ({cause})", advice) from failure
    with stream:
        yield stream


def _similar_file(path: Path) -> str | None:
    try:
        return SimilarNames(other.name for other in path.parent.iterdir()).find(path.name)
    except OSError:
        return None


def _read_header(stream: IO[bytes], label: str, max_pixels: int | None) -> ImageFile.ImageFile:
    head = stream.read(256)
    stream.seek(0)
    if not head:
        raise UnreadableImage(label, "the file is empty")
    reader = find_reader(head)
    if reader is None:
        raise _unsupported(label, name_data(head))
    if reader is WebpFile:
        # Pillow allocates a WebP's canvas while it reads the header.
        _refuse_size(_webp_canvas_px(head), label, max_pixels)
    image = reader(stream)
    _refuse_size(image.width * image.height, label, max_pixels)
    if isinstance(image, TiffImageFile):
        if is_raw(image):
            raise _unsupported(label, RAW)
        # libtiff allocates whole tiles, which may be larger than the picture they hold.
        _refuse_size(int(image.tag_v2.get(TILEWIDTH, 0)) * int(image.tag_v2.get(TILELENGTH, 0)), label, max_pixels)
    return image


def _unsupported(label: str, found: str) -> UnreadableImage:
    advice = {POINTER: _FETCH, RAW: _EXPORT, JPEG_XL: _DJXL}.get(found, _CONVERT)
    return UnreadableImage(label, f"not a supported picture, this is {found}", advice)


def _webp_canvas_px(head: bytes) -> int:
    kind = head[12:16]
    if kind == b"VP8X" and len(head) >= 30:
        return (int.from_bytes(head[24:27], "little") + 1) * (int.from_bytes(head[27:30], "little") + 1)
    if kind == b"VP8L" and len(head) >= 25:
        bits = int.from_bytes(head[21:25], "little")
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 " and len(head) >= 30:
        return (int.from_bytes(head[26:28], "little") & 0x3FFF) * (int.from_bytes(head[28:30], "little") & 0x3FFF)
    return 0


def _refuse_size(pixels: int, label: str, max_pixels: int | None) -> None:
    most = allowed_pixels() if max_pixels is None else max_pixels
    if pixels > most:
        raise TooManyPixels(
            label,
            f"it has {pixels / 1e6:.1f} megapixels, and at most {most / 1e6:.1f} are allowed",
            "reduce the picture first" + ("" if max_pixels else f", or allow it with --max-pixels {pixels}"),
        )


def _plain_words(failure: Exception) -> str:
    text = str(failure).strip()
    lowered = text.lower()
    if isinstance(failure, DecodeLimitExceeded):
        return text
    if isinstance(failure, Image.DecompressionBombError):
        return "it declares more pixels than Pillow allows"
    if lowered.startswith(("conversion from", "unknown raw mode")):
        return f"its color mode is not supported ({text})"
    if isinstance(failure, EOFError) or re.search("truncated|unexpected end|requires a buffer of", lowered):
        return "the file is cut short"
    part = "header" if isinstance(failure, UnidentifiedImageError | SyntaxError) else "data"
    return f"its {part} is damaged ({text if text and not isinstance(failure, KeyError) else type(failure).__name__})"
