"""The service from its start to its end: signals, clients that leave, tokens, what it touches, what it says."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from service_process import Service, ask_app, form, head, running

from bright_onnx import write_bright_onnx
from bright_photos import Command, save, vehicle
from carmask.runtime.locate import packaged_models
from carmask.runtime.options import RunOptions
from carmask.segmenter import Segmenter
from carmask.serving.app import build_app
from carmask.serving.metrics import ServiceMetrics
from carmask.serving.server import SelfTestFailed, self_test
from carmask.serving.settings import ServiceLimits
from carmask.serving.worker import SegmentationWorker

ON_CPU = ("--engine", "onnxruntime", "--device", "cpu")
TOKEN = "a token: of signs & spaces"  # noqa: S105 - of the tests


@pytest.fixture(scope="module")
def watched(bright: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    """A service with a token and one of each thread, in a folder of its own for temporary files, and its log."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "tmp").mkdir()
    environment = {"TMPDIR": str(folder / "tmp"), "CARMASK_TOKEN": TOKEN}
    options = ("-m", bright, *ON_CPU, "--workers", 1, "--batch-size", 1, "--cors", "https://cars.example.org")
    options += ("--root-path", "/cars")
    with running(*options, environment=environment, errors=folder / "log") as started:
        yield started, folder


def with_token(**headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}", **headers}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_what_it_holds_is_finished(
    bright: Path, large_photo: Path, photo: Path, number: signal.Signals
) -> None:
    with running("-m", bright, *ON_CPU, "--workers", 1, "--shutdown-s", 100) as service, ThreadPoolExecutor(3) as pool:
        held = [pool.submit(service.segment, large_photo, kind="cutout") for _ in range(2)]
        service.await_count(2, "carmask_photos_now")
        upload = service.connect()
        body = form(file=photo)
        upload.send(head(len(body)) + body[:-5])
        service.await_count(4, "carmask_requests_now")
        idle = service.connect()
        status = pool.submit(service.stop, number)
        assert idle.is_closed(), "who asks for nothing is sent away"
        with pytest.raises(OSError, match="refused"):
            service.get("/healthz")
        assert upload.send(body[-5:]).reply().status == 200, "what is arriving is taken"
        assert [one.result().status for one in held] == [200, 200]
        assert status.result() == (0 if number == signal.SIGTERM else 130)


INTERRUPTED = """
import signal, sys
from carmask.cli import main
from carmask.serving import server

build_app = server.build_app


def interrupted(*arguments, **options):
    signal.raise_signal(signal.SIGINT)
    return build_app(*arguments, **options)


server.build_app = interrupted
main(["serve", "--port", "0", *sys.argv[1:]])
"""


def test_a_signal_before_it_listens_ends_it_too(bright: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, "-m", str(bright), *ON_CPU]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 130, done.stderr
    assert "http://" not in done.stdout, "it never accepted photos"


def test_what_is_not_finished_in_time_is_dropped(bright: Path, photo: Path) -> None:
    with running("-m", bright, *ON_CPU, "--shutdown-s", 1) as service:
        body = form(file=photo)
        upload = service.connect()
        upload.send(head(len(body)) + body[:-5])
        service.await_count(2, "carmask_requests_now")
        started_s = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - started_s < 30
        assert upload.reply().refused == (503, "stopping")


def test_the_work_of_a_client_that_left_is_dropped(watched: tuple[Service, Path], large_photo: Path) -> None:
    service, _ = watched
    gone = service.counted("carmask_clients_gone_total")
    drawn = service.counted("carmask_photos_total")
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(service.segment, large_photo, with_token(), kind="cutout", format="webp")
        service.await_count(1, "carmask_photos_now")
        body = form(file=large_photo, kind="cutout")
        leaving = [service.connect().send(head(len(body), f"Authorization: Bearer {TOKEN}") + body) for _ in range(3)]
        service.await_count(4, "carmask_photos_now")
        for wire in leaving:
            wire.close()
        service.await_count(gone + 3, "carmask_clients_gone_total")
        assert held.result().status == 200
    service.await_count(0, "carmask_photos_now")
    assert service.counted("carmask_photos_total") <= drawn + 2, "one of them may have been begun"
    service.await_count(0, "carmask_work_bytes")


