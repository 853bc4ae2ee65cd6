"""The application in this process: what happens between requests that meet at one moment."""

import asyncio
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from service_process import FORM, ask_app, form, part_of_file
from starlette.datastructures import UploadFile

from carmask.imaging.look import BadLook
from carmask.runtime.engine import EngineError
from carmask.runtime.options import RunOptions
from carmask.segmenter import Segmenter
from carmask.serving.app import build_app
from carmask.serving.errors import ServiceError
from carmask.serving.form import SegmentForm
from carmask.serving.memory import MemoryBudget
from carmask.serving.metrics import ServiceMetrics
from carmask.serving.settings import ServiceLimits
from carmask.serving.uploads import UploadedFile
from carmask.serving.worker import PhotoTask, SegmentationWorker
from hostile_parts import png_from_chunks


@pytest.fixture
def worker(bright: Path) -> Iterator[SegmentationWorker]:
    """One that takes one photo at a time."""
    segmenter = Segmenter.load(bright, RunOptions("onnxruntime", "cpu"))
    started = SegmentationWorker(segmenter, ServiceLimits(queue=1, workers=1), ServiceMetrics())
    started.accept_photos()
    yield started
    started.close()


def test_a_batch_that_finds_the_queue_full_is_refused_before_its_answer_begins(
    worker: SegmentationWorker, photo: Path
) -> None:
    """Both were let in when they began to arrive, and the first took the last place while the second arrived."""
    metrics = ServiceMetrics()
    app = build_app(worker, metrics)
    body = part_of_file("file", "a.png", photo.read_bytes()) + form(file=photo)
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/segment",
        "raw_path": b"/v1/segment",
        "query_string": b"",
        "headers": [(b"content-type", FORM.encode())],
        "scheme": "http",
    }

    async def ask(*, is_late: bool) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        pieces = [body]

        async def receive() -> dict[str, Any]:
            while is_late and b"carmask_photos_now 1.0" not in worker._metrics.text():
                await asyncio.sleep(0)
            if not pieces:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": pieces.pop(), "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await app(dict(scope), receive, send)
        return sent

    async def ask_both() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        return await asyncio.gather(ask(is_late=True), ask(is_late=False))

    late, first = asyncio.run(ask_both())
    assert first[0]["status"] == 200
    assert late[0]["status"] == 503
    assert b"queue_full" in late[1]["body"]


def test_a_mask_of_ones_own_does_not_say_that_the_network_is_well(worker: SegmentationWorker, photo: Path) -> None:
    file = UploadedFile("car.png", photo.read_bytes())

    def segment(mask: UploadedFile | None) -> None:
        form = SegmentForm(file=[UploadFile(io.BytesIO(file.data))])
        response = asyncio.run(worker.segment(PhotoTask(form, file, None, mask, "image/png", "r-1")))
        response.release()

    worker.problem = "the network fails"
    segment(file)
    assert worker.problem == "the network fails"
    segment(None)
    assert worker.problem is None


def test_a_photo_that_takes_more_memory_than_there_is_is_refused(bright: Path) -> None:
    numbers_HWC = np.full((100, 240, 3), 0.5)
    data = {name: cv2.imencode(".tif", numbers_HWC.astype(name))[1].tobytes() for name in ("float32", "float64")}
    segmenter = Segmenter.load(bright, RunOptions("onnxruntime", "cpu"))
    limits = ServiceLimits(max_pixels=24_000, work_mb=1, workers=1)

    def segment(name: str) -> None:
        file = UploadedFile(f"{name}.tif", data[name])
        form = SegmentForm(file=[UploadFile(io.BytesIO(file.data))])
        with closing(SegmentationWorker(segmenter, limits, ServiceMetrics())) as worker:
            worker.accept_photos()
            asyncio.run(worker.segment(PhotoTask(form, file, None, None, "image/png", "r-1"))).release()

    segment("float32")
    with pytest.raises(ServiceError, match=r"float64\.tif") as refused:
        segment("float64")
    assert refused.value.status_code == 422


