"""A visit to the page, for the tests of it."""

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

# A quiet machine answers in a tenth of this.
PATIENCE_MS = 60_000
# Of the service that the tests share.
MAX_BYTES = 400_000
MAX_PIXELS = 2_000_000


class Visit:
    """The page in a browser of its own memory, watched for what it must not do. is_open: no token is wanted."""

    def __init__(self, browser: Browser, address: str, options: dict[str, Any], *, is_open: bool = True) -> None:
        self.address = address
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        # Watched from the start: Chromium would need a moment for it when it is asked for.
        self.page.on("filechooser", lambda _: None)
        self.page.goto(address)
        if is_open:
            expect(self.page.get_by_text(re.compile("up to .* megapixels"))).to_be_visible()

    def add(self, *files: Path) -> None:
        """Choose files, as by the button."""
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("button", name="Choose photos").click()
        chooser.value.set_files(files)

    def card(self, name: str) -> Locator:
        return self.page.get_by_role("article", name=name, exact=True)

    def await_done(self, name: str) -> Locator:
        """The card of a photo, once it is cut out and drawn."""
        card = self.card(name)
        expect(card.get_by_role("button", name="Download mask")).to_be_visible()
        card.scroll_into_view_if_needed()
        expect(card.get_by_role("slider", name="Before and after")).to_be_visible()
        return card

    def pixels(self, card: Locator, canvas: str = "after") -> NDArray[np.uint8]:
        """The RGBA pixels of a card's canvas, once all is drawn that was asked for: uint8 (height, width, 4)."""
        self.page.evaluate("() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        png = card.locator(f"canvas.{canvas}").evaluate(
            "async canvas => { const blob = await new Promise(done => canvas.toBlob(done));"
            " return btoa(Array.from(new Uint8Array(await blob.arrayBuffer()), b => String.fromCharCode(b)).join('')) }"
        )
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA"))

    def await_alpha(self, card: Locator, is_right: Callable[[NDArray[np.int16]], bool]) -> None:
        """Wait until the alpha (int16, height x width) of a card's result is right; the old result stays until then."""
        for _ in range(PATIENCE_MS // 100):
            if is_right(self.pixels(card)[..., 3].astype(np.int16)):
                return
            self.page.wait_for_timeout(100)
        raise AssertionError("the card still shows something else")

    def slide(self, card: Locator, percent: int) -> None:
        """Move the threshold."""
        card.get_by_role("slider", name="Threshold").fill(str(percent))

    def download(self, button: Locator) -> tuple[str, bytes]:
        """Name and content of the file that a button saves."""
        with self.page.expect_download() as saved:
            button.click()
        return saved.value.suggested_filename, Path(saved.value.path()).read_bytes()

    def close(self) -> None:
        """End the visit, and see that it was a quiet one."""
        self.context.close()
        elsewhere = [url for url in self.asked if not url.startswith((self.address, "blob:", "data:"))]
        assert not elsewhere
        # What the service refuses the browser reports too, in these words alone.
        assert not [words for words in self.complaints if "Failed to load resource" not in words]


Visitor = Callable[..., Visit]
