"""The built site: no page asks another host for anything, and the search works without a network.

`make docs` builds it first; without it, these tests are skipped.
"""

from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
SITE = ROOT / "out" / "site"
pytestmark = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="no site: run `make docs` first")


class Loaded(HTMLParser):
    """Collects the addresses that a browser loads while it shows a page; what one can click on is not among them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        names = ("src", "srcset", "data", "poster")
        self.addresses += [value for name in names if tag != "a" and (value := values.get(name))]
        if tag == "link" and values.get("rel") not in {"next", "prev", "canonical"}:
            self.addresses.append(values.get("href") or "")


def test_no_page_loads_anything_from_another_host() -> None:
    pages = list(SITE.rglob("*.html"))
    assert len(pages) > 20
    foreign = {
        (page.name, address)
        for page in pages
        for address in Loaded(page.read_text(encoding="utf-8")).addresses
        if "//" in address and not address.startswith("data:")
    }
    assert foreign == set()


def test_search_finds_pages_that_are_opened_as_files(chromium: "Browser") -> None:
    requested: list[str] = []
    page = chromium.new_page(viewport={"width": 1280, "height": 800})
    page.on("request", lambda request: requested.append(request.url))
    page.goto((SITE / "index.html").as_uri())
    page.get_by_role("textbox", name="Search").click()
    page.keyboard.type("receptive field")
    result = page.locator(".md-search-result__item a").first
    result.wait_for(timeout=20_000)
    address = result.get_attribute("href") or ""
    page.goto((SITE / "reference" / "commands.html").as_uri())
    page.wait_for_load_state()
    page.close()
    assert "unet" in address or "networks" in address
    assert [url for url in requested if not url.startswith(("file:", "data:", "blob:"))] == []
