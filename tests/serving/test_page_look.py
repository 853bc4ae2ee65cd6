"""Looks and formats on the page, in real Chromium: the preview is the service's, and what is saved has its bytes."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from bright_photos import BRIGHT, DARK, SIZE_HW, Command, save

pytest.importorskip("playwright.sync_api", reason="the page is not tested: no Playwright (pip install playwright)")
from page_browser import Visit, Visitor, expect
from playwright.sync_api import Locator

from carmask.runtime.options import RunOptions
from carmask.segmenter import Segmenter

pytest_plugins = ["page_fixtures"]


def choose(here: Visit, look: str) -> None:
    here.page.get_by_role("radio", name=look, exact=True).check()


def shown(card: Locator, label: str) -> tuple[int, int]:
    """Width and height of the picture in a look, once it is there."""
    picture = card.get_by_role("img", name=label)
    expect(picture).to_be_visible()
    expect(card.locator(".composed")).to_have_attribute("aria-busy", "false")
    width, height = picture.evaluate("picture => [picture.naturalWidth, picture.naturalHeight]")
    return width, height


def test_a_look_is_previewed_and_saved_as_the_command_line_writes_it(
    visit: Visitor, predict: Command, bright: Path, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[Base.Artist], exif[IFD.GPSInfo] = "A. Dealer", {1: "N", 2: (50.0, 4.0, 7.0)}
    photo = save(tmp_path / "car.jpg", quality=92, exif=exif)
    here = visit()
    here.add(photo)
    card = here.await_done("car.jpg")
    button = card.get_by_role("button", name="Download cut-out")

    def command_line(ending: str, *options: str) -> bytes:
        out = tmp_path / f"out.{ending}"
        assert predict(photo, out, "--overwrite", *options) == 0
        return out.read_bytes()

    choose(here, "Showroom")
    assert shown(card, "Showroom, car.jpg") == (1600, 1200)
    expect(card.get_by_role("slider", name="Before and after")).to_be_hidden()
    name, data = here.download(button)
    assert name == "car_showroom.jpg"
    assert data == command_line("jpg", "--look", "showroom")
    assert data == Segmenter.load(bright, RunOptions(engine="onnxruntime", device="cpu"))(photo).compose("showroom")
    kept = Image.open(io.BytesIO(data)).getexif()
    assert kept[Base.Artist] == "A. Dealer"
    assert not kept.get_ifd(IFD.GPSInfo)
    choose(here, "Blurred")
    here.page.get_by_label("Format").select_option("WebP")
    expected = command_line("webp", "--look", "showroom", "--background", "blur", "--format", "webp")
    assert here.download(button) == ("car_showroom.webp", expected)
    choose(here, "Marketplace")
    assert here.download(button) == ("car_marketplace.jpg", command_line("jpg", "--look", "marketplace"))
    choose(here, "Cropped")
    assert shown(card, "Cropped, car.jpg") < (SIZE_HW[1], SIZE_HW[0])
    assert here.download(button) == ("car_cutout.png", command_line("png", "--look", "cutout"))
    choose(here, "None")
    expect(card.get_by_role("slider", name="Before and after")).to_be_visible()
    assert here.download(button) == ("car_cutout.png", command_line("png", "--kind", "cutout"))


def test_place_shadow_and_background_are_previewed_and_saved_as_the_api_makes_them(
    visit: Visitor, tmp_path: Path
) -> None:
    photo = save(tmp_path / "car.png")
    here = visit()
    here.add(photo)
    card = here.await_done("car.png")
    button = card.get_by_role("button", name="Download cut-out")
    place = here.page.get_by_role("group", name="Place and shadow")

    def api(**fields: str) -> bytes:
        file = {"name": photo.name, "mimeType": "image/png", "buffer": photo.read_bytes()}
        answer = here.page.request.post(f"{here.page.url}v1/segment", multipart={**fields, "file": file})
        assert answer.ok, answer.text()
        return answer.body()

    place.get_by_label("Canvas").fill("320x200")
    assert shown(card, "Cut-out, car.png") == (320, 200)
    fields = {"kind": "cutout", "format": "png", "canvas": "320x200", "background": "transparent"}
    assert here.download(button)[1] == api(**fields)
    place.get_by_label("Margin").fill("30")
    place.get_by_label("Anchor").select_option("Bottom")
    place.get_by_label("Shadow").select_option("Contact")
    choose(here, "Studio")
    fields |= {"margin": "30", "anchor": "bottom", "shadow": "contact", "background": "studio"}
    assert here.download(button)[1] == api(**fields)
    choose(here, "Marketplace")
    expect(place.get_by_label("Canvas")).to_have_value("")
    place.get_by_label("Floor").fill("0.7")
    name, data = here.download(button)
    assert (name, data) == ("car_marketplace.jpg", api(look="marketplace", floor="0.7"))
    place.get_by_label("Canvas").fill("320 wide")
    expect(card.get_by_role("alert")).to_contain_text("Canvas: write")
    color = card.get_by_role("alert").evaluate("alert => getComputedStyle(alert).color")
    expect(place.get_by_label("Canvas")).to_have_css("border-top-color", color)
    expect(card.get_by_role("img", name="Marketplace")).to_be_hidden()


def test_the_preview_follows_what_is_chosen_in_the_card(visit: Visitor, tmp_path: Path) -> None:
    here = visit(viewport={"width": 390, "height": 700}, has_touch=True, is_mobile=True)
    levels_HW = np.full(SIZE_HW, DARK, dtype=np.uint8)
    # Gray counts as vehicle only at low thresholds.
    levels_HW[30:90, 60:150], levels_HW[30:90, 20:40] = BRIGHT, 150
    Image.fromarray(levels_HW).save(tmp_path / "car.png")
    here.add(tmp_path / "car.png")
    card = here.await_done("car.png")
    choose(here, "Cropped")
    wide, height = shown(card, "Cropped")
    assert here.page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
    with here.page.expect_response("**/v1/segment"):
        here.slide(card, 90)
    narrow, same_height = shown(card, "Cropped")
    assert same_height == pytest.approx(height, abs=6)
    assert wide - narrow == pytest.approx(40, abs=6)


def test_a_zip_in_a_look(visit: Visitor, predict: Command, tmp_path: Path) -> None:
    photos = [save(tmp_path / "one.png"), save(tmp_path / "none.png", np.zeros(SIZE_HW, dtype=bool))]
    here = visit()
    here.add(*photos)
    expect(here.page.get_by_role("status")).to_contain_text("2 of 2 photos done")
    choose(here, "Marketplace")
    _, data = here.download(here.page.get_by_role("button", name="Download all as zip"))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for photo in photos:
            assert predict(photo, tmp_path / "out.jpg", "--overwrite", "--look", "marketplace") == 0
            assert archive.read(f"cutouts/{photo.stem}.jpg") == (tmp_path / "out.jpg").read_bytes()
        assert Image.open(archive.open("masks/one.png")).size == SIZE_HW[::-1]


def test_a_jpeg_is_not_transparent(visit: Visitor, predict: Command, tmp_path: Path) -> None:
    photo = save(tmp_path / "car.png")
    here = visit()
    here.add(photo)
    card = here.await_done("car.png")
    problem = here.page.locator("#problem")
    here.page.get_by_label("Format").select_option("JPEG")
    expect(problem).to_contain_text("JPEG has no transparency")
    button = card.get_by_role("button", name="Download cut-out")
    button.click()
    expect(card.get_by_role("alert")).to_contain_text("JPEG has no transparency")
    choose(here, "White")
    expect(problem).to_be_hidden()
    expect(card.get_by_role("alert")).to_be_hidden()
    assert predict(photo, tmp_path / "out.jpg", "--kind", "cutout", "--background", "white") == 0
    assert here.download(button) == ("car_cutout.jpg", (tmp_path / "out.jpg").read_bytes())
    choose(here, "Cropped")
    here.page.get_by_label("Format").select_option("JPEG")
    expect(card.get_by_role("alert")).to_contain_text("JPEG has no transparency")
    expect(card.get_by_role("slider", name="Before and after")).to_be_visible()
