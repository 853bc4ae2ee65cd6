"""Files that are small and would keep a reader busy for minutes: these are given up, not waited for.

Pillow reads a file apart in Python, and 20 MB of empty segments cost half a minute. libjpeg goes through the whole
picture once for each scan, and half a megabyte holds thousands of them.
"""

import io
import re
from typing import TYPE_CHECKING

from PIL.JpegImagePlugin import JpegImageFile

# A PNG of 100 MB in the usual pieces of 8 KB takes some 50,000 reads.
_MOST_READS = 250_000
# Progressive JPEGs have ten or so. libtiff allows 100 for the JPEGs inside a TIFF, which on 50 megapixels are seconds.
_MOST_SCANS = 50
_MOST_SEGMENTS = 1000

_SOS, _EOI = 0xDA, 0xD9
# What ends a scan: a marker that is neither a stuffed byte nor a restart, nor filled up.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")


class Endless(OSError):
    """A file that was made to keep a reader busy, or might as well have been."""


if TYPE_CHECKING:
    _Base = io.BufferedIOBase
else:
    _Base = object


class _Patience(_Base):
    """A stream that may be read so often."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MOST_READS:
            raise Endless("it is made of more small pieces than any picture needs")
        return super().read(size)


class PatientBytes(_Patience, io.BytesIO):
    """Bytes, to be read in a bounded number of pieces."""


class PatientFile(_Patience, io.BufferedReader):
    """A file, to be read in a bounded number of pieces."""


def refuse_endless_scans(image: JpegImageFile) -> None:
    """Refuse a JPEG in too many scans. To be called before its pixels are decoded.

    Raises:
        Endless: it has more scans than any photo.

    """
    stream = image.fp
    assert stream is not None
    position = stream.tell()
    stream.seek(0)
    data = stream.read()
    stream.seek(position)
    place, scans = 2, 0
    for _ in range(_MOST_SEGMENTS):
        marker = _MARKER.search(data, place)
        if marker is None or marker[1][0] == _EOI:
            return
        scans += marker[1][0] == _SOS
        if scans > _MOST_SCANS:
            break
        # Behind a marker stands the length of its segment. A thumbnail in it has markers of its own, and is skipped.
        place = marker.end() + max(2, int.from_bytes(data[marker.end() : marker.end() + 2], "big"))
    raise Endless("it is made of more scans than any photo needs")
