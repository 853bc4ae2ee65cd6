"""The page in real Chromium: photos come in, what is found is shown, and sliders and backgrounds work at once."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bright_photos import BRIGHT, DARK, SIZE_HW, Command, save, vehicle

pytest.importorskip("playwright.sync_api", reason="the page is not tested: no Playwright (pip install playwright)")
from page_browser import Visitor, expect
from playwright.sync_api import Route

pytest_plugins = ["page_fixtures"]

# Differences that come from 8-bit levels and from the browser's own way of scaling and rounding.
CLOSE = 3
# Pixels of the vehicles in `car_park`.
LEFT, MIDDLE, RIGHT = (30, 25), (60, 90), (70, 150)


def graded(path: Path, size_HW: tuple[int, int] = (160, 240)) -> Path:
    """A photo that gets brighter from left to right, its probability from 0 to 1; reddish above, bluish below."""
    height, width = size_HW
    level_W = np.linspace(90, 165, width)
    image_HW3 = np.repeat(np.tile(level_W, (height, 1))[..., None], 3, axis=2)
    image_HW3[: height // 2] += (30, -15, -15)
    image_HW3[height // 2 :] += (-15, -15, 30)
    Image.fromarray(image_HW3.astype(np.uint8)).save(path)
    return path


def car_park(path: Path) -> Path:
    """A photo of a large vehicle on the left, and of two in the middle that are joined by something half as bright."""
    image_HW = np.full(SIZE_HW, DARK, dtype=np.uint8)
    image_HW[10:90, 8:48] = BRIGHT
    image_HW[40:70, 76:104] = BRIGHT
    image_HW[40:110, 130:172] = BRIGHT
    image_HW[44:66, 104:130] = 110
    Image.fromarray(image_HW).convert("RGB").save(path)
    return path


def striped(path: Path) -> Path:
    """A photo of a bright vehicle before soft stripes that a blur changes."""
    y, x = np.mgrid[0:600, 0:900]
    stripes_HW = 45 + 35 * np.sin((x + y) / 20)
    image_HW3 = np.where(vehicle((600, 900)), BRIGHT, stripes_HW)[..., None].repeat(3, axis=2)
    Image.fromarray(image_HW3.astype(np.uint8)).save(path)
    return path


def read(path: Path, mode: str = "RGBA") -> NDArray[np.int16]:
    return np.asarray(Image.open(path).convert(mode)).astype(np.int16)


def size_in_words(size_HW: tuple[int, int]) -> str:
    return f"{size_HW[1]} \N{MULTIPLICATION SIGN} {size_HW[0]} px"


def test_chosen_photos_are_cut_out(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.add(save(tmp_path / "one.png"), save(tmp_path / "two.jpg"))
    card = here.await_done("one.png")
    expect(card).to_contain_text(size_in_words(SIZE_HW))
    expect(card).to_contain_text(f"vehicle covers {vehicle().mean():.1%}")
    here.await_done("two.jpg")
    expect(here.page.get_by_role("status")).to_have_text("2 of 2 photos done.")
    after_HW4, before_HW4 = here.pixels(card), here.pixels(card, "before")
    middle, corner = (SIZE_HW[0] // 2, SIZE_HW[1] // 2), (4, 4)
    assert tuple(after_HW4[middle]) == (BRIGHT, BRIGHT, BRIGHT, 255)
    assert after_HW4[corner][3] == 0
    assert tuple(before_HW4[corner]) == (DARK, DARK, DARK, 255)


def test_photos_and_folders_are_dropped(visit: Visitor, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    save(folder / "sub" / "deep.png")
    save(folder / "top.JPG", format="jpeg")
    (folder / "Thumbs.db").write_bytes(b"no photo")
    single = save(tmp_path / "single.png")
    here = visit()
    data = {"items": [], "files": [str(single), str(folder)], "dragOperationsMask": 1}
    session = here.context.new_cdp_session(here.page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 500, "data": data})
    for name in ("single.png", "deep.png", "top.JPG"):
        here.await_done(name)
    expect(here.page.get_by_role("article")).to_have_count(3)


def test_text_that_is_dropped_is_no_photo(visit: Visitor) -> None:
    here = visit()
    transfer = here.page.evaluate_handle("() => { const t = new DataTransfer(); t.setData('text', 'car'); return t }")
    here.page.dispatch_event("main", "drop", {"dataTransfer": transfer})
    expect(here.page.get_by_role("status")).to_contain_text("not a file")


def test_a_photo_is_pasted(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.context.grant_permissions(["clipboard-read", "clipboard-write"])
    png = list(save(tmp_path / "car.png").read_bytes())
    here.page.evaluate(
        "async png => navigator.clipboard.write([new ClipboardItem("
        "{'image/png': new Blob([new Uint8Array(png)], {type: 'image/png'})})])",
        png,
    )
    here.page.keyboard.press("Control+V")
    expect(here.await_done("image.png")).to_contain_text("vehicle covers")


def test_the_threshold_works_at_once_and_without_the_service(visit: Visitor, predict: Command, tmp_path: Path) -> None:
    photo = graded(tmp_path / "graded.png")
    here = visit()
    here.add(photo)
    card = here.await_done("graded.png")
    asked = len(here.asked)
    shown = {}
    for percent in (50, 20, 85):
        here.slide(card, percent)
        shown[percent] = here.pixels(card)
        cut = tmp_path / f"{percent}.png"
        assert predict(photo, cut, "--kind", "cutout", "--threshold", percent / 100) == 0
        assert abs(shown[percent].astype(np.int16) - read(cut))[..., 3].max() <= CLOSE
        assert predict(photo, tmp_path / f"{percent}", "--json", "--threshold", percent / 100, "--overwrite") == 0
        coverage = json.loads(predict.out.splitlines()[0])["coverage"]
        found = float(card.get_by_text("vehicle covers").inner_text().split("covers ")[1].split("%")[0])
        assert found == pytest.approx(100 * coverage, abs=0.5)
    assert shown[20][..., 3].mean() > shown[50][..., 3].mean() > shown[85][..., 3].mean()
    assert len(here.asked) == asked
    card.get_by_role("button", name="Reset threshold").click()
    expect(card.get_by_role("slider", name="Threshold")).to_be_focused()
    assert np.array_equal(here.pixels(card), shown[50])


def test_one_threshold_is_used_for_all_photos(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.add(graded(tmp_path / "one.png"), graded(tmp_path / "two.png", (120, 200)))
    one, two = here.await_done("one.png"), here.await_done("two.png")
    here.slide(one, 30)
    one.get_by_role("button", name="Use for all").click()
    expect(two.get_by_role("slider", name="Threshold")).to_have_value("30")


def test_one_vehicle_is_shown_and_saved_as_the_command_line_does(
    visit: Visitor, predict: Command, tmp_path: Path
) -> None:
    photo = car_park(tmp_path / "park.png")
    here = visit()
    here.add(photo)
    card = here.await_done("park.png")

    def assert_as_predict(vehicles: str, places: set[tuple[int, int]], threshold: str = "0.5") -> None:
        options = ("--vehicles", vehicles, "--threshold", threshold, "--overwrite")
        assert predict(photo, tmp_path / "mask.png", "--json", *options) == 0
        expect(card).to_contain_text(f"vehicle covers {json.loads(predict.out.splitlines()[0])['coverage']:.1%}")
        mask = (tmp_path / "mask.png").read_bytes()
        assert here.download(card.get_by_role("button", name="Download mask"))[1] == mask
        assert predict(photo, tmp_path / "cut.png", "--kind", "cutout", *options) == 0
        alpha_HW = read(tmp_path / "cut.png")[..., 3]
        assert {place for place in (LEFT, MIDDLE, RIGHT) if alpha_HW[place] > 128} == places
        here.await_alpha(card, lambda shown_HW: bool(abs(shown_HW - alpha_HW).max() <= CLOSE))

    for name, vehicles, places in (
        ("Center one", "center", {MIDDLE}),
        ("All vehicles", "all", {LEFT, MIDDLE, RIGHT}),
        ("Largest", "largest", {LEFT}),
    ):
        here.page.get_by_role("radio", name=name).check()
        assert_as_predict(vehicles, places)
    # At a low threshold the two others are one region, which is the largest.
    here.slide(card, 20)
    assert_as_predict("largest", {MIDDLE, RIGHT}, "0.2")
    card.get_by_role("button", name="Reset threshold").click()
    assert_as_predict("largest", {LEFT})
    # What is added later is cut out in the same way.
    here.add(photo.rename(tmp_path / "again.png"))
    alpha_HW = here.pixels(here.await_done("again.png"))[..., 3]
    assert (alpha_HW[LEFT], alpha_HW[MIDDLE]) == (255, 0)


def test_the_choice_made_last_counts(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    held: list[Route] = []

    def hold_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    here.page.route("**/v1/segment", hold_first)
    with here.page.expect_request("**/v1/segment"):
        here.add(car_park(tmp_path / "park.png"))
    for name in ("Largest", "Center one"):
        here.page.get_by_role("radio", name=name).check()
    held[0].continue_()
    card = here.await_done("park.png")
    alpha_HW = here.pixels(card)[..., 3]
    assert (alpha_HW[LEFT], alpha_HW[MIDDLE]) == (0, 255)
    assert len([url for url in here.asked if url.endswith("/v1/segment")]) == 2
    # Where the service is away the photo can be tried again, with the newest choice.
    here.context.set_offline(True)
    here.page.get_by_role("radio", name="Largest").check()
    expect(card).to_contain_text("The service does not answer.")
    here.context.set_offline(False)
    card.get_by_role("button", name="Try again").click()
    here.await_alpha(card, lambda shown_HW: (shown_HW[LEFT], shown_HW[MIDDLE]) == (255, 0))


def test_backgrounds_are_shown_as_they_are_downloaded(visit: Visitor, predict: Command, tmp_path: Path) -> None:
    photo = striped(tmp_path / "car.png")
    y, x = np.mgrid[0:90, 0:400]
    picture = tmp_path / "sunset.png"
    Image.fromarray(np.stack([x * 255 // 400, y * 255 // 90, x * 0 + 60], axis=2).astype(np.uint8)).save(picture)
    here = visit()
    here.add(photo)
    card = here.await_done("car.png")
    page = here.page

    def assert_shown(background: str | Path) -> None:
        here.slide(card, 50)
        assert predict(photo, tmp_path / "cut.png", "--kind", "cutout", "--background", background, "--overwrite") == 0
        difference_HW = abs(here.pixels(card).astype(np.int16) - read(tmp_path / "cut.png")).max(axis=2)
        # Along the edge the download is without the old background's colors, and the preview is not.
        assert np.percentile(difference_HW, 85) <= CLOSE, background
        assert (difference_HW > 40).mean() < 0.1, background

    page.get_by_role("radio", name="White").check()
    assert_shown("white")
    page.get_by_role("radio", name="Blurred").check()
    assert_shown("blur")
    page.get_by_label("Background color").fill("#3366cc")
    expect(page.get_by_role("radio", name="Color")).to_be_checked()
    assert_shown("#3366cc")
    page.get_by_role("radio", name="Own picture").check()
    expect(page.get_by_role("alert")).to_have_text("Choose a picture for the background.")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose picture").click()
    chooser.value.set_files(picture)
    expect(page.get_by_text("sunset.png")).to_be_visible()
    expect(page.get_by_role("alert")).to_be_hidden()
    assert_shown(picture)


def test_turned_photos_meet_their_masks(visit: Visitor, tmp_path: Path) -> None:
    stored_HW = np.zeros((120, 180), dtype=bool)
    stored_HW[10:50, 20:80] = True
    here = visit()
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        here.add(save(tmp_path / f"{orientation}.jpg", stored_HW, exif=exif, quality=95))
    for orientation in range(1, 9):
        card = here.await_done(f"{orientation}.jpg")
        expect(card).to_contain_text(size_in_words((180, 120) if orientation >= 5 else (120, 180)))
        before_HW4, after_HW4 = here.pixels(card, "before"), here.pixels(card)
        is_bright_HW, is_kept_HW = before_HW4[..., 0] > 128, after_HW4[..., 3] > 128
        # Where the browser shows the car the mask keeps it, but for the edge, which the network sees coarsely.
        assert (is_bright_HW == is_kept_HW).mean() > 0.97, orientation
        assert is_kept_HW.mean() == pytest.approx(stored_HW.mean(), rel=0.1), orientation


def test_what_the_browser_cannot_show_the_service_does(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.add(save(tmp_path / "scan.tif"))
    card = here.await_done("scan.tif")
    expect(card).to_contain_text("Your browser cannot show this photo as the service sees it.")
    middle = (SIZE_HW[0] // 2, SIZE_HW[1] // 2)
    red, _, blue, _ = here.pixels(card, "before")[middle].astype(int)
    assert blue > red + 40, "the overlay is blue where the vehicle is"
    assert tuple(here.pixels(card)[middle]) == (255, 255, 255, 255)
    assert tuple(here.pixels(card)[4, 4]) == (0, 0, 0, 255)
    assert here.download(card.get_by_role("button", name="Download mask"))[0] == "scan_mask.png"


def test_a_photo_without_a_vehicle_says_so(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.add(save(tmp_path / "road.png", np.zeros(SIZE_HW, dtype=bool)), save(tmp_path / "car.png"))
    card = here.await_done("road.png")
    expect(card.get_by_text("No vehicle found")).to_be_visible()
    expect(card).not_to_contain_text("covers")
    assert not here.pixels(card)[..., 3].any()
    expect(here.await_done("car.png").get_by_text("No vehicle found")).to_be_hidden()
    expect(here.page.get_by_role("status")).to_have_text("2 of 2 photos done, no vehicle found in 1.")


def test_a_removed_photo_leaves_nothing_behind(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.page.evaluate(
        "() => { window.addresses = new Set(); const { createObjectURL, revokeObjectURL } = URL;"
        " URL.createObjectURL = blob => { const made = createObjectURL(blob); addresses.add(made); return made };"
        " URL.revokeObjectURL = made => { addresses.delete(made); revokeObjectURL(made) } }"
    )
    here.add(save(tmp_path / "one.png"), save(tmp_path / "two.png"))
    card = here.await_done("one.png")
    here.await_done("two.png")
    canvas = card.locator("canvas.after").element_handle()
    card.get_by_role("button", name="Remove one.png").click()
    expect(here.page.get_by_role("button", name="Remove two.png")).to_be_focused()
    expect(here.page.get_by_role("article")).to_have_count(1)
    assert canvas.evaluate("canvas => canvas.width * canvas.height") == 0
    assert here.page.evaluate("() => addresses.size") == 0
    here.page.get_by_role("button", name="Remove all").click()
    expect(here.page.get_by_role("button", name="Choose photos")).to_be_focused()
    expect(here.page.get_by_role("article")).to_have_count(0)


def test_photos_far_from_the_screen_take_no_pixels(visit: Visitor, tmp_path: Path) -> None:
    here = visit(viewport={"width": 390, "height": 600})
    here.add(*(save(tmp_path / f"{number}.png") for number in range(12)))
    expect(here.page.get_by_role("status")).to_have_text("12 of 12 photos done.")
    here.await_done("0.png")
    last = here.card("11.png")
    expect(last.get_by_role("button", name="Download mask")).to_be_attached()
    expect(last.get_by_role("slider", name="Before and after")).to_be_hidden()
    assert here.pixels(here.await_done("11.png")).shape[:2] == SIZE_HW
