"""What the page saves, in real Chromium: the same bytes as `carmask predict` writes."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bright_photos import SIZE_HW, Command, save, vehicle
from carstudio import render_dataset

pytest.importorskip("playwright.sync_api", reason="the page is not tested: no Playwright (pip install playwright)")
from page_browser import Visit, Visitor, expect
from playwright.sync_api import Browser
from service_process import running

pytest_plugins = ["page_fixtures"]


def test_downloads_are_what_the_command_line_writes(visit: Visitor, predict: Command, tmp_path: Path) -> None:
    photo = save(tmp_path / "Škoda.rot.jpg", quality=92)
    here = visit()
    here.add(photo)
    card = here.await_done(photo.name)
    cutout, mask = (card.get_by_role("button", name=f"Download {kind}") for kind in ("cut-out", "mask"))

    def command_line(*options: str) -> bytes:
        assert predict(photo, tmp_path / "out.png", "--overwrite", *options) == 0
        return (tmp_path / "out.png").read_bytes()

    assert here.download(mask) == ("Škoda.rot_mask.png", command_line())
    assert here.download(cutout) == ("Škoda.rot_cutout.png", command_line("--kind", "cutout"))
    here.slide(card, 29)
    assert here.download(mask)[1] == command_line("--threshold", "0.29")
    for choice, background in (("White", "white"), ("Blurred", "blur")):
        here.page.get_by_role("radio", name=choice).check()
        expected = command_line("--kind", "cutout", "--threshold", "0.29", "--background", background)
        assert here.download(cutout)[1] == expected
    card.get_by_role("button", name="Reset threshold").click()
    here.page.get_by_label("Background color").fill("#12aa7f")
    assert here.download(cutout)[1] == command_line("--kind", "cutout", "--background", "#12aa7f")
    beach = save(tmp_path / "beach.png", np.eye(64, 90, dtype=bool))
    with here.page.expect_file_chooser() as chooser:
        here.page.get_by_role("button", name="Choose picture").click()
    chooser.value.set_files(beach)
    expect(here.page.get_by_role("radio", name="Own picture")).to_be_checked()
    assert here.download(cutout)[1] == command_line("--kind", "cutout", "--background", str(beach))


def test_the_zip_holds_everything(visit: Visitor, predict: Command, tmp_path: Path) -> None:
    photos = [
        save(tmp_path / "a" / "car.png"),
        save(tmp_path / "b" / "CAR.jpg", vehicle((90, 150))),
        save(tmp_path / "Straße 1.png", np.zeros(SIZE_HW, dtype=bool)),
    ]
    here = visit()
    broken = tmp_path / "broken.png"
    broken.write_bytes(photos[0].read_bytes()[:200])
    here.add(*photos, broken)
    expect(here.page.get_by_role("status")).to_contain_text("3 of 4 photos done")
    here.page.get_by_role("radio", name="White").check()
    here.slide(here.await_done("CAR.jpg"), 62)
    name, data = here.download(here.page.get_by_role("button", name="Download all as zip"))
    assert name == "carmask.zip"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        found = {info.filename: archive.read(info) for info in archive.infolist()}
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    assert found.pop("no_vehicle.txt").decode() == "Straße 1.png\n"
    wanted = {}
    for photo, stem, threshold in zip(photos, ("car", "CAR (2)", "Straße 1"), ("0.5", "0.62", "0.5"), strict=True):
        for folder, options in (("masks", ()), ("cutouts", ("--kind", "cutout", "--background", "white"))):
            assert predict(photo, tmp_path / "out.png", "--overwrite", "--threshold", threshold, *options) == 0
            wanted[f"{folder}/{stem}.png"] = (tmp_path / "out.png").read_bytes()
    assert found == wanted


def test_a_zip_can_be_stopped_and_made_again(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.add(*(save(tmp_path / f"{number}.png") for number in range(3)))
    expect(here.page.get_by_role("status")).to_have_text("3 of 3 photos done.")
    # Answers that never come, as of a service that hangs.
    here.page.route("**/v1/segment", lambda _: None)
    here.page.get_by_role("button", name="Download all as zip").click()
    here.page.get_by_role("button", name="Stop").click()
    expect(here.page.get_by_role("button", name="Download all as zip")).to_be_enabled()
    expect(here.page.get_by_role("alert")).to_be_hidden()
    here.page.unroute("**/v1/segment")
    name, _ = here.download(here.page.get_by_role("button", name="Download all as zip"))
    assert name == "carmask.zip"


def test_no_zip_lacks_a_file_unseen(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.add(save(tmp_path / "one.png"), save(tmp_path / "two.png"))
    expect(here.page.get_by_role("status")).to_have_text("2 of 2 photos done.")
    here.context.set_offline(True)
    here.page.get_by_role("button", name="Download all as zip").click()
    expect(here.page.get_by_role("alert")).to_contain_text("No zip was made. one.png: The service does not answer.")
    card = here.card("two.png")
    card.get_by_role("button", name="Download mask").click()
    expect(card.get_by_role("alert")).to_contain_text("The mask was not made. The service does not answer.")


def test_a_zip_beyond_its_format_is_refused(visit: Visitor) -> None:
    said = visit().page.evaluate(
        "async () => { const { zip } = await import('/static/zip.js');"
        " const blob = { size: 2 ** 31, arrayBuffer: async () => new ArrayBuffer(0) };"
        " const files = [{ name: 'a', blob }, { name: 'b', blob }];"
        " return zip(files, new Date()).then(() => 'made', error => error.message) }"
    )
    assert "too large for one zip" in said


def test_page_api_and_command_line_agree_with_the_packaged_weights(
    chromium: Browser, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    render_dataset(tmp_path / "studio", cars=1, views=1, size_HW=(320, 480), workers=1)
    (photo,) = (tmp_path / "studio" / "train").iterdir()
    for kind in ("mask", "cutout"):
        assert Command("predict", capsys)(photo, tmp_path / f"{kind}.png", "--kind", kind) == 0
    with running("--quiet") as service:
        here = Visit(chromium, f"{service.address}/", {})
        here.add(photo)
        card = here.await_done(photo.name)
        saved = [here.download(card.get_by_role("button", name=f"Download {kind}"))[1] for kind in ("mask", "cut-out")]
        answers = [service.segment(photo, kind=kind).body for kind in ("mask", "cutout")]
        told = service.segment(photo, {"Accept": "application/json"}).json
        here.close()
    assert saved == answers == [(tmp_path / f"{kind}.png").read_bytes() for kind in ("mask", "cutout")]
    assert told["coverage"] > 0.05


def test_a_cutout_is_dragged_out_of_the_page(visit: Visitor, predict: Command, tmp_path: Path) -> None:
    photo = save(tmp_path / "car.png")
    here = visit()
    here.add(photo)
    handle = here.await_done("car.png").locator(".drag")
    handle.scroll_into_view_if_needed()
    with here.page.expect_response("**/v1/segment"):
        handle.hover()
    assert predict(photo, tmp_path / "out.png", "--kind", "cutout") == 0
    name, address, data = handle.evaluate(
        "async handle => { const event = new DragEvent('dragstart', { dataTransfer: new DataTransfer(),"
        " bubbles: true, cancelable: true });"
        " for (let tries = 0; tries < 100 && (tries === 0 || event.defaultPrevented); tries += 1) {"
        " await new Promise(next => setTimeout(next, 50)); handle.dispatchEvent(event);"
        " if (event.dataTransfer.files.length) break; }"
        " const [file] = event.dataTransfer.files;"
        " const address = event.dataTransfer.getData('DownloadURL');"
        " return [file.name, address, [...new Uint8Array(await file.arrayBuffer())]] }"
    )
    assert name == "car_cutout.png"
    assert address.startswith("image/png:car_cutout.png:blob:")
    assert bytes(data) == (tmp_path / "out.png").read_bytes()


def test_a_bar_shows_how_many_photos_are_done(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    held = []
    here.page.route("**/v1/segment", lambda route: held.append(route))
    here.add(*(save(tmp_path / f"{number}.png") for number in range(3)))
    bar = here.page.get_by_role("progressbar", name="Photos done")
    expect(bar).to_be_visible()
    assert bar.evaluate("bar => [bar.value, bar.max]") == [0, 3]
    for route in held:
        route.continue_()
    expect(here.page.get_by_role("status")).to_have_text("3 of 3 photos done.")
    expect(bar).to_be_hidden()


def test_what_was_sent_is_not_kept_in_memory(visit: Visitor) -> None:
    page = visit().page
    page.evaluate(
        "async () => { const { Queue } = await import('./static/queue.js'); window.gone = new AbortController();"
        " const sent = {}; window.sent = new WeakRef(sent);"
        " await new Queue(1, {}).add(async () => typeof sent, { signal: gone.signal }); }"
    )
    page.request_gc()
    assert page.evaluate("() => sent.deref() === undefined")
