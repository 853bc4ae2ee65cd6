"""What axe-core finds wrong for people with disabilities: nothing, in every state of the page and on the review page.

`tests/vendored/axe.min.js` is axe-core 4.10.3 by Deque Systems, under the Mozilla Public License 2.0.
"""

from pathlib import Path
from typing import Any

import pytest

from bright_photos import Command, save

pytest.importorskip("playwright.sync_api", reason="the page is not tested: no Playwright (pip install playwright)")
from page_browser import Visitor, expect
from playwright.sync_api import Browser, Page

pytest_plugins = ["page_fixtures"]

AXE = Path(__file__).parents[1] / "vendored" / "axe.min.js"
LOOKS: list[dict[str, Any]] = [
    {"color_scheme": "light"},
    {"viewport": {"width": 390, "height": 700}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"},
]


def violations(page: Page) -> list[str]:
    """Each rule of WCAG 2.2 A and AA, and of good practice, that an element breaks."""
    # Not as a script of the page, which the service's policy forbids.
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[str] = page.evaluate(
        "async () => (await axe.run()).violations.flatMap(({ id, nodes }) =>"
        " nodes.map(({ html, failureSummary }) => `${id}: ${html} ${failureSummary}`))"
    )
    return found


def test_axe_finds_what_is_wrong(chromium: Browser) -> None:
    page = chromium.new_page()
    page.set_content("<title>t</title><button></button><p style='color: #ddd; background: #fff'>pale")
    found = {line.partition(":")[0] for line in violations(page)}
    page.close()
    assert {"button-name", "color-contrast", "html-has-lang"} <= found


@pytest.mark.parametrize("look", LOOKS, ids=["light", "dark phone"])
def test_the_page(visit: Visitor, tmp_path: Path, look: dict[str, Any]) -> None:
    here = visit(**look)
    assert violations(here.page) == []
    (tmp_path / "notes.txt").write_text("no picture")
    here.add(save(tmp_path / "one.png"), save(tmp_path / "two.png"), tmp_path / "notes.txt")
    expect(here.card("notes.txt").get_by_role("button", name="Try again")).to_be_visible()
    here.slide(here.await_done("one.png"), 30)
    assert violations(here.page) == []
    here.page.get_by_role("radio", name="Showroom").check()
    expect(here.card("one.png").get_by_role("img", name="Showroom")).to_be_visible()
    assert violations(here.page) == []
    here.card("one.png").get_by_role("button", name="Correct mask").click()
    expect(here.page.get_by_role("dialog")).to_be_visible()
    assert violations(here.page) == []


@pytest.mark.parametrize("look", LOOKS, ids=["light", "dark phone"])
def test_the_review_page(chromium: Browser, predict: Command, tmp_path: Path, look: dict[str, Any]) -> None:
    for name in ("a/one.png", "a/two.png", "b/three.png"):
        save(tmp_path / "photos" / name)
    assert predict(tmp_path / "photos", tmp_path / "out", "--review", "3") == 0
    context = chromium.new_context(**look)
    page = context.new_page()
    page.goto((tmp_path / "out" / "review.html").as_uri())
    for key in ("a", "r", "ArrowLeft"):
        assert violations(page) == []
        page.keyboard.press(key)
    assert page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
    context.close()
