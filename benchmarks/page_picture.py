"""Draw the picture of the page for the README, with rendered cars: docs/pictures/page.png.

Wants Playwright's Python package and Debian's `chromium`, and a service of one's own:

carmask serve --port 8000 &
python benchmarks/page_picture.py http://127.0.0.1:8000/
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import expect, sync_playwright

from carstudio import render_dataset
from pictures import PICTURES

CARS, VIEWS = 4, 6
# Of the cars that are rendered, in their order, and of their views from 1.
SHOWN = {"pick-up.jpg": (3, 6), "van.jpg": (1, 6)}
PHOTO_HW = (853, 1280)
PAGE_WH = (1180, 1040)
PATIENCE_MS = 120_000


def draw(address: str, photos: list[Path], path: Path) -> None:
    """Open the page, cut out the photos, and save what is seen then."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # Chromium's own sandbox cannot be had by root, as whom containers run.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": PAGE_WH[0], "height": PAGE_WH[1]})
        page.goto(address)
        page.locator("#chooser").set_input_files(photos)
        for photo in photos:
            compare = page.get_by_role("slider", name=f"Before and after, {photo.name}")
            expect(compare).to_be_visible()
            compare.fill("47")
            compare.blur()
        page.screenshot(path=path)
        browser.close()


def main() -> None:
    """Render, draw, save."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with TemporaryDirectory() as folder:
        render_dataset(Path(folder), cars=CARS, views=VIEWS, size_HW=PHOTO_HW, workers=2)
        rendered = sorted((Path(folder) / "train").iterdir())
        photos = []
        for name, (car, view) in SHOWN.items():
            photos.append(rendered[car * VIEWS + view - 1].rename(Path(folder) / name))
        draw(sys.argv[1], photos, PICTURES / "page.png")
    print(f"written to {PICTURES / 'page.png'}")


if __name__ == "__main__":
    main()
