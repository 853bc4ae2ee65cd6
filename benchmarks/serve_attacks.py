"""Requests that mean harm, or might as well: what is sent, and which answers are right.

An attack is a list of pieces with pauses between them. Its right answers are statuses; 0 stands for a connection that
is closed without one, which is right where a client does not finish what it began.
"""

import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from serve_clients import BOUNDARY, form, head, part

# The service that is attacked waits so long.
HEADER_TIMEOUT_S, BODY_TIMEOUT_S, ANSWER_TIMEOUT_S = 3, 5, 5
MAX_BYTES = 4_000_000


@dataclass(frozen=True)
class Attack:
    """What is sent: pieces, each after a pause in seconds. reads: whether the answer is taken. ends: half-closes."""

    family: str
    pieces: tuple[tuple[float, bytes], ...]
    right: frozenset[int]
    reads: bool = True
    ends: bool = False


def attacks(photos: list[bytes], count: int, seed: int) -> list[Attack]:
    """So many attacks of all families, in an order that mixes them."""
    draw = random.Random(seed)  # noqa: S311 - not for secrets
    families = [
        (0.34, _fuzzed),
        (0.08, _cut),
        (0.08, _lying),
        (0.06, _bombs),
        (0.04, _many_parts),
        (0.08, _slow),
        (0.08, _wrong_types),
        (0.08, _long_heads),
        (0.10, _garbage),
        (0.06, _odd_forms),
        (0.01, _takes_no_answer),
    ]
    found = []
    for share, family in families:
        made = family(photos, draw)
        found += [next(made) for _ in range(max(1, round(share * count)))]
    draw.shuffle(found)
    return found


def _once(family: str, data: bytes, *right: int, reads: bool = True, ends: bool = False) -> Attack:
    return Attack(family, ((0, data),), frozenset(right), reads, ends)


def _whole(photo: bytes, **fields: str) -> bytes:
    body = form(photo, **fields)
    return head(len(body)) + body


def _fuzzed(photos: list[bytes], draw: random.Random) -> Iterator[Attack]:
    """Pictures with bytes changed, doubled, taken out, or put together from two."""
    while True:
        data = bytearray(draw.choice(photos))
        for _ in range(draw.choice((1, 3, 20, 200))):
            # Most of what can go wrong stands at the beginning.
            place = draw.randrange(min(len(data), draw.choice((64, 1024, len(data)))))
            what = draw.randrange(4)
            if what == 0:
                data[place] = draw.randrange(256)
            elif what == 1:
                del data[place : place + draw.randrange(1, 40)]
            elif what == 2:
                data[place:place] = data[place : place + draw.randrange(1, 40)]
            else:
                other = draw.choice(photos)
                data[place : place + 16] = other[place : place + 16]
        kind = draw.choice(("mask", "soft", "cutout", "overlay", "polygons"))
        yield _once("fuzzed pictures", _whole(bytes(data), kind=kind), 200, 422)


def _cut(photos: list[bytes], draw: random.Random) -> Iterator[Attack]:
    while True:
        request = _whole(draw.choice(photos))
        begun = request[: draw.randrange(1, len(request))]
        yield _once("cut off by the client", begun, 0, 400, 408, ends=True)
        photo = draw.choice(photos)
        yield _once("cut pictures", _whole(photo[: draw.randrange(1, len(photo))]), 200, 422)
        body = form(photo)
        cut = body[: draw.randrange(0, len(body) - 4)]
        yield _once("cut forms", head(len(cut)) + cut, 400)


def _lying(photos: list[bytes], draw: random.Random) -> Iterator[Attack]:
    while True:
        body = form(draw.choice(photos))
        yield _once("lengths: too short", head(draw.randrange(1, len(body) - 4)) + body, 400)
        yield _once("lengths: too long", head(len(body) + draw.randrange(1, 5000)) + body, 408)
        yield _once("lengths: too large", head(draw.choice((MAX_BYTES + 1, 10**12, 10**18))) + body, 413)
        value = draw.choice(("-1", "1e3", "0x10", "12 12", "", "9" * 40, "1\r\nContent-Length: 2"))
        yield _once("lengths: no number", head(0).replace(b": 0\r\n", f": {value}\r\n".encode()) + body, 400, 413)
        chunked = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        size = draw.choice((b"zz\r\n", b"-1\r\nab", b"\r\n\r\n", b"1" * 300))
        yield _once("chunks: no size", chunked + size, 400, 408)
        start = part("file", b"", "a")[:-2]
        first, piece = (b"%x\r\n" % len(data) + data + b"\r\n" for data in (start, bytes(0x100000)))
        yield Attack("chunks: without end", ((0, chunked + first), *((0, piece),) * 8), frozenset({413}))


