"""The review page in real Chromium, opened as a file: `carmask predict --review`, decisions, `carmask review apply`."""

import csv
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bright_onnx import write_bright_onnx
from bright_photos import DARK, Command, contents, save

pytest.importorskip("playwright.sync_api", reason="the page is not tested: no Playwright (pip install playwright)")
from playwright.sync_api import Browser, Page, expect

Opener = Callable[..., Page]
# The dullest photo is the most doubtful one: `bright_onnx` is less sure of it.
LEVELS = {"b/dull.png": 140, "a/bright, light.png": 210, "a/middle.png": 170, "top.jpg": 190}
ORDER = ["b/dull.png", "a/middle.png", "top.jpg", "a/bright, light.png"]


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Opener]:
    """Open a page from the disk; in the end nothing may have been asked elsewhere or complained about."""
    contexts = []
    asked: list[str] = []
    complaints: list[str] = []

    def open_file(path: Path, **options: Any) -> Page:
        contexts.append(chromium.new_context(**options))
        page = contexts[-1].new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path.absolute().as_uri())
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    assert not complaints


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bright_onnx(tmp_path_factory.mktemp("bright") / "bright.onnx")


@pytest.fixture
def predict(network: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command("predict", capsys, "-m", str(network), "--engine", "onnxruntime", "--device", "cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, level in LEVELS.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image_HW = np.full((120, 180), DARK, np.uint8)
        image_HW[30:90, 60:150] = level
        Image.fromarray(image_HW).convert("RGB").save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))
    return tmp_path / "photos"


def shown(page: Page) -> str:
    return page.locator("#name").inner_text()


def is_inside(page: Page, x: float, y: float) -> bool:
    """Whether a point of the photo lies inside the outline, as the browser fills it."""
    found: bool = page.locator("#mask .line").evaluate(
        "(path, [x, y]) => new Path2D(path.getAttribute('d')) && document.createElement('canvas').getContext('2d')"
        ".isPointInPath(new Path2D(path.getAttribute('d')), x, y, 'evenodd')",
        [x, y],
    )
    return found


def box(page: Page, part: str) -> dict[str, float]:
    found = page.locator(part).bounding_box()
    assert found is not None
    return dict(found)


def assert_fits(page: Page) -> None:
    """All of the photo is seen at once, as large as that allows, and the outline lies where the vehicle is."""
    caption, photo, outline, footer = (box(page, part) for part in ("figcaption", "#photo", "#mask .line", "footer"))
    assert photo["y"] == pytest.approx(caption["y"] + caption["height"], abs=1)
    assert photo["y"] + photo["height"] == pytest.approx(footer["y"], abs=1)
    fit = page.locator("#photo").evaluate(
        "photo => [getComputedStyle(photo).objectFit, getComputedStyle(photo).objectPosition]"
    )
    assert fit == ["contain", "50% 0%"]
    scale = min(photo["width"] / 180, photo["height"] / 120)
    left = photo["x"] + (photo["width"] - 180 * scale) / 2
    wanted = (left + 60 * scale, photo["y"] + 30 * scale, 90 * scale, 60 * scale)
    # The box of the outline has four pixels more at each side, for the corners of its line.
    assert tuple(outline[side] for side in ("x", "y", "width", "height")) == pytest.approx(wanted, abs=9)