def test_a_result_that_takes_more_memory_than_there_is_is_refused(bright: Path) -> None:
    """An AVIF of twice the photo's size does; a PNG of it does not."""
    picture = io.BytesIO()
    Image.new("RGB", (240, 100), "gray").save(picture, "JPEG")
    file = UploadedFile("car.jpg", picture.getvalue())
    segmenter = Segmenter.load(bright, RunOptions("onnxruntime", "cpu"))
    limits = ServiceLimits(max_pixels=24_000, work_mb=1, workers=1)

    def compare(media_type: str) -> None:
        form = SegmentForm(file=[UploadFile(io.BytesIO(file.data))], kind="compare")
        with closing(SegmentationWorker(segmenter, limits, ServiceMetrics())) as worker:
            worker.accept_photos()
            asyncio.run(worker.segment(PhotoTask(form, file, None, None, media_type, "r-1"))).release()

    compare("image/png")
    with pytest.raises(ServiceError, match=r"car\.jpg") as refused:
        compare("image/avif")
    assert refused.value.status_code == 422


def test_a_background_is_not_decoded_before_its_memory_is_reserved(
    bright: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one whose metadata lies behind its pixels, which has to be decoded before its displayed size is known."""
    photo = io.BytesIO()
    Image.new("RGB", (60, 40), "gray").save(photo, "JPEG")
    header, rows = struct.pack(">IIBBBBB", 60, 40, 8, 0, 0, 0, 0), bytes(61 * 40)
    background = png_from_chunks((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"tEXt", b"Comment\0behind"))
    steps: list[str] = []

    def noted(step: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def note(*given: Any) -> Any:
            steps.append(step)
            return act(*given)

        return note

    monkeypatch.setattr(MemoryBudget, "reserve", noted("reserve", MemoryBudget.reserve))
    monkeypatch.setattr(PngImageFile, "load_prepare", noted("decode", PngImageFile.load_prepare))
    car, beach = UploadedFile("car.jpg", photo.getvalue()), UploadedFile("beach.png", background)
    form = SegmentForm(file=[UploadFile(photo)], kind="cutout", background_file=UploadFile(io.BytesIO(background)))
    segmenter = Segmenter.load(bright, RunOptions("onnxruntime", "cpu"))
    with closing(SegmentationWorker(segmenter, ServiceLimits(workers=1), ServiceMetrics())) as worker:
        worker.accept_photos()
        asyncio.run(worker.segment(PhotoTask(form, car, beach, None, "image/png", "r-1"))).release()
    assert steps == ["reserve", "reserve", "decode"], "the photo, a JPEG; the result; the background"


def test_a_canvas_that_is_too_large_is_named_also_where_a_look_says_it() -> None:
    form = SegmentForm(file=[UploadFile(io.BytesIO())], look="showroom")
    with pytest.raises(BadLook, match="1600x1200"):
        form.check_canvas(1_000_000)


def test_a_network_that_runs_again_is_ready_without_a_photo(
    worker: SegmentationWorker, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = build_app(worker, ServiceMetrics())
    engine = worker.segmenter.members[0].engine
    run, is_broken = engine.run, True

    def fail_at_first(images_NHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        if is_broken:
            raise EngineError("out of memory")
        return run(images_NHWC)

    monkeypatch.setattr(engine, "run", fail_at_first)
    file = UploadedFile("car.png", photo.read_bytes())
    form = SegmentForm(file=[UploadFile(io.BytesIO(file.data))])
    task = PhotoTask(form, file, None, None, "image/png", "r-1")
    with pytest.raises(EngineError):
        asyncio.run(worker.segment(task))
    assert ask_app(app, "GET", "/readyz")[0] == 503
    is_broken = False
    assert ask_app(app, "GET", "/readyz")[0] == 200
    assert worker.problem is None
