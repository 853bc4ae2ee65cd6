"""Small files that would keep a reader busy for minutes."""

import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from carmask.imaging import decode_limits
from carmask.imaging.decode import UnreadableImage, decode_mask, decode_photo

SIZE_WH = (60, 40)


def encoded(form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(SIZE_WH).save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def in_pieces(form: str, count: int) -> bytes:
    """A picture with so many empty pieces before its pixels."""
    data = encoded(form)
    if form == "JPEG":
        return data[:2] + b"\xff\xfe\0\2" * count + data[2:]
    if form == "PNG":
        return data[:33] + chunk(b"abCd") * count + data[33:]
    colors = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    return data[:colors] + b"\x21\xfe\0" * count + data[colors:]


def in_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there so many times more."""
    data = encoded("JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF"])
def test_millions_of_pieces_are_not_waited_for(form: str, tmp_path: Path) -> None:
    few = in_pieces(form, 500)
    assert decode_photo(few).size_HW == SIZE_WH[::-1]
    many = in_pieces(form, decode_limits._MOST_READS)
    (tmp_path / "many").write_bytes(many)
    for source in (many, tmp_path / "many"):
        with pytest.raises(UnreadableImage) as caught:
            decode_photo(source)
        assert isinstance(caught.value.__cause__, decode_limits.DecodeLimitExceeded)


def test_thousands_of_scans_are_not_drawn(tmp_path: Path) -> None:
    assert decode_photo(in_scans(20)).size_HW == SIZE_WH[::-1]
    (tmp_path / "scans.jpg").write_bytes(in_scans(5000))
    for source in (in_scans(5000), tmp_path / "scans.jpg"):
        for decode in (decode_photo, decode_mask):
            with pytest.raises(UnreadableImage) as caught:
                decode(source)
            assert isinstance(caught.value.__cause__, decode_limits.DecodeLimitExceeded)


def test_scans_are_not_hidden_behind_other_segments() -> None:
    data = in_scans(0)
    last = data[data.rindex(b"\xff\xda") : -2]
    comment = b"\xff\xfe\0\4\xff\xd9"  # what looks like the end of the picture, inside a comment
    with pytest.raises(UnreadableImage) as caught:
        decode_photo(data[:-2] + (comment + last) * 200 + data[-2:])
    assert isinstance(caught.value.__cause__, decode_limits.DecodeLimitExceeded)
    with pytest.raises(UnreadableImage) as caught:
        decode_photo(data[:-2] + comment * 5000 + last * 200 + data[-2:])
    assert isinstance(caught.value.__cause__, decode_limits.DecodeLimitExceeded)


def test_what_follows_a_photo_is_not_taken_for_scans() -> None:
    """Phones append videos and further pictures, in which any bytes may stand."""
    photo = encoded("JPEG")
    assert decode_photo(photo + b"\xff\xda" * 5000).size_HW == SIZE_WH[::-1]
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 2 * 5000) + b"\xff\xda" * 5000
    assert decode_photo(photo[:2] + thumbnail + photo[2:]).size_HW == SIZE_WH[::-1]