def export(page: Page, path: Path) -> list[dict[str, str]]:
    with page.expect_download() as saved:
        page.get_by_role("button", name="Export").click()
    assert saved.value.suggested_filename == "decisions.csv"
    shutil.copy(saved.value.path(), path)
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_whole_review(predict: Command, photos: Path, open_page: Opener, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(photos, out, "--review", "100%") == 0
    page = open_page(out / "review.html", viewport={"width": 900, "height": 700})
    assert shown(page) == ORDER[0]
    expect(page.locator("#photo")).to_have_attribute("data-shows", "photo")
    assert_fits(page)
    for x, y, inside in ((61, 31, True), (149, 89, True), (58, 50, False), (152, 50, False), (100, 92, False)):
        assert is_inside(page, x, y) == inside
    page.keyboard.press("a")
    assert shown(page) == ORDER[1]
    page.keyboard.press("r")
    page.get_by_role("button", name="Correct").click()
    expect(page.get_by_role("status")).to_contain_text("1 of 4 left; 1 accepted, 1 rejected, 1 to correct")
    page.keyboard.press("z")
    assert shown(page) == ORDER[2]
    page.keyboard.press("c")
    # What was decided is there again, also after the page was written again.
    assert predict(photos, out, "--review", "100%") == 0
    assert predict.done_before == (4, 4)
    page.reload()
    expect(page.get_by_role("status")).to_contain_text("1 of 4 left")
    assert shown(page) == ORDER[3]
    rows = export(page, tmp_path / "decisions.csv")
    assert [(row["name"], row["decision"]) for row in rows] == list(
        zip(ORDER, ("accept", "reject", "correct"), strict=False)
    )
    assert [Path(row["photo"]) for row in rows] == [photos / name for name in ORDER[:3]]


def test_a_held_key_decides_once_and_undo_gives_back_what_was_decided_before(
    predict: Command, photos: Path, open_page: Opener, tmp_path: Path
) -> None:
    assert predict(photos, tmp_path / "out", "--review", "4") == 0
    page = open_page(tmp_path / "out" / "review.html")
    for _ in range(3):
        page.keyboard.down("a")
    page.keyboard.up("a")
    expect(page.get_by_role("status")).to_contain_text("3 of 4 left; 1 accepted")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("r")
    expect(page.get_by_role("status")).to_contain_text("3 of 4 left; 0 accepted, 1 rejected")
    page.keyboard.press("z")
    assert shown(page) == ORDER[0]
    expect(page.get_by_role("status")).to_contain_text("3 of 4 left; 1 accepted, 0 rejected")
    for combination in ("Control+Shift+z", "Control+a"):
        page.keyboard.press(combination)
    expect(page.get_by_role("status")).to_contain_text("3 of 4 left; 1 accepted, 0 rejected")
    page.keyboard.press("Control+z")
    expect(page.get_by_role("status")).to_contain_text("4 of 4 left")
    page.keyboard.press("a")
    page.keyboard.press("Meta+z")
    expect(page.get_by_role("status")).to_contain_text("4 of 4 left")
    # Beside a page on a Windows server.
    assert page.evaluate("placeOf('file://server/share/a%20b.jpg', '')") == "//server/share/a b.jpg"


def test_keys_of_a_keyboard_without_latin_letters(
    predict: Command, photos: Path, open_page: Opener, tmp_path: Path
) -> None:
    """Such as a Cyrillic or a Hebrew one: the keys in the places of the English ones."""
    assert predict(photos, tmp_path / "out", "--review", "4") == 0
    page = open_page(tmp_path / "out" / "review.html")
    session = page.context.new_cdp_session(page)
    control = 2
    for key, code, modifiers, wanted in (
        ("ф", "KeyA", 0, "3 of 4 left; 1 accepted, 0 rejected"),
        ("ר", "KeyR", 0, "2 of 4 left; 1 accepted, 1 rejected"),
        ("я", "KeyZ", control, "3 of 4 left; 1 accepted, 0 rejected"),
        ("ז", "KeyZ", 0, "4 of 4 left"),
    ):
        session.send("Input.dispatchKeyEvent", {"type": "keyDown", "key": key, "code": code, "modifiers": modifiers})
        session.send("Input.dispatchKeyEvent", {"type": "keyUp", "key": key, "code": code, "modifiers": modifiers})
        expect(page.get_by_role("status")).to_contain_text(wanted)


@pytest.mark.parametrize(("width", "height"), [(390, 844), (820, 1180)])
def test_fingers_hit_every_control(
    predict: Command, photos: Path, open_page: Opener, tmp_path: Path, width: int, height: int
) -> None:
    assert predict(photos, tmp_path / "out", "--review", "4") == 0
    size = {"width": width, "height": height}
    page = open_page(tmp_path / "out" / "review.html", viewport=size, has_touch=True, is_mobile=True)
    controls = page.locator("button:visible, select:visible, a:visible").all()
    assert len(controls) == 11
    for control in controls:
        at = control.bounding_box()
        assert at is not None
        assert min(at["width"], at["height"]) >= 44
        assert at["x"] >= 0
        assert at["x"] + at["width"] <= width


def test_folders_and_decisions_filter(predict: Command, photos: Path, open_page: Opener, tmp_path: Path) -> None:
    assert predict(photos, tmp_path / "out", "--review", "4") == 0
    page = open_page(tmp_path / "out" / "review.html")
    # As with a mouse, after which the keys are for the photos again.
    folder = page.get_by_label("Folder")
    folder.dispatch_event("pointerdown")
    folder.focus()
    folder.select_option("a")
    assert shown(page) == "a/middle.png"
    page.keyboard.press("a")
    assert shown(page) == "a/bright, light.png"
    expect(page.get_by_role("status")).to_contain_text("1 of 2 left")
    page.get_by_label("Show").select_option("accept")
    assert shown(page) == "a/middle.png"
    page.get_by_label("Show").select_option("reject")
    expect(page.get_by_text("No photo to show here")).to_be_visible()
    page.get_by_label("Folder").select_option("")
    page.get_by_label("Show").select_option("left")
    assert shown(page) == "b/dull.png"


def test_the_most_doubtful_of_resumed_runs(predict: Command, photos: Path, open_page: Opener, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(photos / "b", photos / "top.jpg", out) == 0
    before = contents(out)
    assert predict(photos / "b", photos / "top.jpg", out, "--review", "50%") == 0
    assert predict.done_before == (2, 2)
    assert {name: data for name, data in contents(out).items() if name != "review.html"} == before
    page = open_page(out / "review.html")
    assert page.get_by_role("status").inner_text().startswith("1 of 1 left")
    assert shown(page) == ORDER[0]


def test_a_moved_folder_and_odd_photos_have_pictures(predict: Command, open_page: Opener, tmp_path: Path) -> None:
    save(tmp_path / "all" / "photos" / "scan 1#.tif")
    save(tmp_path / "all" / "photos" / "50% näher.png", None)
    assert predict(tmp_path / "all" / "photos", tmp_path / "all" / "out", "--kind", "cutout", "--review", "2") == 0
    (tmp_path / "all").rename(tmp_path / "moved")
    page = open_page(tmp_path / "moved" / "out" / "review.html")
    for _ in range(2):
        is_tiff = shown(page).endswith(".tif")
        expect(page.locator("#photo")).to_have_attribute("data-shows", "preview" if is_tiff else "photo")
        assert page.locator("#photo").evaluate("async picture => (await picture.decode(), picture.naturalWidth)") == 180
        page.keyboard.press("a")
    rows = export(page, tmp_path / "decisions.csv")
    assert all(Path(row[kind]).is_file() for row in rows for kind in ("photo", "result"))


def test_decisions_become_lists_and_folders(
    predict: Command, photos: Path, open_page: Opener, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, table = tmp_path / "out", tmp_path / "decisions.csv"
    assert predict(photos, out, "--review", "4") == 0
    page = open_page(out / "review.html")
    for key in "arca":
        expect(page.get_by_text("carmask review apply")).to_be_hidden()
        page.keyboard.press(key)
    expect(page.get_by_text("carmask review apply")).to_be_visible()
    export(page, table)
    review = Command("review", capsys)
    assert review("apply", table) == 0
    lists = tmp_path / "decisions"
    accepted = [str(photos / name) for name in (ORDER[0], ORDER[3])]
    assert (lists / "accepted.txt").read_text().splitlines() == accepted
    # A list is a source for the next step.
    assert predict(lists / "to_correct.txt", tmp_path / "outlines", "--kind", "labelme") == 0
    assert predict.written == (1, 1)
    assert review("apply", table, tmp_path / "sorted", "--copy") == 0
    found = contents(tmp_path / "sorted")
    assert found["accepted/images/b/dull.png"] == (photos / "b/dull.png").read_bytes()
    assert found["accepted/masks/b/dull.png"] == (out / "b/dull.png").read_bytes()
    assert set(found) == {
        *("accepted.txt", "rejected.txt", "to_correct.txt"),
        *(f"accepted/{kind}/{name}" for kind in ("images", "masks") for name in (ORDER[0], ORDER[3])),
        *(f"rejected/{kind}/{ORDER[1]}" for kind in ("images", "masks")),
        *("to_correct/images/top.jpg", "to_correct/masks/top.png"),
    }
    # What people may have corrected is never replaced.
    review.assert_refused("apply", table, tmp_path / "sorted", "--copy", naming=("accepted",))
    assert contents(tmp_path / "sorted") == found
    (photos / "top.jpg").unlink()
    review.assert_refused("apply", table, tmp_path / "again", "--copy", naming=("top.jpg",))
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    "text", ["photo,cause\n", "name,decision,score,photo,result\n../up.png,accept,1,/a,/b\n", "\N{NULL}", ""]
)
def test_a_wrong_table_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "decisions.csv"
    table.write_text(text)
    Command("review", capsys).assert_refused("apply", table, naming=("decisions.csv",))


def test_what_cannot_be_reviewed_is_refused_before_it_starts(predict: Command, photos: Path, tmp_path: Path) -> None:
    predict.assert_refused(photos / "top.jpg", tmp_path / "one.png", "--review", "1", naming=("--review",))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "review.html").write_text("<p>mine")
    predict.assert_refused(photos, tmp_path / "out", "--review", "1", naming=("review.html",))
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "review.html"]


