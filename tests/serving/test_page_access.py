"""The page for everybody: by keyboard, by touch, on a phone, in the dark, read aloud; in real Chromium."""

import re
from collections import Counter
from pathlib import Path

import pytest

from bright_photos import save

pytest.importorskip("playwright.sync_api", reason="the page is not tested: no Playwright (pip install playwright)")
from page_browser import Visit, Visitor, expect

pytest_plugins = ["page_fixtures"]

CONTROLS = {"button", "slider", "radio", "checkbox", "textbox", "link", "ColorWell", "combobox", "spinbutton"}
FOCUSED = """() => {
  const { activeElement: it } = document, style = getComputedStyle(it);
  const near = it.matches('.compare') ? getComputedStyle(it.parentElement.querySelector('.divider'), '::after') : style;
  return [near.outlineStyle, parseFloat(near.outlineWidth)];
}"""


def names(visit: Visit) -> list[tuple[str, str]]:
    """Role and accessible name of everything that a screen reader finds on the page, as Chromium computes them."""
    session = visit.context.new_cdp_session(visit.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    return [
        (node["role"]["value"], node.get("name", {}).get("value", "").strip()) for node in nodes if not node["ignored"]
    ]


def test_everything_has_a_name(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    (tmp_path / "notes.txt").write_text("no picture")
    here.add(
        save(tmp_path / "one.png"), save(tmp_path / "two.png"), save(tmp_path / "scan.tif"), tmp_path / "notes.txt"
    )
    for name in ("two.png", "scan.tif", "one.png"):
        here.await_done(name)
    expect(here.card("notes.txt").get_by_role("button", name="Try again")).to_be_visible()
    here.slide(here.card("one.png"), 30)
    found = names(here)
    controls = [(role, name) for role, name in found if role in CONTROLS]
    assert len(controls) > 20
    assert not [role for role, name in found if role in {*CONTROLS, "article", "image", "region", "group"} and not name]
    # No two do the same by the same name, so that a list of controls tells them apart.
    twice = [control for control, count in Counter(controls).items() if count > 1]
    assert not twice
    ids = here.page.locator("[id]").evaluate_all("elements => elements.map(element => element.id)")
    assert len(ids) == len(set(ids))
    # What is read must be what is seen, for those who speak their commands (WCAG 2.5.3).
    for button in here.page.get_by_role("button").all():
        seen = button.inner_text().strip()
        label = button.get_attribute("aria-label") or seen
        assert seen in label or seen == "\N{MULTIPLICATION SIGN}", (seen, label)


def test_the_keyboard_is_enough(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    page, keys = here.page, here.page.keyboard
    keys.press("Tab")
    expect(page.get_by_role("button", name="Choose photos")).to_be_focused()
    with page.expect_file_chooser() as chooser:
        keys.press("Enter")
    chooser.value.set_files(save(tmp_path / "car.png"))
    card = here.await_done("car.png")
    for name in (
        "All vehicles",
        "None",
        "Format",
        "Transparent",
        "Background color",
        "Choose picture",
        "Canvas",
        "Margin",
        "Anchor",
        "Floor",
        "Shadow",
        "Download all as zip",
        "Remove all",
    ):
        keys.press("Tab")
        assert focused_name(here) == name
        assert_focus_is_seen(here)
    for name in ("Remove car.png", "Before and after, car.png", "Threshold car.png"):
        keys.press("Tab")
        assert focused_name(here) == name
        assert_focus_is_seen(here)
    keys.press("Shift+Tab")
    compare = card.get_by_role("slider", name="Before and after")
    keys.press("ArrowLeft")
    expect(compare).to_have_value("49")
    expect(compare).to_have_attribute("aria-valuetext", "49% photo, 51% result")
    keys.press("Home")
    assert card.locator(".cut").evaluate("cut => getComputedStyle(cut).clipPath") == "inset(0px 0px 0px 0%)"
    keys.press("Tab")
    keys.press("ArrowRight")
    expect(card.get_by_role("slider", name="Threshold")).to_have_attribute(
        "aria-valuetext", re.compile("^0.51, vehicle")
    )
    for name in ("Reset threshold of car.png", "Correct mask of car.png", "Download cut-out of car.png"):
        keys.press("Tab")
        assert focused_name(here) == name
        assert_focus_is_seen(here)
    with page.expect_download() as saved:
        keys.press("Enter")
    assert saved.value.suggested_filename == "car_cutout.png"
    assert focused_name(here) == "Download cut-out of car.png"
    for _ in range(15):
        keys.press("Shift+Tab")
    assert focused_name(here) == "Transparent"
    keys.press("ArrowDown")
    expect(page.get_by_role("radio", name="White")).to_be_checked()
    assert_focus_is_seen(here)


def focused_name(visit: Visit) -> str:
    session = visit.context.new_cdp_session(visit.page)
    focused = session.send("Runtime.evaluate", {"expression": "document.activeElement"})["result"]["objectId"]
    (node,) = session.send("Accessibility.getPartialAXTree", {"objectId": focused, "fetchRelatives": False})["nodes"]
    return str(node["name"]["value"])


def assert_focus_is_seen(visit: Visit) -> None:
    style, width_px = visit.page.evaluate(FOCUSED)
    assert style == "solid", focused_name(visit)
    assert width_px >= 2


@pytest.mark.parametrize("width_px", [320, 390])
def test_a_phone_shows_everything_and_touch_works(visit: Visitor, tmp_path: Path, width_px: int) -> None:
    here = visit(viewport={"width": width_px, "height": 700}, has_touch=True, is_mobile=True, device_scale_factor=2)
    long = save(tmp_path / f"{'Very_long_name_without_a_single_space' * 3}.png")
    tall = save(tmp_path / "tall.png", None)
    here.add(long, tall)
    card = here.await_done(long.name)
    here.slide(card, 40)
    page = here.page
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width_px
    outside = page.locator("main :is(button, input, select, p, h3, canvas)").evaluate_all(
        "(all, width) => all.filter(one => one.checkVisibility() && !one.matches('.compare, .for-readers')"
        " && (one.getBoundingClientRect().left < 0 || one.getBoundingClientRect().right > width)).length",
        width_px,
    )
    assert outside == 0
    small = page.get_by_role("button").evaluate_all("all => all.filter(one => one.offsetHeight < 40).length")
    assert small == 0, "fingers need 40 px"
    card.scroll_into_view_if_needed()
    box = card.locator(".frame").bounding_box()
    assert box is not None
    page.touchscreen.tap(box["x"] + box["width"] * 0.25, box["y"] + box["height"] / 2)
    compare = card.get_by_role("slider", name="Before and after")
    assert int(compare.input_value()) == pytest.approx(25, abs=1)
    divider = card.locator(".divider").bounding_box()
    assert divider is not None
    assert divider["x"] + divider["width"] / 2 - box["x"] == pytest.approx(
        box["width"] * 0.25, abs=0.015 * box["width"]
    )


def test_the_mouse_drags_the_divider(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.add(save(tmp_path / "car.png"))
    card = here.await_done("car.png")
    box = card.locator(".frame").bounding_box()
    assert box is not None
    mouse, y = here.page.mouse, box["y"] + box["height"] / 3
    mouse.move(box["x"] + box["width"] / 2, y)
    mouse.down()
    mouse.move(box["x"] + box["width"] * 0.9, y, steps=4)
    mouse.up()
    clip = card.locator(".cut").evaluate("cut => getComputedStyle(cut).clipPath")
    assert float(clip.split()[-1].rstrip("%)")) == pytest.approx(90, abs=1)


def test_darkness_and_stillness_are_honored(visit: Visitor, tmp_path: Path) -> None:
    brightness = {}
    for scheme in ("light", "dark"):
        here = visit(color_scheme=scheme, reduced_motion="reduce")
        here.page.route("**/v1/segment", lambda _: None)
        here.add(save(tmp_path / "car.png"))
        expect(here.card("car.png").get_by_text("Looking for vehicles")).to_be_visible()
        ground, ink, animation = here.page.evaluate(
            "() => { const { backgroundColor, color } = getComputedStyle(document.body);"
            " const dot = getComputedStyle(document.querySelector('.state'), '::after');"
            " return [backgroundColor, color, dot.animationName] }"
        )
        brightness[scheme] = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in (ground, ink)]
        assert animation == "none"
    assert brightness["light"][0] > 600 > 200 > brightness["light"][1]
    assert brightness["dark"][0] < 200 < 600 < brightness["dark"][1]
