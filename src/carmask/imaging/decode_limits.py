"""Limits for small files that would keep a decoder busy for minutes.

Pillow splits a file into its pieces in Python: 20 MB of empty segments take half a minute. libjpeg decodes the whole
image once for each scan, and half a megabyte can hold thousands of scans.
"""

import io
import re

from PIL.JpegImagePlugin import JpegImageFile

# A PNG of 100 MB in the usual pieces of 8 KB takes some 50,000 reads.
_MOST_READS = 250_000
# Progressive JPEGs have about ten. libtiff allows 100 for the JPEGs inside a TIFF: seconds, at 50 megapixels.
_MOST_SCANS = 50
_MOST_SEGMENTS = 1000

_SOS, _EOI = 0xDA, 0xD9
# A marker that ends a scan: neither a stuffed byte, nor a restart marker, nor a fill byte.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")


class DecodeLimitExceeded(OSError):
    """A file that takes far more steps to decode than any real photo or mask."""


class LimitedReader(io.BufferedReader):
    """A file or `io.BytesIO` that can be read in a limited number of pieces."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """See `io.BufferedReader`. Raises `DecodeLimitExceeded` after `_MOST_READS` calls."""
        self._reads += 1
        if self._reads > _MOST_READS:
            raise DecodeLimitExceeded("it consists of more small pieces than any picture needs")
        return super().read(size)


def limit_scans(image: JpegImageFile) -> None:
    """Refuse a JPEG with too many scans. Call it before the pixels are decoded.

    Raises:
        DecodeLimitExceeded: it has more scans, or segments, than any photo.
    """
    stream = image.fp
    assert stream is not None
    position = stream.tell()
    stream.seek(0)
    data = stream.read()
    stream.seek(position)
    offset, scans = 2, 0
    for _ in range(_MOST_SEGMENTS):
        marker = _MARKER.search(data, offset)
        if marker is None or marker[1][0] == _EOI:
            return
        scans += marker[1][0] == _SOS
        if scans > _MOST_SCANS:
            break
        # The length of its segment follows a marker. A thumbnail inside has markers of its own, and is skipped.
        offset = marker.end() + max(2, int.from_bytes(data[marker.end() : marker.end() + 2], "big"))
    raise DecodeLimitExceeded("it consists of more scans than any photo needs")
