"""Correcting a mask on the page, in real Chromium: which pixels the brush takes, against NumPy, and what is saved."""

import functools
import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bright_photos import SIZE_HW, save, vehicle

pytest.importorskip("playwright.sync_api", reason="the page is not tested: no Playwright (pip install playwright)")
from page_browser import Visit, Visitor, expect
from playwright.sync_api import Dialog, Locator, Route

pytest_plugins = ["page_fixtures"]

Point = tuple[float, float]


@dataclass
class Paper:
    """The canvas of the editor, and where on the page it shows which pixel of the photo, before any zoom."""

    here: Visit
    size_HW: tuple[int, int] = SIZE_HW

    def __post_init__(self) -> None:
        self.here.page.wait_for_timeout(100)
        canvas = self.here.page.get_by_role("application", name="Photo and mask")
        self.width, self.height, self.left, self.top, self.wide, self.high = canvas.evaluate(
            "canvas => { const box = canvas.getBoundingClientRect();"
            " return [canvas.width, canvas.height, box.left, box.top, box.width, box.height] }"
        )
        height, width = self.size_HW
        self.scale = min(self.width / width, self.height / height)
        self.margin_x = (self.width - width * self.scale) / 2
        self.margin_y = (self.height - height * self.scale) / 2

    def on_page(self, x: float, y: float) -> Point:
        across, down = self.margin_x + x * self.scale, self.margin_y + y * self.scale
        return self.left + across * self.wide / self.width, self.top + down * self.high / self.height

    def radius_px(self, size: int) -> float:
        return size / 2 * (self.width / self.wide) / self.scale

    def set(self, *, size: int, adds: bool = True, snaps: bool = False) -> None:
        page = self.here.page
        page.get_by_role("slider", name="Size").fill(str(size))
        page.get_by_role("radio", name="Add" if adds else "Remove").check()
        page.get_by_role("checkbox", name="Snap").set_checked(snaps)

    def stroke(self, *points: Point) -> None:
        mouse = self.here.page.mouse
        mouse.move(*self.on_page(*points[0]))
        mouse.down()
        for point in points[1:]:
            mouse.move(*self.on_page(*point))
        mouse.up()


def capsule(size_HW: tuple[int, int], start: Point, end: Point, radius_px: float) -> NDArray[np.bool_]:
    """Pixels whose centers lie within a distance of a line."""
    y, x = np.mgrid[: size_HW[0], : size_HW[1]] + 0.5
    (x0, y0), (x1, y1) = start, end
    length2 = (x1 - x0) ** 2 + (y1 - y0) ** 2
    along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length2, 0, 1) if length2 else 0
    return np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)) <= radius_px


def edit(here: Visit, card: Locator, size_HW: tuple[int, int] = SIZE_HW) -> Paper:
    card.get_by_role("button", name="Correct mask").click()
    return Paper(here, size_HW)


def add_spot(here: Visit, card: Locator, at: Point) -> Paper:
    """Open a photo, and add a spot to its mask with a large brush."""
    paper = edit(here, card)
    paper.set(size=60)
    paper.stroke(at)
    return paper


def done(here: Visit) -> None:
    here.page.get_by_role("button", name="Done").click()


def leave(here: Visit) -> None:
    """Reload the page, which asks first."""
    with here.page.expect_event("dialog"):
        here.page.evaluate("() => { setTimeout(() => location.reload()); }")


def saved(here: Visit, card: Locator, kind: str = "mask") -> NDArray[np.uint8]:
    _, data = here.download(card.get_by_role("button", name=f"Download {kind}"))
    return np.asarray(Image.open(io.BytesIO(data)))


