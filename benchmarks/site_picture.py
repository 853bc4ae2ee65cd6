"""Draw the picture of the site for the README: docs/pictures/site.png. `make docs` builds the site first."""

import shutil
from io import BytesIO
from typing import Literal

from PIL import Image
from playwright.sync_api import sync_playwright

from pictures import PICTURES
from record import RESULTS

SITE = RESULTS.parent.parent / "out" / "site"
HEIGHT_PX = 820
# Page, width, colors and how far it is scrolled.
SHOTS: tuple[tuple[str, int, Literal["light", "dark"], int], ...] = (
    ("lesson/unet.html", 1000, "light", 3890),
    ("start/photos.html", 390, "dark", 0),
)


def main() -> None:
    """Take the pictures and lay them side by side, at half their size."""
    shots = []
    with sync_playwright() as playwright:
        # Chromium's own sandbox cannot be had by root, as whom containers run.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, width_px, scheme, scroll_px in SHOTS:
            page = browser.new_page(viewport={"width": width_px, "height": HEIGHT_PX}, color_scheme=scheme)
            page.goto((SITE / name).as_uri())
            page.wait_for_load_state()
            page.evaluate(f"window.scrollTo(0, {scroll_px})")
            page.wait_for_timeout(500)
            shots.append(Image.open(BytesIO(page.screenshot())).convert("RGB"))
        browser.close()
    picture = Image.new("RGB", (sum(shot.width for shot in shots) + 20, HEIGHT_PX), "white")
    left_px = 0
    for shot in shots:
        picture.paste(shot, (left_px, 0))
        left_px += shot.width + 20
    picture.quantize(96).save(PICTURES / "site.png", optimize=True)
    print(f"written to {PICTURES / 'site.png'}")


if __name__ == "__main__":
    main()