def test_a_client_that_leaves_while_it_sends(watched: tuple[Service, Path], photo: Path) -> None:
    service, folder = watched
    gone = service.counted("carmask_clients_gone_total")
    body = form(file=photo)
    with service.connect() as wire:
        wire.send(head(len(body), f"Authorization: Bearer {TOKEN}") + body[:-9])
        service.await_count(2, "carmask_requests_now")
    service.await_count(gone + 1, "carmask_clients_gone_total")
    service.await_count(0, "carmask_upload_bytes")
    assert "Traceback" not in (folder / "log").read_text()


def test_nothing_is_written_to_disk(watched: tuple[Service, Path], tmp_path: Path) -> None:
    """Not even a part of a form that is larger than Starlette's own reader keeps in memory."""
    service, folder = watched

    def open_files() -> set[str]:
        found = set()
        for entry in Path(f"/proc/{service.process.pid}/fd").iterdir():
            # Some are open for a moment, and closed between the listing and the look.
            with suppress(FileNotFoundError):
                found.add(str(entry.readlink()))
        return {target for target in found if target[0] == "/" and not target.startswith(("/dev/", "/proc/"))}

    noise = save(tmp_path / "noise.png", compress_level=0, mask_HW=vehicle((1500, 2000)))
    body = form(file=noise, background_file=noise, kind="cutout", format="webp")
    assert len(body) > 15_000_000
    before = open_files()
    with service.connect() as wire:
        wire.send(head(len(body), f"Authorization: Bearer {TOKEN}") + body[:-5])
        service.await_count(len(body) - 5, "carmask_upload_bytes")
        assert open_files() == before
        wire.send(body[-5:])
        service.await_count(1, "carmask_photos_now")
        assert open_files() == before
        assert wire.reply().status == 200
    assert open_files() == before
    assert list((folder / "tmp").iterdir()) == []


