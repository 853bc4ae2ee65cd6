"""Every limit of the service, each from outside, over plain sockets."""

import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from service_process import BOUNDARY, FORM, Reply, Service, form, head, part, part_of_file, running

MAX_BYTES = 300_000
MAX_PIXELS = 1_000_000


@pytest.fixture(scope="module")
def tight(bright: Path) -> Iterator[Service]:
    """A service that takes little of anything, and waits for nobody."""
    limits = {
        "--max-bytes": MAX_BYTES,
        "--max-pixels": MAX_PIXELS,
        "--max-parts": 6,
        "--max-field-bytes": 100,
        "--max-header-bytes": 4096,
        "--header-timeout-s": 0.7,
        "--body-timeout-s": 1.2,
        "--answer-timeout-s": 1,
        "--keep-alive-s": 1,
    }
    options = [option for pair in limits.items() for option in pair]
    with running("-m", bright, "--engine", "onnxruntime", "--device", "cpu", *options) as started:
        yield started


@pytest.fixture(scope="module")
def narrow(bright: Path) -> Iterator[Service]:
    """A service with little room: one thread that decodes and one that draws, two photos, few connections."""
    limits = {"--workers": 1, "--queue": 2, "--max-requests": 4, "--max-connections": 8, "--uploads-mb": 1}
    options = [option for pair in limits.items() for option in pair]
    with running(
        "-m", bright, "--engine", "onnxruntime", "--device", "cpu", "--max-bytes", 900_000, *options
    ) as started:
        yield started


