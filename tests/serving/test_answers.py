"""Responses of the service: the same bytes as the command line, JSON, headers, and errors."""

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from service_process import BOUNDARY, FORM, Service, form, head, part, running

from bright_photos import Command, save, vehicle
from carmask.imaging.rle import decode_carvana
from carstudio.render import open_session, take_photo


@pytest.fixture(scope="module")
def packaged() -> Iterator[Service]:
    """A service with the weights inside the package."""
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def car(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered car, stored lying on its side: EXIF says how to turn it."""
    image_HWC, _ = take_photo(open_session(0, 2, (400, 600)), 3, 16)
    path = tmp_path_factory.mktemp("car") / "Škoda am Straßenrand.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(image_HWC).copy()).save(path, quality=92, exif=exif)
    return path


@pytest.fixture
def predict(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command("predict", capsys, "--overwrite")


@pytest.mark.parametrize(
    ("fields", "options", "suffix"),
    [
        ({}, (), "png"),
        ({"vehicles": "center", "min_area": "1%", "threshold": 0.9}, ("--vehicles=center", "--min-area=1%"), "png"),
        ({"kind": "soft"}, (), "png"),
        ({"kind": "cutout", "crop": "true"}, ("--crop",), "png"),
        ({"kind": "cutout", "background": "blur", "format": "webp"}, ("--background", "blur"), "webp"),
        ({"kind": "cutout", "background": "#12aa7f", "threshold": "0.25"}, ("--background", "#12aa7f"), "png"),
        ({"kind": "overlay"}, (), "png"),
        ({"kind": "compare", "format": "webp"}, (), "webp"),
        ({"kind": "polygons"}, (), "json"),
        ({"look": "cutout"}, ("--look", "cutout"), "png"),
        ({"look": "showroom"}, ("--look", "showroom"), "jpg"),
        ({"look": "marketplace", "canvas": "300x200"}, ("--look", "marketplace", "--canvas", "300x200"), "jpg"),
    ],
)
def test_the_bytes_are_those_of_the_command_line(
    packaged: Service,
    car: Path,
    predict: Command,
    tmp_path: Path,
    fields: dict[str, object],
    options: tuple[str, ...],
    suffix: str,
) -> None:
    kind = str(fields.get("kind", "cutout" if "look" in fields else "mask"))
    threshold = ("--threshold", fields["threshold"]) if "threshold" in fields else ()
    assert predict(car, tmp_path / f"out.{suffix}", "--kind", kind, *options, *threshold) == 0
    reply = packaged.segment(car, **fields)
    assert reply.status == 200
    assert reply.body == (tmp_path / f"out.{suffix}").read_bytes()
    types = {"json": "application/geo+json", "jpg": "image/jpeg"}
    assert reply.headers["content-type"] == types.get(suffix, f"image/{suffix}")


def test_a_picture_behind_the_vehicle(packaged: Service, car: Path, predict: Command, tmp_path: Path) -> None:
    beach = save(tmp_path / "beach.png", vehicle((90, 400)))
    assert predict(car, tmp_path / "out.png", "--kind", "cutout", "--background", beach) == 0
    reply = packaged.segment(car, kind="cutout", background_file=beach)
    assert reply.body == (tmp_path / "out.png").read_bytes()


def test_a_mask_of_ones_own_replaces_the_network(
    packaged: Service, car: Path, predict: Command, tmp_path: Path
) -> None:
    for kind in ("mask", "soft", "cutout"):
        assert predict(car, tmp_path / f"{kind}.png", "--kind", kind) == 0
    for kind in ("mask", "soft"):
        reply = packaged.segment(car, kind=kind, mask_file=tmp_path / f"{kind}.png")
        assert reply.body == (tmp_path / f"{kind}.png").read_bytes()
    ellipse = tmp_path / "ellipse.png"
    height, width = np.asarray(Image.open(tmp_path / "mask.png")).shape
    y, x = np.mgrid[:height, :width]
    inside_HW = ((x / width - 0.5) / 0.4) ** 2 + ((y / height - 0.5) / 0.3) ** 2 < 1
    Image.fromarray(inside_HW).save(ellipse)
    reply = packaged.segment(car, kind="cutout", mask_file=ellipse)
    assert reply.status == 200, reply.body
    cutout_HW4 = np.asarray(Image.open(io.BytesIO(reply.body)))
    np.testing.assert_array_equal(cutout_HW4[..., 3] == 255, inside_HW)
    told = packaged.segment(car, {"Accept": "application/json"}, mask_file=ellipse).json
    assert told["coverage"] == pytest.approx(inside_HW.mean(), abs=1e-6)
    assert told["expected_dice"] is None
    Image.fromarray(inside_HW[1:]).save(ellipse)
    reply = packaged.segment(car, mask_file=ellipse)
    assert (reply.status, reply.json["error"]["code"]) == (422, "cannot_draw")


def test_a_photo_has_the_same_result_alone_and_among_others(packaged: Service, car: Path) -> None:
    """Requests that come together share a batch; the last bit of the probability must not tell."""
    alone = packaged.segment(car, kind="soft").body
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: packaged.segment(car, kind="soft").body, range(16))) == {alone}
    assert packaged.counted("carmask_batch_photos_bucket", le="1.0") < packaged.counted("carmask_batch_photos_count")


def test_what_was_found_as_json_and_in_the_headers(packaged: Service, car: Path) -> None:
    reply = packaged.segment(car, {"Accept": "application/json"}, threshold="0.3")
    found = reply.json
    mask_HW = decode_carvana(found["rle"], tuple(found["size"]))
    with Image.open(io.BytesIO(packaged.segment(car, threshold="0.3").body)) as mask:
        assert np.array_equal(mask_HW, np.asarray(mask))
    rows, columns = np.nonzero(mask_HW)
    assert found["box"] == [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    assert found["coverage"] == pytest.approx(mask_HW.mean(), abs=1e-6)
    assert (found["size"], found["threshold"], found["model"]) == ([400, 600], 0.3, "general")
    assert found["request_id"] == reply.headers["x-request-id"]
    assert reply.headers["x-carmask-box"] == ",".join(map(str, found["box"]))
    assert reply.headers["x-carmask-size"] == "400,600"
    assert float(reply.headers["x-carmask-coverage"]) == found["coverage"]
    assert 0 < found["expected_dice"] < 1
    assert float(reply.headers["x-carmask-expected-dice"]) == found["expected_dice"]
    assert float(reply.headers["x-carmask-seconds"]) > 0


def test_a_photo_without_a_vehicle(service: Service, tmp_path: Path) -> None:
    empty = save(tmp_path / "empty.png", np.zeros((60, 90), dtype=bool))
    reply = service.segment(empty)
    assert (reply.status, reply.headers["x-carmask-box"], reply.headers["x-carmask-coverage"]) == (
        200,
        "none",
        "0.000000",
    )
    found = service.segment(empty, {"Accept": "application/json"}).json
    assert (found["box"], found["coverage"], found["rle"]) == (None, 0.0, "")
    assert (found["expected_dice"], reply.headers["x-carmask-expected-dice"]) == (None, "none")
    assert service.segment(empty, kind="cutout", crop="true").status == 200
    assert service.counted("carmask_photos_without_vehicle_total") >= 3


@pytest.mark.parametrize(
    ("accept", "fields", "answered"),
    [
        ("image/webp", {"kind": "cutout"}, "image/webp"),
        ("image/*", {"kind": "cutout"}, "image/png"),
        ("image/webp,*/*;q=0.8", {"kind": "mask"}, "image/png"),
        ("application/json", {"kind": "polygons"}, "application/json"),
        ("*/*", {"kind": "polygons"}, "application/geo+json"),
    ],
)
def test_the_header_accept_chooses(
    service: Service, photo: Path, accept: str, fields: dict[str, str], answered: str
) -> None:
    assert service.segment(photo, {"Accept": accept}, **fields).headers["content-type"] == answered


@pytest.mark.parametrize(
    ("accept", "fields"), [("text/html", {}), ("image/webp", {}), ("image/png", {"kind": "cutout", "format": "webp"})]
)
def test_406_where_there_is_no_such_form(service: Service, photo: Path, accept: str, fields: dict[str, str]) -> None:
    assert service.segment(photo, {"Accept": accept}, **fields).refused == (406, "not_acceptable")


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "maks"},
        {"kind": "labelme"},
        {"threshold": "1"},
        {"threshold": "0"},
        {"threshold": "nan"},
        {"crop": "perhaps", "kind": "cutout"},
        {"crop": "2", "kind": "cutout"},
        {"crop": "true"},
        {"crop": "false"},
        {"background": "white", "kind": "overlay"},
        {"background": "white", "background_file": b"x", "kind": "cutout"},
        {"background": "whit", "kind": "cutout"},
        {"background": "/etc/passwd", "kind": "cutout"},
        {"background": "http://127.0.0.1:1/a.png", "kind": "cutout"},
        {"background": "#12", "kind": "cutout"},
        {"background_file": b"x"},
        {"background_file": "x", "kind": "cutout"},
        {"min_area": "much"},
        {"min_area": "9" * 900},
        {"format": "webp"},
        {"format": "png", "kind": "polygons"},
        {"format": "jpg", "kind": "cutout"},
        {"kind": b"mask"},
        {"url": "http://127.0.0.1:1/a.png"},
    ],
)
def test_400_for_an_invalid_field(service: Service, photo: Path, fields: dict[str, object]) -> None:
    assert service.segment(photo, **fields).refused == (400, "bad_form")


def test_a_form_is_taken_as_a_browser_sends_it(service: Service, photo: Path) -> None:
    """With text fields and file inputs that were left as they are, and check boxes."""
    left = dict.fromkeys(("threshold", "min_area", "format", "background", "vehicles"), "")
    plain = service.segment(photo, kind="cutout", crop="true")
    for crop in ("on", "1", "yes", "True"):
        assert service.segment(photo, kind="cutout", crop=crop, **left).body == plain.body
    untouched = form(file=photo, kind="cutout", crop="on", **left).replace(
        b"--" + BOUNDARY,
        b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="background_file"; filename=""\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\r\n--" + BOUNDARY,
        1,
    )
    assert service.ask("POST", "/v1/segment", untouched, {"Content-Type": FORM}).body == plain.body
    for crop in ("off", "0", "no"):
        assert service.segment(photo, kind="cutout", crop=crop).body == service.segment(photo, kind="cutout").body
    nothing = untouched.replace(b'name="file"', b'name="ignored"').replace(b'name="background_file"', b'name="file"')
    assert service.ask("POST", "/v1/segment", nothing, {"Content-Type": FORM}).refused == (400, "bad_form")


def test_the_examples_show_the_path_that_a_proxy_adds(service: Service) -> None:
    for prefix, path in (("/cars", "/cars/v1"), ("/a/b-1/", "/a/b-1/v1"), ("", "/v1")):
        docs = service.get("/docs", **{"X-Forwarded-Prefix": prefix}).body.decode()
        assert f"curl -F file=@car.jpg {service.address}{path}/segment" in docs
    for prefix in ("/$(id)", "//evil.example.org", "/a b", "x", '/"><script>'):
        docs = service.get("/docs", **{"X-Forwarded-Prefix": prefix}).body.decode()
        assert f"curl -F file=@car.jpg {service.address}/v1/segment" in docs


def test_the_message_names_the_field_and_the_nearest_one(service: Service, photo: Path) -> None:
    wrong = service.segment(photo, kind="maks").json["error"]["message"]
    assert "kind" in wrong
    assert "maks" in wrong
    assert "did you mean threshold?" in service.segment(photo, treshold="0.5").json["error"]["message"]


def test_a_form_without_a_photo(service: Service) -> None:
    assert service.segment(None, kind="mask").refused == (400, "bad_form")
    without_name = b"".join([part("file", "not a file"), b"--", BOUNDARY, b"--\r\n"])
    assert service.ask("POST", "/v1/segment", without_name, {"Content-Type": FORM}).refused == (400, "bad_form")


def test_422_for_what_is_no_photo(service: Service, photo: Path) -> None:
    reply = service.ask("POST", "/v1/segment", form(file=b"%PDF-1.7 ..."), {"Content-Type": FORM})
    assert reply.refused == (422, "unreadable")
    assert "photo.jpg" in reply.json["error"]["message"]
    cut = service.segment(photo.read_bytes()[:-40])
    assert cut.refused == (422, "unreadable")
    backdrop = service.segment(photo, kind="cutout", background_file=b"nonsense")
    assert backdrop.refused == (422, "unreadable")


def test_content_is_judged_by_its_bytes_not_by_its_name(service: Service, photo: Path) -> None:
    named = b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n'
    body = named + b"Content-Type: application/pdf\r\n\r\n" + photo.read_bytes() + b"\r\n--" + BOUNDARY + b"--\r\n"
    assert service.ask("POST", "/v1/segment", body, {"Content-Type": FORM}).status == 200


def test_a_result_that_cannot_be_encoded(service: Service, tmp_path: Path) -> None:
    wide = save(tmp_path / "wide.png", np.ones((2, 17_000), dtype=bool))
    reply = service.segment(wide, kind="cutout", format="webp")
    assert reply.refused == (422, "cannot_draw")
    assert service.segment(wide, kind="cutout").status == 200


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1/nothing", "/static/nothing.js", "/static/../settings.py", "//", "/%00"]
)
def test_404(service: Service, path: str) -> None:
    assert service.get(path).refused == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/segment", "POST"),
        ("PUT", "/v1/segment", "POST"),
        ("POST", "/healthz", "GET"),
        ("DELETE", "/", "GET"),
    ],
)
def test_405_says_what_is_allowed(service: Service, method: str, path: str, allowed: str) -> None:
    reply = service.ask(method, path)
    assert reply.refused == (405, "method_not_allowed")
    assert allowed in reply.headers["allow"]


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/json", "imagejpeg"])
def test_415(service: Service, photo: Path, kind: str) -> None:
    reply = service.ask("POST", "/v1/segment", photo.read_bytes(), {"Content-Type": kind})
    assert reply.refused == (415, "unsupported_media_type")


def test_every_answer_has_an_id_and_is_safe_in_a_browser(service: Service, photo: Path) -> None:
    replies = [service.get(path) for path in ("/", "/docs", "/v1/model", "/nothing", "/metrics", "/static/main.js")]
    replies += [service.segment(photo), service.segment(b"nonsense")]
    with service.connect() as wire:
        replies.append(wire.send(b"NONSENSE\r\n\r\n").reply())
    for reply in replies:
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;")
        assert not {"'unsafe-inline'", "'unsafe-eval'", "*"} & set(policy.replace(";", " ").split())
        assert not [name for name in reply.headers if name.startswith("access-control")]
        assert "server" not in reply.headers
    ids = [reply.headers["x-request-id"] for reply in replies]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(("given", "is_kept"), [("trace-7.a_B", True), ("a b", False), ("x" * 65, False), ("é", False)])
def test_a_proxy_may_give_requests_their_ids(service: Service, given: str, is_kept: bool) -> None:
    with service.connect() as wire:
        request = b"GET /nothing HTTP/1.1\r\nHost: x\r\nX-Request-Id: " + given.encode() + b"\r\n\r\n"
        reply = wire.send(request).reply()
    assert reply.code == "not_found"
    assert (reply.headers["x-request-id"] == given) is is_kept


def test_the_page_and_the_docs_load_nothing_from_elsewhere(service: Service) -> None:
    class Links(HTMLParser):
        def __init__(self, html: bytes) -> None:
            super().__init__()
            self.found: list[str] = []
            self.feed(html.decode())

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [value for name, value in attrs if name in ("src", "href") and value]
            assert tag != "style"
            assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]

    for path in ("/", "/docs"):
        page = service.get(path)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        links = Links(page.body).found
        assert links
        for link in links:
            if not link.startswith(("#", "data:")):
                assert service.get("/" + link.removeprefix("./")).status == 200, link


def test_the_docs_name_every_address_field_and_status(service: Service) -> None:
    docs = service.get("/docs").body.decode()
    description = service.get("/openapi.json").json
    for path, methods in description["paths"].items():
        assert path in docs
        for operation in methods.values():
            assert all(f"<td>{status}</td>" in docs for status in operation["responses"])
    for field in (
        "file",
        "kind",
        "threshold",
        "background",
        "background_file",
        "mask_file",
        "crop",
        "vehicles",
        "min_area",
        "format",
    ):
        assert f"<td>{field}</td>" in docs


def test_assets_are_not_sent_twice(service: Service) -> None:
    first = service.get("/")
    again = service.get("/", **{"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


def test_head_is_get_without_the_body(service: Service) -> None:
    for path in ("/", "/healthz", "/v1/model"):
        reply = service.ask("HEAD", path)
        assert (reply.status, reply.body) == (200, b"")
        assert int(reply.headers["content-length"]) > 0
    assert service.ask("HEAD", "/nothing").status == 404


def test_health_and_the_model(packaged: Service) -> None:
    assert packaged.get("/healthz").json == {"status": "ok"}
    assert packaged.get("/readyz").json == {"status": "ready"}
    model = packaged.get("/v1/model").json
    assert (model["name"], model["threshold"]) == ("general", 0.5)
    assert model["limits"] == {"max_bytes": 32_000_000, "max_pixels": 50_000_000}
    assert json.dumps(model)


def test_metrics_count_what_happened(service: Service, photo: Path) -> None:
    def counts() -> tuple[float, ...]:
        return (
            service.counted("carmask_requests_total", address="/v1/segment", status="200"),
            service.counted("carmask_requests_total", address="other", status="404"),
            service.counted("carmask_refusals_total", cause="unreadable"),
            service.counted("carmask_photos_total", kind="soft"),
            service.counted("carmask_batch_photos_sum"),
            service.counted("carmask_stage_seconds_count", stage="decode"),
            service.counted("carmask_request_seconds_count", address="/v1/segment"),
        )

    before = counts()
    service.segment(photo, kind="soft")
    service.segment(b"nonsense")
    service.get("/a/b/c")
    assert tuple(now - then for now, then in zip(counts(), before, strict=True)) == (1, 1, 1, 1, 1, 1, 2)
    for name in ("carmask_photos_now", "carmask_queue_photos", "carmask_upload_bytes", "carmask_work_bytes"):
        assert service.counted(name) == 0
    assert service.counted("carmask_requests_now") == 1, "the question itself"


def test_pipelined_requests_are_answered_in_order(service: Service, photo: Path) -> None:
    body = form(file=photo, kind="polygons")
    with service.connect() as wire:
        wire.send(head(len(body)) + body + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nNONSENSE\r\n\r\n")
        replies = [wire.reply() for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 400]
    assert replies[0].headers["content-type"] == "application/geo+json"