def test_a_token(watched: tuple[Service, Path], photo: Path) -> None:
    service, folder = watched
    for headers in (
        {},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer \xe9"},
    ):
        for reply in (service.segment(photo, headers), service.get("/v1/model", **headers)):
            assert reply.refused == (401, "unauthorized")
            assert reply.headers["www-authenticate"] == "Bearer"
    assert service.segment(photo, with_token()).status == 200
    assert service.get("/v1/model", **with_token()).status == 200
    for path in ("/", "/static/main.js", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics"):
        assert service.get(path).status == 200, "the page itself asks for the token"
    described = service.get("/openapi.json").json
    assert "401" in described["paths"]["/v1/segment"]["post"]["responses"]
    assert described["paths"]["/v1/segment"]["post"]["security"]
    command = Path(f"/proc/{service.process.pid}/cmdline").read_bytes().decode()
    assert TOKEN not in command
    assert TOKEN not in (folder / "log").read_text()


# What pages send, with the libraries that trace requests.
SENT = "authorization, x-request-id, traceparent, tracestate, baggage, sentry-trace"


def test_pages_of_named_sites_alone_may_use_it(watched: tuple[Service, Path], service: Service, photo: Path) -> None:
    open_, _ = watched
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": SENT}
    for origin, is_allowed in (("https://cars.example.org", True), ("https://evil.example.org", False)):
        told = open_.segment(photo, with_token(Origin=origin)).headers
        assert (told.get("access-control-allow-origin") == origin) is is_allowed
        preflight = open_.ask("OPTIONS", "/v1/segment", headers={"Origin": origin, **asked})
        assert (preflight.headers.get("access-control-allow-origin") == origin) is is_allowed
        assert (preflight.status == 200) is is_allowed
    odd = {**asked, "Access-Control-Request-Headers": "x-other", "Origin": "https://cars.example.org"}
    assert open_.ask("OPTIONS", "/v1/segment", headers=odd).status == 400
    assert (
        "x-carmask-box"
        in open_.segment(photo, with_token(Origin="https://cars.example.org"))
        .headers["access-control-expose-headers"]
        .lower()
    )
    assert f"{open_.address}/cars/v1/segment" in open_.get("/docs").body.decode()
    assert open_.get("/openapi.json").json["servers"] == [{"url": "/cars"}]
    refused = open_.segment(photo, {"Origin": "https://cars.example.org"})
    assert refused.headers["access-control-allow-origin"] == "https://cars.example.org", "its page sees why"
    told = service.segment(photo, {"Origin": "https://cars.example.org"}).headers
    assert not [name for name in told if name.startswith("access-control")]
    preflight = service.ask("OPTIONS", "/v1/segment", headers={"Origin": "x", **asked})
    assert not [name for name in preflight.headers if name.startswith("access-control")]


def test_the_log_has_a_line_for_each_answer(watched: tuple[Service, Path], photo: Path) -> None:
    service, folder = watched
    reply = service.segment(photo, with_token())
    with service.connect() as wire:
        wire.send(b"GET /a%0Ab?password=1 HTTP/1.1\r\nHost: x\r\n\r\n").reply()
    log = folder / "log"
    while "/a%0Ab" not in log.read_text():
        time.sleep(0.01)
    lines = log.read_text().splitlines()
    assert all(re.fullmatch(r"\d{4}-\S+ 127\.0\.0\.1 [A-Z]+ /\S* \d+ \d+ ms \S+", line) for line in lines), lines
    (line,) = [line for line in lines if reply.headers["x-request-id"] in line]
    assert " POST /v1/segment 200 " in line
    assert "GET /a%0Ab 404" in lines[-1]
    assert not [line for line in lines if "password" in line]


def test_nothing_heavy_is_loaded(service: Service) -> None:
    """The weights inside the package, and any exported network, run without PyTorch."""
    maps = Path(f"/proc/{service.process.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "libtorch" not in maps


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str], bright: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        Command("serve", capsys).assert_refused("-m", bright, *ON_CPU, "--port", port, naming=(str(port), "--port"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--work-mb", "100"), "--work-mb"),
        (("--uploads-mb", "31"), "--uploads-mb"),
        (("--max-bytes", "5"), "--max-bytes"),
        (("--token-file", "nowhere"), "nowhere"),
        (("--host", "300.1.1.1"), "300.1.1.1"),
        (("--host", "cars..example.org"), "cars..example.org"),
        (("-m", "nowhere.onnx"), "nowhere.onnx"),
        (("--workers", "0"), "--workers"),
        (("--cors", "https://cars.example.org/"), "--cors"),
        (("--root-path", "cars"), "--root-path"),
        (("--port", "70000"), "--port 70000"),
        (("everywhere",), "everywhere"),
        (("--port", "-1"), "--port -1"),
    ],
)
def test_a_wrong_option_is_named(capsys: pytest.CaptureFixture[str], options: tuple[str, ...], named: str) -> None:
    anywhere = () if "--port" in options else ("--port", "0")
    Command("serve", capsys).assert_refused(*options, *anywhere, naming=(named,))


@pytest.mark.parametrize("content", ["", " \n", "two\nlines", "umlaut ä"])
def test_a_token_file_without_a_token(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    Command("serve", capsys).assert_refused("--token-file", tmp_path / "token", naming=(str(tmp_path / "token"),))


def test_a_network_that_finds_no_probabilities(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    broken = write_bright_onnx(tmp_path / "broken.onnx", slope=float("nan"))
    Command("serve", capsys).assert_refused("-m", broken, *ON_CPU, "--port", 0, naming=("bright",))


def test_packaged_weights_that_find_no_cars(bright: Path) -> None:
    """A damaged installation: what runs as the packaged network is another one."""
    segmenter = Segmenter.load(bright, RunOptions("onnxruntime", "cpu"))
    members = [replace(member, place=packaged_models()["fast"]) for member in segmenter.members]
    worker = SegmentationWorker(Segmenter(members), ServiceLimits(), ServiceMetrics())
    with pytest.raises(SelfTestFailed):
        asyncio.run(self_test(worker))
    worker.close()


def test_an_extreme_threshold_is_no_fault_of_the_networks() -> None:
    segmenter = Segmenter.load("fast", RunOptions("onnxruntime", "cpu"), threshold=1 - 1e-9)
    worker = SegmentationWorker(segmenter, ServiceLimits(), ServiceMetrics())
    asyncio.run(self_test(worker))
    worker.close()


def test_what_is_not_installed_is_named() -> None:
    program = "import sys; sys.modules['uvicorn'] = None; from carmask.cli import main; main(['serve'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "carmask[serve]" in done.stderr


def test_before_the_self_test_nothing_is_cut_out(bright: Path) -> None:
    metrics = ServiceMetrics()
    segmenter = Segmenter.load(bright, RunOptions("onnxruntime", "cpu"))
    worker = SegmentationWorker(segmenter, ServiceLimits(), metrics)
    app = build_app(worker, metrics)
    assert ask_app(app, "GET", "/healthz")[0] == 200
    for method, path in (("GET", "/readyz"), ("POST", "/v1/segment")):
        status, headers, body = ask_app(app, method, path)
        assert (status, json.loads(body)["error"]["code"]) == (503, "not_ready")
        assert int(headers["retry-after"]) >= 1
    worker.accept_photos()
    assert ask_app(app, "GET", "/readyz")[0] == 200
    worker.close()
