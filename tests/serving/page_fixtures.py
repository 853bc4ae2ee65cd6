"""Fixtures of the tests of the page; a module takes them with `pytest_plugins = ["page_fixtures"]`.

Where there is no `chromium` the tests are skipped, and the summary says so.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_browser import MAX_BYTES, MAX_PIXELS, Visit, Visitor
from playwright.sync_api import Browser
from service_process import running

from bright_photos import Command


@pytest.fixture(scope="session")
def address(bright: Path) -> Iterator[str]:
    """A service that takes for a vehicle what is bright, and takes small photos only."""
    limits = ("--max-bytes", MAX_BYTES, "--max-pixels", MAX_PIXELS)
    with running("-m", bright, "--engine", "onnxruntime", "--device", "cpu", "--quiet", *limits) as service:
        yield f"{service.address}/"


@pytest.fixture
def predict(bright: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """`carmask predict` with the same network."""
    return Command("predict", capsys, "-m", str(bright), "--engine", "onnxruntime", "--device", "cpu")


@pytest.fixture
def visit(chromium: Browser, address: str) -> Iterator[Visitor]:
    """Open the page; options are those of a browser's context. In the end nothing may have been asked elsewhere."""
    visits: list[Visit] = []

    def open_page(to: str = address, **options: Any) -> Visit:
        visits.append(Visit(chromium, to, options))
        return visits[-1]

    yield open_page
    for one in visits:
        one.close()