def png_that_declares(width: int, height: int) -> bytes:
    """A PNG of so many pixels, all black, in a few KB for each hundred million."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(height * ((width + 7) // 8 + 1))))
        + chunk(b"IEND", b"")
    )


def test_a_body_that_says_how_large_it_is_is_refused_at_once(tight: Service) -> None:
    with tight.connect() as wire:
        reply = wire.send(head(MAX_BYTES + 1)).reply()
    assert reply.refused == (413, "too_large")


def test_a_body_that_does_not_is_refused_at_the_limit_and_not_at_its_end(tight: Service) -> None:
    before_bytes = tight.memory_bytes
    with tight.connect() as wire:
        wire.send(head(None, "Transfer-Encoding: chunked"))
        cut = threading.Event()

        def send_without_end() -> None:
            piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"
            first = b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            wire.send(b"%x\r\n" % len(first) + first + b"\r\n")
            try:
                while True:
                    wire.send(piece)
            except OSError:
                cut.set()

        sender = threading.Thread(target=send_without_end)
        sender.start()
        reply = wire.reply()
        assert not cut.is_set(), "the answer comes while the body is still being sent"
        assert reply.refused == (413, "too_large")
        sender.join(60)
        assert cut.is_set(), "what goes on sending is cut off"
    assert tight.memory_bytes - before_bytes < 20_000_000


@pytest.mark.parametrize("closing", ["Connection: close", "Connection: keep-alive"])
def test_who_sends_all_before_reading_sees_the_refusal(tight: Service, closing: str) -> None:
    """A connection that is closed while bytes come in is reset, and the answer on it lost."""
    for _ in range(5):
        with tight.connect() as wire:
            wire.send(head(3_000_000, closing)).send(bytes(3_000_000))
            assert wire.reply().refused == (413, "too_large")


def test_a_lying_length_is_believed_or_refused_but_never_waited_for(tight: Service, photo: Path) -> None:
    body = form(file=photo)
    with tight.connect() as wire:
        wire.send(head(len(body) - 20) + body)
        assert wire.reply().refused == (400, "bad_form")
        assert wire.reply().refused == (408, "too_slow"), "the rest is taken for the next request"
        assert wire.is_closed()
    started_s = time.monotonic()
    with tight.connect() as wire:
        wire.send(head(len(body) + 20) + body)
        assert wire.reply().refused == (408, "too_slow")
    assert time.monotonic() - started_s >= 1
    for length in ("-1", "12 12", "0x10", "1e3", "9" * 30, "", "1\r\nContent-Length: 2"):
        with tight.connect() as wire:
            wire.send(head(None, f"Content-Length: {length}") + body)
            assert wire.reply().status in (400, 413)


def test_pixels_are_counted_before_they_are_decoded(tight: Service) -> None:
    before_bytes = tight.memory_bytes
    bomb = png_that_declares(20_000, 20_000)
    assert len(bomb) < 60_000
    reply = tight.segment(bomb)
    assert reply.refused == (422, "too_many_pixels")
    assert tight.segment(png_that_declares(1000, 1001)).status == 422
    assert tight.segment(png_that_declares(1000, 1000)).status == 200
    backdrop = tight.segment(png_that_declares(100, 100), kind="cutout", background_file=bomb)
    assert backdrop.refused == (422, "too_many_pixels")
    assert tight.memory_bytes - before_bytes < 60_000_000


def test_a_photo_that_would_keep_its_decoder_busy_for_ever(tight: Service) -> None:
    """The small kin of what takes minutes, see carmask.imaging.decode_limits."""
    photo = png_that_declares(100, 100)
    empty = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    reply = tight.segment(photo[:33] + empty * 20_000 + photo[33:])
    assert reply.status == 200, "of so few pieces a picture may consist"


def test_parts_and_fields_are_counted(tight: Service, service: Service, photo: Path) -> None:
    many = b"".join(part("kind", "mask") for _ in range(10_000))
    assert service.ask("POST", "/v1/segment", many, {"Content-Type": FORM}).refused == (400, "bad_form")
    seven = {"kind": "cutout", "crop": "false", "threshold": "0.5", "min_area": "0", "format": "png", "vehicles": "all"}
    long = {"threshold": f"0.5{'0' * 98}"}
    for fields in (seven, long):
        assert service.segment(photo, **fields).status == 200, "only their number or length is wrong"
        assert tight.segment(photo, **fields).refused == (400, "bad_form")


def test_a_head_of_100_kb(tight: Service) -> None:
    for line in (f"X-Long: {'x' * 100_000}", "\r\n".join(f"X-{number}: x" for number in range(9000))):
        with tight.connect() as wire:
            reply = wire.send(head(0, line)).reply()
            assert reply.refused == (431, "headers_too_large")
    with tight.connect() as wire:
        reply = wire.send(b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n").reply()
        assert reply.refused == (431, "headers_too_large")
    with tight.connect() as wire:
        # All at once and complete: no parser waits for more, and it is still too long.
        wire.send(head(0, f"X-Long: {'x' * 5000}", method="GET", path="/healthz"))
        assert wire.reply().refused == (431, "headers_too_large")
    assert tight.get("/healthz", **{"X-Long": "x" * 3000}).status == 200


@pytest.mark.parametrize("start", [b"G", b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"POST /v1/segment HTTP/1.1\r\nX: "])
def test_a_head_that_comes_slowly(tight: Service, start: bytes) -> None:
    with tight.connect() as wire:
        wire.send(start)
        stop = threading.Event()

        def trickle() -> None:
            while not stop.wait(0.1):
                try:
                    wire.send(b"a")
                except OSError:
                    return

        trickling = threading.Thread(target=trickle)
        trickling.start()
        reply = wire.reply()
        stop.set()
        trickling.join()
        assert reply.refused == (408, "too_slow")


def test_who_says_nothing_is_sent_away_without_a_word(tight: Service) -> None:
    with tight.connect() as wire:
        assert wire.is_closed()


def test_a_second_head_has_no_more_time_than_the_first(tight: Service) -> None:
    with tight.connect() as wire:
        assert wire.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").reply().status == 200
        assert wire.send(b"GET /healthz HTT").reply().refused == (408, "too_slow")
    with tight.connect() as wire:
        # One that arrives with the end of the one before.
        wire.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /heal")
        assert wire.reply().status == 200
        assert wire.reply().refused == (408, "too_slow")
    with tight.connect() as wire:
        assert wire.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").reply().status == 200
        assert wire.is_closed(), "a connection does not rest for ever"


def test_a_body_that_comes_slowly(tight: Service, photo: Path) -> None:
    body = form(file=photo)
    started_s = time.monotonic()
    with tight.connect() as wire:
        wire.send(head(len(body)))
        stop = threading.Event()

        def trickle() -> None:
            for place in range(len(body)):
                if stop.wait(0.05):
                    return
                wire.send(body[place : place + 1])

        trickling = threading.Thread(target=trickle)
        trickling.start()
        assert wire.reply().refused == (408, "too_slow")
        stop.set()
        trickling.join()
    assert time.monotonic() - started_s >= 1.1
    assert tight.counted("carmask_upload_bytes") == 0


def test_who_does_not_take_the_answer_is_cut_off(tight: Service) -> None:
    noise = random.Random(3).randbytes(250_000)  # an answer that no buffer of the system holds
    bitmap = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54 + len(noise), 0, 0, 54, 40, 500, -166, 1, 24, 0, 0, 0, 0, 0, 0)
    body = form(kind="compare", file=bitmap + noise)
    before = tight.counted("carmask_refusals_total", cause="answer_not_taken")
    with socket.socket() as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.connect(("127.0.0.1", tight.port))
        with suppress(ConnectionError):
            for _ in range(40):
                wire.sendall(head(len(body)) + body)
        tight.await_count(before + 1, "carmask_refusals_total", cause="answer_not_taken")
    tight.await_count(0, "carmask_work_bytes")


def test_a_full_queue_says_so_at_once(narrow: Service, large_photo: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(narrow.segment, large_photo, kind="cutout") for _ in range(2)]
        narrow.await_count(2, "carmask_photos_now")
        with narrow.connect() as wire:
            # Before a byte of the photo is there.
            reply = wire.send(head(500_000)).reply()
        assert reply.refused == (503, "queue_full")
        assert int(reply.headers["retry-after"]) >= 1
        assert narrow.get("/healthz").status == 200, "the process is well"
        assert [one.result().status for one in held] == [200, 200]
    assert narrow.segment(large_photo, kind="mask").status == 200


def test_too_many_requests(narrow: Service, photo: Path) -> None:
    body = form(file=photo)
    uploads = [narrow.connect().send(head(len(body)) + body[:-1]) for _ in range(4)]
    narrow.await_count(5, "carmask_requests_now")
    reply = narrow.get("/v1/model")
    assert reply.refused == (503, "too_many_requests")
    assert int(reply.headers["retry-after"]) >= 1
    assert narrow.get("/healthz").status == narrow.get("/readyz").status == 200
    for upload in uploads:
        # Of those whose photo arrives while two are at work, some are told that the queue is full.
        assert upload.send(body[-1:]).reply().status in (200, 503)
        upload.close()
    narrow.await_count(1, "carmask_requests_now")


def test_too_much_in_memory(narrow: Service, photo: Path) -> None:
    body = form(file=photo, background_file=bytes(700_000), kind="cutout")
    with narrow.connect() as first, narrow.connect() as second:
        first.send(head(len(body)) + body[:-1])
        narrow.await_count(len(body) - 1, "carmask_upload_bytes")
        reply = second.send(head(len(body)) + body).reply()
        assert reply.refused == (503, "out_of_memory")
        assert int(reply.headers["retry-after"]) >= 1
        assert first.send(body[-1:]).reply().refused == (422, "unreadable"), "the first goes on"
    narrow.await_count(0, "carmask_upload_bytes")


def test_too_many_connections(narrow: Service, photo: Path) -> None:
    idle = [narrow.connect() for _ in range(8)]
    told = []
    for _ in range(4):
        with narrow.connect() as wire:
            told.append(wire.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").reply())
    assert [reply.refused for reply in told] == [(503, "too_many_connections")] * 4
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in told)
    for wire in idle:
        wire.close()
    deadline_s = time.monotonic() + 60
    while narrow.get("/healthz").status != 200:
        assert time.monotonic() < deadline_s
    assert narrow.segment(photo).status == 200


def test_no_limit_lets_memory_grow(tight: Service) -> None:
    """A few hundred bodies that are refused, each at its limit."""
    for _ in range(20):
        tight.segment(bytes(MAX_BYTES - 1000))
    before_bytes = tight.memory_bytes

    def send(_: int) -> Reply:
        return tight.segment(bytes(MAX_BYTES - 1000))

    with ThreadPoolExecutor(16) as pool:
        assert {reply.refused for reply in pool.map(send, range(200))} == {(422, "unreadable")}
    assert tight.memory_bytes - before_bytes < 30_000_000


def test_one_connection_serves_many_requests(tight: Service, photo: Path) -> None:
    connection = HTTPConnection("127.0.0.1", tight.port, timeout=60)
    first = None
    for number in range(12):
        fields = {"kind": "maks"} if number % 3 == 1 else {}
        size = MAX_BYTES + 1 if number % 3 == 2 else 0
        body = form(file=photo, **fields) if not size else form(file=bytes(size))
        connection.request("POST", "/v1/segment", body, {"Content-Type": FORM})
        assert Reply.of(connection.getresponse()).status == (200, 400, 413)[number % 3]
        first = first or connection.sock
        assert connection.sock is first, "the connection is kept, also over refusals"
    connection.close()


def test_the_name_of_a_file_cannot_break_an_answer(tight: Service) -> None:
    body = part_of_file("file", 'a";\\r\\nX-Evil: 1\\r\\n.jpg\x1b[2J', b"no photo") + b"--" + BOUNDARY + b"--\r\n"
    reply = tight.ask("POST", "/v1/segment", body, {"Content-Type": FORM})
    assert reply.refused == (422, "unreadable")
    assert "x-evil" not in reply.headers
    assert "\x1b" not in reply.json["error"]["message"]