def png(width: int, height: int, data: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of so many black and white pixels, with other chunks before and after its data."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", data) + after + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _large() -> list[bytes]:
    """Pictures of every format that say they have more pixels than may be."""
    width, height = (struct.pack("<HHI", tag, 4, 1) + struct.pack("<I", 90_000) for tag in (256, 257))
    return [
        png(20_000, 20_000, zlib.compress(bytes(20_000 * 2501), 9)),
        png(2**31 - 1, 2**31 - 1, b""),
        b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0, 0, 0),
        b"BM" + struct.pack("<IHHIIiiHH", 100, 0, 0, 54, 40, 60_000, 60_000, 1, 24) + bytes(60),
        b"RIFF" + struct.pack("<I", 100) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + b"\xff" * 6 + bytes(60),
        b"II*\0" + struct.pack("<IH", 8, 2) + width + height + bytes(4),
    ]


def _bombs(photos: list[bytes], draw: random.Random) -> Iterator[Attack]:
    """Small files that say that they are large, or that are slow to read."""
    jpeg = next(photo for photo in photos if photo.startswith(b"\xff\xd8"))
    progressive = BytesIO()
    Image.new("RGB", (2000, 2000)).save(progressive, "JPEG", progressive=True)
    scans = progressive.getvalue()
    last = scans[scans.rindex(b"\xff\xda") : -2]
    pieces = MAX_BYTES * 9 // 10
    small = zlib.compress(bytes(1400))
    large = _large()
    slow = [
        jpeg[:2] + b"\xff\xfe\0\2" * (pieces // 4) + jpeg[2:],
        jpeg[:2] + b"\xff" * pieces + jpeg[2:],
        scans[:-2] + last * 3000 + b"\xff\xd9",
        png(100, 100, small, before=chunk(b"IDAT", b"") * (pieces // 12)),
        png(100, 100, small, after=chunk(b"tEXt", b"a\0b") * (pieces // 15)),
        png(100, 100, small, before=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(30_000_000), 9))),
        png(100, 100, zlib.compress(bytes(60_000_000), 9)),
        png(6000, 6000, zlib.compress(bytes(6000 * 751), 9)),
    ]
    while True:
        for data in large:
            yield _once("bombs: pixels", _whole(data), 422)
        kind = draw.choice(("mask", "cutout", "compare"))
        yield _once("bombs: slow to read", _whole(draw.choice(slow), kind=kind), 200, 422)
        backdrop = part("background_file", draw.choice(large), "a")
        body = part("kind", b"cutout") + backdrop + form(jpeg)
        yield _once("bombs: behind the vehicle", head(len(body)) + body, 422)


def _many_parts(_: list[bytes], draw: random.Random) -> Iterator[Attack]:
    while True:
        name = draw.choice(("kind", "file", "x"))
        body = b"".join(part(f"{name}{number}" if name == "x" else name, b"mask") for number in range(10_000))
        yield _once("forms: 10,000 parts", head(len(body)) + body, 400)
        body = part("kind", b"k" * 1_000_000)
        yield _once("forms: a field without end", head(len(body)) + body, 400)
        body = b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="' + b"n" * 1_000_000
        yield _once("forms: a name without end", head(len(body)) + body, 400)
        body = b"\r\n" * 500_000
        yield _once("forms: nothing before the boundary", head(len(body)) + body, 400)


def _slow(photos: list[bytes], draw: random.Random) -> Iterator[Attack]:
    while True:
        request = _whole(draw.choice(photos))
        seconds = max(HEADER_TIMEOUT_S, BODY_TIMEOUT_S) + 3
        heads = tuple((0.5, request[place : place + 1]) for place in range(2 * HEADER_TIMEOUT_S + 6))
        yield Attack("slow heads", heads, frozenset({408}))
        start = request.index(b"\r\n\r\n") + 4
        bodies = tuple((0.5, request[place : place + 9]) for place in range(start, start + 18 * seconds, 9))
        yield Attack("slow bodies", ((0, request[:start]), *bodies), frozenset({408}))
        yield Attack("says nothing", ((HEADER_TIMEOUT_S + 1, b""),), frozenset({0}))


def _wrong_types(photos: list[bytes], draw: random.Random) -> Iterator[Attack]:
    strangers = [
        b"%PDF-1.7",
        b"PK\3\4",
        b"<svg/>",
        b"<!doctype html>",
        b"\0" * 5000,
        b"",
        b"#!/bin/sh\nrm -rf /",
        b"GIF89a",
    ]
    strangers += [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"BM", b"II*\0", b"\0\0\0 ftypheic"]
    while True:
        yield _once("no pictures", _whole(draw.choice(strangers) + draw.randbytes(draw.choice((0, 10, 5000)))), 422)
        photo = draw.choice(photos)
        kind = draw.choice(
            (b"application/pdf", b"application/json", b"text/plain", b"multipart/mixed; boundary=x", b"")
        )
        value = head(len(photo)).replace(b"multipart/form-data; boundary=" + BOUNDARY, kind)
        yield _once("no forms", value + photo, 415)
        method = draw.choice((b"GET", b"PUT", b"DELETE", b"PATCH", b"TRACE"))
        yield _once("other methods", method + head(0)[4:], 405)
        path = draw.choice(
            ("/", "/etc/passwd", "/static/../../pyproject.toml", "/static/%2e%2e/settings.py", "/v1/segment/")
        )
        yield _once("other addresses", head(0, path=path), 404, 405)


def _long_heads(_: list[bytes], draw: random.Random) -> Iterator[Attack]:
    while True:
        lines = draw.choice(
            (b"X: " + b"x" * 100_000, b"\r\n".join(b"X-%d: x" % n for n in range(9000)), b"X" * 100_000 + b": 1")
        )
        yield _once("heads of 100 KB", head(0).replace(b"Host: load", b"Host: load\r\n" + lines), 431)
        yield _once("addresses of 100 KB", head(0, path="/" + "a" * 100_000), 431)
        yield _once("lines without end", b"GET /" + b"a" * 200_000, 431)


def _garbage(photos: list[bytes], draw: random.Random) -> Iterator[Attack]:
    while True:
        yield _once("noise", draw.randbytes(draw.randrange(1, 3000)) + b"\r\n\r\n", 400, 408, 431)
        yield _once(
            "no HTTP",
            draw.choice((b"\x16\x03\x01\2\0\1\0\1\xfc\3\3", b"SSH-2.0-x\r\n\r\n", b"EHLO x\r\n\r\n")),
            400,
            408,
        )
        yield _once("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 404, 405)
        request = _whole(draw.choice(photos))
        yield _once("pipelined noise", request + draw.randbytes(draw.randrange(1, 3000)), 200)
        yield _once("pipelined requests", request * draw.randrange(2, 8) + b"NONSENSE\r\n\r\n", 200)
        both = head(5).replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nContent-Length")
        yield _once("two lengths", both + b"0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n", 400)
        yield _once("no host", head(0).replace(b"Host: load\r\n", b""), 400)
        yield _once("an upgrade", head(0).replace(b"Host", b"Connection: upgrade\r\nUpgrade: websocket\r\nHost"), 400)


def _odd_forms(photos: list[bytes], draw: random.Random) -> Iterator[Attack]:
    fields = [
        {"background": "/etc/passwd", "kind": "cutout"},
        {"background": "http://169.254.169.254/", "kind": "cutout"},
        {"threshold": "1e400"},
        {"threshold": "-0"},
        {"min_area": "9" * 900},
        {"min_area": "1e999999"},
        {"kind": "../../x"},
        {"url": "file:///etc/passwd"},
        {"format": "exe", "kind": "cutout"},
        {"crop": "\0", "kind": "cutout"},
    ]
    while True:
        yield _once("odd fields", _whole(draw.choice(photos), **draw.choice(fields)), 400)
        name = draw.choice(("../../../tmp/x", "a\0b.jpg", "x" * 3000, 'a"; name="kind', "\x1b[2J"))
        body = part("file", b"no photo", name) + b"--" + BOUNDARY + b"--\r\n"
        yield _once("odd names", head(len(body)) + body, 400, 422)
        noise = b"--" + BOUNDARY + b"\r\n" + draw.randbytes(draw.randrange(1, 5000))
        yield _once("noise in a form", head(len(noise)) + noise, 400)


def _takes_no_answer(photos: list[bytes], draw: random.Random) -> Iterator[Attack]:
    while True:
        request = _whole(draw.choice(photos), kind="compare") * 16
        yield _once("takes no answer", request, 0, reads=False)