def test_strokes_are_exact_and_saved(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.add(save(tmp_path / "car.png"))
    card = here.await_done("car.png")
    before_HW = saved(here, card)
    np.testing.assert_array_equal(before_HW, vehicle())
    paper = edit(here, card)
    paper.set(size=60)
    start, end = (20.25, 20.75), (48.5, 97.25)
    paper.stroke(start, end)
    paper.set(size=33, adds=False)
    hole = (100.5, 60.25)
    paper.stroke(hole)
    done(here)
    expect(card).to_contain_text("corrected by hand")
    added_HW = capsule(SIZE_HW, start, end, paper.radius_px(60))
    removed_HW = capsule(SIZE_HW, hole, hole, paper.radius_px(33))
    wanted_HW = (vehicle() | added_HW) & ~removed_HW
    np.testing.assert_array_equal(saved(here, card), wanted_HW)
    cutout_HW4 = saved(here, card, "cut-out")
    np.testing.assert_array_equal(cutout_HW4[..., 3] >= 128, wanted_HW)
    expect(card).to_contain_text(f"vehicle covers {wanted_HW.mean():.1%}")


def test_undo_and_redo_by_keyboard(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.add(save(tmp_path / "car.png"))
    card = here.await_done("car.png")
    paper = edit(here, card)
    paper.set(size=80)
    strokes = [((20.5, 20.5), (30.5, 22.5)), ((150.5, 100.5), (20.5, 100.5))]
    for stroke in strokes:
        paper.stroke(*stroke)
    expect(here.page.get_by_role("button", name="Redo")).to_be_disabled()
    here.page.keyboard.press("Control+z")
    here.page.keyboard.press("Control+z")
    expect(here.page.get_by_role("button", name="Undo")).to_be_disabled()
    here.page.keyboard.press("Control+Shift+z")
    here.page.keyboard.press("Escape")
    first_HW = vehicle() | capsule(SIZE_HW, *strokes[0], paper.radius_px(80))
    np.testing.assert_array_equal(saved(here, card), first_HW)
    # What was corrected can be corrected further, and given up.
    edit(here, card)
    here.page.get_by_role("button", name="Start over").click()
    done(here)
    np.testing.assert_array_equal(saved(here, card), vehicle())
    expect(card).not_to_contain_text("corrected by hand")


def test_a_mask_that_was_given_up_follows_the_chosen_vehicles_again(visit: Visitor, tmp_path: Path) -> None:
    image_HW = np.full(SIZE_HW, 40, np.uint8)
    image_HW[20:100, 20:100] = image_HW[20:60, 130:160] = 220
    photo = tmp_path / "two.png"
    Image.fromarray(image_HW).convert("RGB").save(photo)
    here = visit()
    here.add(photo)
    card = here.await_done("two.png")
    add_spot(here, card, (60.5, 110.5))
    done(here)
    here.page.get_by_role("radio", name="Largest").check()
    assert saved(here, card)[40, 145]
    edit(here, card)
    here.page.get_by_role("button", name="Start over").click()
    done(here)
    here.await_alpha(card, lambda alpha_HW: not alpha_HW[40, 145] and alpha_HW[60, 60] > 0)
    mask_HW = saved(here, card)
    assert mask_HW[60, 60]
    assert not mask_HW[40, 145]


def test_keys_work_wherever_the_focus_was_lost(visit: Visitor, tmp_path: Path) -> None:
    """A button that becomes disabled loses the focus, and so does what stands beside a click."""
    here = visit()
    here.add(save(tmp_path / "car.png"))
    card = here.await_done("car.png")
    paper = add_spot(here, card, (20.5, 20.5))
    here.page.get_by_role("button", name="Undo").click()
    expect(here.page.get_by_role("button", name="Undo")).to_be_disabled()
    here.page.keyboard.press("Control+y")
    expect(here.page.get_by_role("button", name="Undo")).to_be_enabled()
    here.page.get_by_role("heading", name="car.png").last.click()
    here.page.keyboard.press("r")
    expect(here.page.get_by_role("radio", name="Remove")).to_be_checked()
    here.page.mouse.move(*paper.on_page(100.5, 60.5))
    here.page.keyboard.press("Space")
    done(here)
    mask_HW = saved(here, card)
    assert mask_HW[20, 20]
    assert not mask_HW[60, 100]


def test_what_was_painted_is_not_lost_without_a_question(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.add(save(tmp_path / "car.png"))
    card = here.await_done("car.png")
    asked: list[str] = []
    answers = {"accept": False}

    def answer(dialog: Dialog) -> None:
        asked.append(dialog.type)
        if answers["accept"]:
            dialog.accept()
        else:
            dialog.dismiss()

    here.page.on("dialog", answer)
    add_spot(here, card, (20.5, 20.5))
    done(here)
    expect(card).to_contain_text("corrected by hand")
    here.page.get_by_role("button", name="Remove car.png").click()
    here.page.get_by_role("button", name="Remove all").click()
    leave(here)
    assert asked == ["confirm", "confirm", "beforeunload"]
    # What was downloaded is not asked for, nor what was not corrected.
    assert saved(here, card)[20, 20]
    here.page.get_by_role("button", name="Remove car.png").click()
    expect(card).to_have_count(0)
    here.add(tmp_path / "car.png")
    card = here.await_done("car.png")
    here.page.get_by_role("button", name="Remove all").click()
    expect(card).to_have_count(0)
    assert len(asked) == 3
    # Whoever is asked can say yes.
    here.add(tmp_path / "car.png")
    add_spot(here, here.await_done("car.png"), (20.5, 20.5))
    done(here)
    answers["accept"] = True
    here.page.get_by_role("button", name="Remove all").click()
    expect(card).to_have_count(0)


def test_a_page_is_not_left_without_a_question_while_something_is_painted(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.add(save(tmp_path / "car.png"))
    card = here.await_done("car.png")
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    here.page.on("dialog", stay)
    add_spot(here, card, (20.5, 20.5))
    leave(here)
    assert asked == ["beforeunload"]
    done(here)
    assert saved(here, card)[20, 20]


def test_a_double_click_opens_one_photo_once(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.add(save(tmp_path / "car.png"), save(tmp_path / "other.png"))
    cards = [here.await_done(name) for name in ("car.png", "other.png")]
    buttons = [card.get_by_role("button", name="Correct mask").element_handle() for card in cards]
    # Clicks that come before the first photo is read.
    here.page.evaluate("([one, other]) => { one.click(); one.click(); other.click(); }", buttons)
    expect(here.page.get_by_role("application")).to_be_focused()
    expect(here.page.get_by_role("dialog")).to_contain_text("car.png")
    paper = Paper(here)
    paper.set(size=60)
    paper.stroke((20.5, 20.5))
    done(here)
    expect(cards[0]).to_contain_text("corrected by hand")
    assert saved(here, cards[0])[20, 20]
    for card in cards:
        expect(card.get_by_role("alert")).to_be_hidden()
    edit(here, cards[1])
    expect(here.page.get_by_role("dialog")).to_contain_text("other.png")


def test_the_brush_snaps_to_the_probability(visit: Visitor, tmp_path: Path) -> None:
    """A part that the network half believes in is taken whole, and nothing around it; the reverse is removed."""
    photo = tmp_path / "faint.png"
    image_HW = np.full(SIZE_HW, 40, np.uint8)
    image_HW[30:90, 60:150] = 215
    faint, spill = np.s_[40:70, 20:45], np.s_[90:105, 100:130]
    image_HW[faint] = 110
    image_HW[spill] = 150
    Image.fromarray(image_HW).convert("RGB").save(photo)
    here = visit()
    here.add(photo)
    card = here.await_done("faint.png")
    before_HW = saved(here, card)
    assert not before_HW[faint].any()
    assert before_HW[spill].mean() > 0.9
    paper = edit(here, card)
    paper.set(size=math.ceil(2 * 22 * paper.scale), snaps=True)
    paper.stroke((32.5, 55.5))
    paper.set(size=math.ceil(2 * 20 * paper.scale), adds=False, snaps=True)
    paper.stroke((115.5, 97.5))
    done(here)
    found_HW = saved(here, card)
    # The network sees the photo at another size, so a pixel's width of each edge is soft.
    assert found_HW[41:69, 21:44].all()
    assert not found_HW[92:, :].any()
    others_HW = np.ones(SIZE_HW, bool)
    others_HW[39:71, 19:46] = others_HW[89:, :] = False
    np.testing.assert_array_equal(found_HW[others_HW], before_HW[others_HW])


def test_a_region_under_the_brush_goes_whole(visit: Visitor, tmp_path: Path) -> None:
    """Its rim is less certain than its core, which is an edge too; a region that goes on elsewhere keeps its core."""
    image_HW = np.full(SIZE_HW, 40, np.uint8)
    image_HW[30:90, 60:150] = 255
    regions = np.s_[45:71, 15:41], np.s_[8:22, 5:150]
    for region in regions:
        image_HW[region] = 160
        rows, columns = region
        image_HW[rows.start + 4 : rows.stop - 4, columns.start + 4 : columns.stop - 4] = 255
    hole = np.s_[50:70, 95:115]
    image_HW[hole] = 110
    image_HW[54:66, 99:111] = 40
    photo = tmp_path / "regions.png"
    Image.fromarray(image_HW).convert("RGB").save(photo)
    here = visit()
    here.add(photo)
    card = here.await_done("regions.png")
    before_HW = saved(here, card)
    paper = edit(here, card)
    paper.set(size=math.ceil(2 * 22 * paper.scale), adds=False, snaps=True)
    paper.stroke((28, 58))
    # A region that several places of the brush cover together.
    paper.set(size=math.ceil(2 * 9 * paper.scale), adds=True, snaps=True)
    paper.stroke((99, 54), (111, 54), (111, 66), (99, 66), (99, 60), (111, 60))
    paper.set(size=math.ceil(2 * 12 * paper.scale), adds=False, snaps=True)
    paper.stroke((80, 12))
    done(here)
    found_HW = saved(here, card)
    assert before_HW[46:70, 16:40].all()
    assert not found_HW[40:75, 10:46].any()
    assert not before_HW[54:66, 99:111].any()
    assert found_HW[48:72, 93:117].all()
    assert found_HW[14:16, 70:90].all()


def test_keyboard_alone(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.add(save(tmp_path / "car.png"))
    card = here.await_done("car.png")
    card.get_by_role("button", name="Correct mask").focus()
    here.page.keyboard.press("Enter")
    paper = Paper(here)
    expect(here.page.get_by_role("application")).to_be_focused()
    for key in ("r", "s", "]", "]", " "):
        here.page.keyboard.press(key)
    here.page.keyboard.press("Escape")
    expect(here.page.get_by_role("dialog")).to_be_hidden()
    expect(card.get_by_role("button", name="Correct mask")).to_be_focused()
    height, width = SIZE_HW
    middle = (width / 2, height / 2)
    np.testing.assert_array_equal(saved(here, card), vehicle() & ~capsule(SIZE_HW, middle, middle, paper.radius_px(48)))


def test_the_brush_size_on_any_keyboard_and_with_the_wheel(visit: Visitor, tmp_path: Path) -> None:
    """German keyboards of a Mac type [ and ] with Option and the digits 5 and 6."""
    here = visit()
    here.add(save(tmp_path / "car.png"))
    paper = edit(here, here.await_done("car.png"))
    paper.set(size=40)
    size = here.page.get_by_role("slider", name="Size")
    session = here.context.new_cdp_session(here.page)
    option = 1
    for key, code, wanted in (("]", "Digit6", "44"), ("[", "Digit5", "40")):
        session.send("Input.dispatchKeyEvent", {"type": "keyDown", "key": key, "code": code, "modifiers": option})
        expect(size).to_have_value(wanted)
    for key, wanted in ((".", "44"), (".", "48"), (",", "44")):
        here.page.keyboard.press(key)
        expect(size).to_have_value(wanted)
    here.page.mouse.move(*paper.on_page(60, 40))
    here.page.keyboard.down("Shift")
    here.page.mouse.wheel(0, -100)
    expect(size).to_have_value("54")
    # A touchpad turns by a few pixels at a time.
    for _ in range(10):
        here.page.mouse.wheel(0, 4)
    expect(size).to_have_value("50")
    here.page.keyboard.up("Shift")
    # The size of the brush on the photo tells that none of this has zoomed.
    paper.set(size=90)
    at = (20.5, 20.5)
    paper.stroke(at)
    done(here)
    wanted_HW = vehicle() | capsule(SIZE_HW, at, at, paper.radius_px(90))
    np.testing.assert_array_equal(saved(here, here.card("car.png")), wanted_HW)


def test_keys_of_a_keyboard_without_latin_letters(visit: Visitor, tmp_path: Path) -> None:
    """Such as a Cyrillic, a Hebrew or an Arabic one: the keys in the places of the English ones."""
    here = visit()
    here.add(save(tmp_path / "car.png"))
    add_spot(here, here.await_done("car.png"), (20.5, 20.5))
    session = here.context.new_cdp_session(here.page)

    def press(key: str, code: str, modifiers: int = 0) -> None:
        session.send("Input.dispatchKeyEvent", {"type": "keyDown", "key": key, "code": code, "modifiers": modifiers})

    names = ("Remove", "Add", "Snap", "Snap")
    for keys in (("к", "ф", "ы", "Ы"), ("ר", "ש", "ד", "ד")):
        for key, code, name in zip(keys, ("KeyR", "KeyA", "KeyS", "KeyS"), names, strict=True):
            control = here.page.get_by_role("checkbox" if name == "Snap" else "radio", name=name)
            wanted = not control.is_checked()
            press(key, code)
            expect(control).to_be_checked(checked=wanted)
    size = here.page.get_by_role("slider", name="Size")
    for key, code, wanted_size in (("د", "BracketRight", "64"), ("ج", "BracketLeft", "60")):
        press(key, code)
        expect(size).to_have_value(wanted_size)
    control_key, option = 2, 1
    undo = here.page.get_by_role("button", name="Undo")
    press("я", "KeyZ", control_key)
    expect(undo).to_be_disabled()
    press("н", "KeyY", control_key)
    expect(undo).to_be_enabled()
    # Where the letters are Latin, the letter counts and not its place; what Option makes of a letter is text.
    press("z", "KeyR")
    press("®", "KeyR", option)
    expect(here.page.get_by_role("radio", name="Add")).to_be_checked()


def point_at_black(visit: Visitor, tmp_path: Path) -> tuple[Visit, Locator, Paper, Point]:
    """Correct a black photo with a brush of size 90; the last of the results is where the mouse is, on the photo."""
    here = visit()
    here.add(save(tmp_path / "car.png", np.zeros(SIZE_HW, bool)))
    card = here.await_done("car.png")
    paper = edit(here, card)
    paper.set(size=90)
    # Turns of the wheel are reported at whole pixels of the page.
    x, y = map(round, paper.on_page(60, 40))
    here.page.mouse.move(x, y)
    left, top = paper.on_page(0, 0)
    return here, card, paper, ((x - left) / paper.scale, (y - top) / paper.scale)


def test_a_pinch_on_a_touchpad_zooms_as_far_as_the_fingers_go(visit: Visitor, tmp_path: Path) -> None:
    """Browsers report it as turns of the wheel by a few pixels, with Ctrl."""
    here, card, paper, at = point_at_black(visit, tmp_path)
    here.page.keyboard.down("Control")
    for _ in range(10):
        here.page.mouse.wheel(0, -10)
    here.page.keyboard.up("Control")
    paper.stroke(at)
    done(here)
    covered_px = saved(here, card).sum()
    unzoomed_px = capsule(SIZE_HW, at, at, paper.radius_px(90)).sum()
    assert 1.5 < math.sqrt(unzoomed_px / covered_px) < 4


def test_zoom_makes_the_brush_finer(visit: Visitor, tmp_path: Path) -> None:
    here, card, paper, at = point_at_black(visit, tmp_path)
    here.page.mouse.wheel(0, -1000)
    paper.stroke(at)
    done(here)
    zoom = 1.0015**1000
    np.testing.assert_array_equal(saved(here, card), capsule(SIZE_HW, at, at, paper.radius_px(90) / zoom))


def test_one_finger_paints_and_two_zoom(visit: Visitor, tmp_path: Path) -> None:
    here = visit(viewport={"width": 390, "height": 700}, has_touch=True, is_mobile=True, device_scale_factor=2)
    here.add(save(tmp_path / "car.png"))
    card = here.await_done("car.png")
    paper = edit(here, card)
    assert here.page.evaluate("() => document.documentElement.scrollWidth") <= 390
    paper.set(size=30)
    session = here.context.new_cdp_session(here.page)

    def touch(kind: str, *points: Point) -> None:
        touches = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    at = (20.5, 100.5)
    touch("touchStart", paper.on_page(*at))
    touch("touchEnd")
    # The first of two fingers leaves no dab on the background.
    x, y = paper.on_page(60, 10)
    touch("touchStart", (x - 40, y))
    touch("touchStart", (x - 40, y), (x + 40, y))
    touch("touchMove", (x - 80, y), (x + 80, y))
    touch("touchEnd")
    here.page.get_by_role("button", name="Undo").click()
    expect(here.page.get_by_role("button", name="Redo")).to_be_enabled()
    here.page.get_by_role("button", name="Redo").click()
    done(here)
    found_HW = saved(here, card)
    stroke_HW = capsule(SIZE_HW, at, at, paper.radius_px(30))
    assert (found_HW & ~vehicle()).sum() == pytest.approx(stroke_HW.sum(), rel=0.05)


def test_fingers_and_wheel_beside_the_photo_leave_the_page_where_it_is(visit: Visitor, tmp_path: Path) -> None:
    here = visit(viewport={"width": 390, "height": 700}, has_touch=True, is_mobile=True)
    here.add(save(tmp_path / "car.png"))
    card = here.await_done("car.png")
    edit(here, card)
    below_px = here.page.evaluate("() => scrollY")
    assert below_px > 200
    session = here.context.new_cdp_session(here.page)
    box = here.page.get_by_role("heading", name="car.png").last.bounding_box()
    assert box is not None
    x = box["x"] + box["width"] / 2
    touch = functools.partial(session.send, "Input.dispatchTouchEvent")
    touch({"type": "touchStart", "touchPoints": [{"x": x, "y": box["y"] + 5}]})
    for y in range(20, 200, 20):
        touch({"type": "touchMove", "touchPoints": [{"x": x, "y": box["y"] + y}]})
    touch({"type": "touchEnd", "touchPoints": []})
    here.page.wait_for_timeout(300)
    assert here.page.evaluate("() => scrollY") == below_px
    here.page.mouse.move(x, box["y"] + 5)
    here.page.mouse.wheel(0, -150)
    here.page.wait_for_timeout(300)
    assert here.page.evaluate("() => scrollY") == below_px


@pytest.mark.parametrize("size", [(360, 640), (390, 844), (820, 1180), (844, 390)])
def test_fingers_hit_every_control(visit: Visitor, tmp_path: Path, size: tuple[int, int]) -> None:
    """Targets are 44 px wide and high, as Apple's guidelines and WCAG 2.5.5 want them, and the photo has most room."""
    width, height = size
    here = visit(viewport={"width": width, "height": height}, has_touch=True, is_mobile=True)
    here.add(save(tmp_path / "car.png"))
    paper = edit(here, here.await_done("car.png"))
    boxes = here.page.get_by_role("dialog").evaluate(
        "dialog => [...dialog.querySelectorAll('button, label:has(input)')].map(one => {"
        " const { left, right, width, height } = one.getBoundingClientRect(); return [left, right, width, height] })"
    )
    assert len(boxes) == 11
    for left, right, wide, high in boxes:
        assert left >= 0
        assert right <= width
        assert min(wide, high) >= 44
    assert paper.high > 0.55 * height


def test_a_low_window_has_room_to_paint(visit: Visitor, tmp_path: Path) -> None:
    """As low as a screen of 1366 x 768 that is enlarged four times; what does not fit is reached by scrolling."""
    here = visit(viewport={"width": 341, "height": 192})
    here.add(save(tmp_path / "car.png"))
    card = here.await_done("car.png")
    edit(here, card).set(size=30)
    here.page.get_by_role("application").scroll_into_view_if_needed()
    paper = Paper(here)
    assert paper.high >= 150
    at = (20.5, 60.5)
    paper.stroke(at)
    done(here)
    wanted_HW = vehicle() | capsule(SIZE_HW, at, at, paper.radius_px(30))
    np.testing.assert_array_equal(saved(here, card), wanted_HW)


def test_a_zip_has_what_was_corrected(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    photo = save(tmp_path / "car.png")
    here.add(photo)
    card = here.await_done("car.png")
    paper = edit(here, card)
    paper.set(size=100)
    paper.stroke((20.5, 20.5))
    done(here)
    wanted_HW = saved(here, card)
    assert wanted_HW[20, 20]
    # Which vehicles are chosen later does not change what was corrected.
    here.page.get_by_role("radio", name="Largest").check()
    _, data = here.download(here.page.get_by_role("button", name="Download all as zip"))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        np.testing.assert_array_equal(np.asarray(Image.open(archive.open("masks/car.png"))), wanted_HW)


def test_what_the_service_finds_later_does_not_replace_what_was_corrected(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.add(save(tmp_path / "car.png"))
    card = here.await_done("car.png")
    held: list[Route] = []

    def hold_first(route: Route) -> None:
        if held:
            route.continue_()
        held.append(route)

    here.page.route("**/v1/segment", hold_first)
    here.page.get_by_role("radio", name="Largest").check()
    expect(card).to_contain_text("Looking for vehicles")
    add_spot(here, card, (20.5, 20.5))
    done(here)
    held[0].continue_()
    expect(card).to_contain_text("corrected by hand")
    assert saved(here, card)[20, 20]


def test_a_finger_that_is_down_while_the_window_closes_is_forgotten(visit: Visitor, tmp_path: Path) -> None:
    here = visit(has_touch=True)
    here.add(save(tmp_path / "car.png"))
    card = here.await_done("car.png")
    paper = edit(here, card)
    paper.set(size=30)
    session = here.context.new_cdp_session(here.page)

    def touch(kind: str, *points: tuple[int, Point]) -> None:
        touches = [{"x": at[0], "y": at[1], "id": number} for number, at in points]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    touch("touchStart", (0, paper.on_page(20.5, 20.5)))
    here.page.keyboard.press("Escape")
    expect(here.page.get_by_role("dialog")).to_be_hidden()
    touch("touchEnd")
    paper = edit(here, card)
    at = paper.on_page(20.5, 100.5)
    touch("touchStart", (1, at))
    touch("touchEnd")
    done(here)
    assert saved(here, card)[100, 20]
