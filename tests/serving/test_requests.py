"""The ways to ask: fields in the query, the photo as the body, several photos at once, OPTIONS and HEAD."""

import email.policy
import io
import json
import time
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest
from service_process import FORM, Service, form, head, part_of_file, running


def parts(*photos: tuple[str, bytes], **fields: object) -> bytes:
    return b"".join(part_of_file("file", name, data) for name, data in photos) + form(**fields)


@pytest.mark.parametrize("query", ["kind=cutout&crop=true", "kind=cutout&crop=on&min_area=0"])
def test_fields_may_be_in_the_query(service: Service, photo: Path, query: str) -> None:
    expected = service.segment(photo, kind="cutout", crop="true")
    assert service.ask("POST", f"/v1/segment?{query}", form(file=photo), {"Content-Type": FORM}).body == expected.body
    for media_type in ("image/png", "image/jpeg; q=1", "application/octet-stream"):
        reply = service.ask("POST", f"/v1/segment?{query}", photo.read_bytes(), {"Content-Type": media_type})
        assert (reply.status, reply.body) == (200, expected.body)
    half = service.ask("POST", "/v1/segment?kind=cutout", form(file=photo, crop="true"), {"Content-Type": FORM})
    assert half.body == expected.body


@pytest.mark.parametrize(
    "query",
    ["knd=cutout", "kind=cut", "kind=mask&kind=mask", "file=car.jpg", "background_file=x&kind=cutout", "kind=", "a=1"],
)
@pytest.mark.parametrize("media_type", [FORM, "image/png"])
def test_other_parameters_are_refused(service: Service, photo: Path, query: str, media_type: str) -> None:
    body = form(file=photo) if media_type == FORM else photo.read_bytes()
    reply = service.ask("POST", f"/v1/segment?{query}", body, {"Content-Type": media_type})
    assert reply.refused == (400, "bad_form")


def test_a_field_is_in_the_query_or_in_the_form(service: Service, photo: Path) -> None:
    reply = service.ask("POST", "/v1/segment?kind=mask", form(file=photo, kind="mask"), {"Content-Type": FORM})
    assert reply.refused == (400, "bad_form")
    assert service.get("/v1/model?kind=mask").refused == (400, "bad_request")


def test_a_photo_as_the_body_obeys_the_limits(bright: Path, photo: Path) -> None:
    with running("-m", bright, "--engine", "onnxruntime", "--max-bytes", 2000) as service:
        headers = {"Content-Type": "image/png"}
        assert service.ask("POST", "/v1/segment", photo.read_bytes(), headers).status == 200
        assert service.ask("POST", "/v1/segment", bytes(2001), headers).refused == (413, "too_large")
        assert service.ask("POST", "/v1/segment", [bytes(2001)], headers).refused == (413, "too_large")
        assert service.ask("POST", "/v1/segment", b"", headers).refused == (422, "unreadable")
        with service.connect() as wire:
            wire.send(head(500).replace(FORM.encode(), b"image/png") + bytes(100))
            service.await_count(2, "carmask_requests_now")
        service.await_count(1, "carmask_clients_gone_total")
        assert service.counted("carmask_upload_bytes") == 0


def test_several_photos_are_answered_as_a_zip_file(service: Service, photo: Path, large_photo: Path) -> None:
    data = photo.read_bytes()
    sent = [("car.png", data), ("x/Car.jpg", data), ("bad.jpg", b"no"), ("ß.gif", data), ("large.png", b"")]
    sent[4] = ("large.png", large_photo.read_bytes())
    before = service.counted("carmask_refusals_total", cause="unreadable")
    reply = service.ask("POST", "/v1/segment?kind=soft", parts(*sent), {"Content-Type": FORM})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
        assert archive.testzip() is None
        results = {name: archive.read(name) for name in archive.namelist()}
    summary = json.loads(results.pop("results.json"))
    alone = service.segment(photo, kind="soft")
    assert results == {
        **dict.fromkeys(("car.png", "Car-2.png", "ß.png"), alone.body),
        "large.png": service.segment(large_photo, kind="soft").body,
    }
    assert [(entry["file"], entry["result"]) for entry in summary] == [
        ("car.png", "car.png"), ("Car.jpg", "Car-2.png"), ("bad.jpg", None), ("ß.gif", "ß.png"),
        ("large.png", "large.png"),
    ]  # fmt: skip
    assert ",".join(map(str, summary[0]["box"])) == alone.headers["x-carmask-box"]
    assert summary[2]["error"]["code"] == "unreadable"
    assert service.counted("carmask_refusals_total", cause="unreadable") == before + 1
    for name in ("carmask_photos_now", "carmask_work_bytes", "carmask_upload_bytes"):
        assert service.counted(name) == 0