def test_two_thousand_photos_open_at_once(network: Path, open_page: Opener, tmp_path: Path) -> None:
    from carmask.review.page import ReviewItem, write_page
    from carmask.segmenter import Segmenter

    rng = np.random.default_rng(0)
    preview = tmp_path / "preview.jpg"
    Image.fromarray(rng.integers(0, 256, (50, 75, 3), np.uint8)).resize((496, 331)).save(preview, quality=78)
    outline = "".join(f"M{' '.join(f'{x},{y}' for x, y in rng.integers(0, 1900, (150, 2)))}z" for _ in range(3))

    def items() -> Iterator[tuple[ReviewItem, bytes]]:
        for number in range(2000):
            name = f"{number % 7}/{number}.jpg"
            yield (
                ReviewItem(name, name, name, name, f"gone/{name}", None, 0.9, 1918, 1280, outline),
                preview.read_bytes(),
            )

    assert write_page(tmp_path / "review.html", tmp_path, Segmenter.load(network), items()) == 2000
    page = open_page(preview)
    started_s = time.perf_counter()
    page.goto((tmp_path / "review.html").as_uri())
    expect(page.get_by_role("status")).to_contain_text("2000 of 2000 left")
    page.keyboard.press("a")
    expect(page.get_by_role("status")).to_contain_text("1999 of 2000 left")
    took_s = time.perf_counter() - started_s
    print(f"{(tmp_path / 'review.html').stat().st_size / 1e6:.0f} MB in {took_s:.2f} s")
    assert took_s < 6, "2 s on a quiet machine"