def test_several_photos_are_answered_as_multipart(service: Service, photo: Path) -> None:
    body = parts(("a 1.png", photo.read_bytes()), ("b.png", b"no"), kind="cutout", background_file=photo)
    headers = {"Content-Type": FORM, "Accept": "multipart/mixed"}
    reply = service.ask("POST", "/v1/segment", body, headers)
    whole = f"Content-Type: {reply.headers['content-type']}\r\n\r\n".encode() + reply.body
    message = BytesParser(policy=email.policy.HTTP).parsebytes(whole)
    found = {one.get_filename(): one for one in message.iter_parts()}  # type: ignore[attr-defined]
    assert found.keys() == {"a 1.png", "b.png"}
    alone = service.segment(photo, kind="cutout", background_file=photo)
    good, bad = found["a 1.png"], found["b.png"]
    # Not get_payload: that is for mail, and takes line ends for what they are there.
    assert b"\r\n\r\n" + alone.body + b"\r\n--" in reply.body
    assert (good.get_content_type(), good["x-carmask-box"]) == ("image/png", alone.headers["x-carmask-box"])
    assert json.loads(bad.get_payload())["error"]["code"] == "unreadable"


def test_several_photos_cannot_be_one_description(service: Service, photo: Path) -> None:
    body = parts(("a.png", photo.read_bytes()), ("b.png", photo.read_bytes()))
    headers = {"Content-Type": FORM, "Accept": "application/json"}
    assert service.ask("POST", "/v1/segment", body, headers).refused == (406, "not_acceptable")


def test_the_work_of_a_client_that_leaves_its_batch_is_dropped(service: Service, large_photo: Path) -> None:
    gone = service.counted("carmask_clients_gone_total")
    body = parts(*[(f"{number}.png", large_photo.read_bytes()) for number in range(14)], kind="cutout")
    drawn = service.counted("carmask_photos_total", kind="cutout")
    with service.connect() as wire:
        wire.send(head(len(body)) + body)
        service.await_count(4, "carmask_photos_now")
    service.await_count(gone + 1, "carmask_clients_gone_total")
    service.await_count(0, "carmask_photos_now")
    service.await_count(0, "carmask_work_bytes")
    assert service.counted("carmask_photos_total", kind="cutout") < drawn + 14


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/segment", {"POST", "OPTIONS"}),
        ("/v1/model", {"GET", "HEAD", "OPTIONS"}),
        ("/", {"GET", "HEAD", "OPTIONS"}),
        ("/static/main.js", {"GET", "HEAD", "OPTIONS"}),
        ("*", {"GET", "HEAD", "POST", "OPTIONS"}),
    ],
)
def test_options_say_what_is_allowed(service: Service, path: str, allowed: set[str]) -> None:
    with service.connect() as wire:
        reply = wire.send(f"OPTIONS {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).reply()
    assert (reply.status, reply.body) == (204, b"")
    assert set(reply.headers["allow"].split(", ")) == allowed
    if path != "*":
        refused = service.ask("DELETE", path)
        assert refused.refused == (405, "method_not_allowed")
        assert refused.headers["allow"] == reply.headers["allow"]


def test_head_and_options_elsewhere(service: Service) -> None:
    reply = service.ask("HEAD", "/v1/segment")
    assert (reply.status, reply.body, set(reply.headers["allow"].split(", "))) == (405, b"", {"POST", "OPTIONS"})
    assert service.ask("OPTIONS", "/nothing").refused == (404, "not_found")


def test_short_answers_on_a_kept_connection_are_not_held_back(service: Service) -> None:
    """The body would wait 40 ms for the client to acknowledge the head. One quick answer shows that it does not."""
    took_s = []
    with service.connect() as wire:
        for _ in range(20):
            began_s = time.monotonic()
            assert wire.send(b"GET /v1/model HTTP/1.1\r\nHost: x\r\n\r\n").reply().status == 200
            took_s.append(time.monotonic() - began_s)
    # The first answers are acknowledged at once.
    assert min(took_s[10:]) < 0.03, took_s
