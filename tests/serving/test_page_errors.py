"""What goes wrong is said in words, beside the photo that it concerns; in real Chromium."""

import secrets
from pathlib import Path

import pytest
from PIL import Image

from bright_photos import save

pytest.importorskip("playwright.sync_api", reason="the page is not tested: no Playwright (pip install playwright)")
from page_browser import MAX_BYTES, Visit, Visitor, expect
from playwright.sync_api import Browser, Route
from service_process import running

pytest_plugins = ["page_fixtures"]


def test_files_that_are_no_photos(visit: Visitor, tmp_path: Path) -> None:
    good = save(tmp_path / "good.jpg")
    (tmp_path / "notes.txt").write_text("no picture at all\n")
    (tmp_path / "broken.jpg").write_bytes(good.read_bytes()[:700])
    (tmp_path / "<b>empty.png").touch()
    here = visit()
    here.add(tmp_path / "notes.txt", tmp_path / "broken.jpg", good, tmp_path / "<b>empty.png")
    here.await_done("good.jpg")
    expect(here.page.get_by_role("status")).to_have_text("1 of 4 photos done, 3 could not be cut out.")
    for name in ("notes.txt", "broken.jpg", "<b>empty.png"):
        card = here.card(name)
        expect(card.locator(".trouble .problem")).to_be_visible()
        expect(card.get_by_role("button", name=f"Try again with {name}")).to_be_visible()
        expect(card.get_by_role("button", name="Download mask")).to_be_hidden()
        expect(card.locator("canvas.before")).to_be_hidden()
        expect(card).not_to_contain_text("Downloads work")
    # The others can still be taken away together.
    expect(here.page.get_by_role("button", name="Download all as zip")).to_be_enabled()


def test_limits_are_told_beforehand_and_nothing_beyond_them_is_sent(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    expect(here.page.get_by_text("up to 0.4 MB and 2 megapixels each")).to_be_visible()
    (tmp_path / "heavy.jpg").write_bytes(save(tmp_path / "car.jpg").read_bytes() + bytes(MAX_BYTES))
    Image.new("1", (2000, 1001)).save(tmp_path / "large.png")
    here.add(tmp_path / "heavy.jpg", tmp_path / "large.png")
    expect(here.card("heavy.jpg")).to_contain_text("more than the 0.4 MB that this service takes. Save it smaller.")
    expect(here.card("large.png")).to_contain_text(
        "The photo has 2 megapixels, more than the 2 megapixels that this service"
    )
    assert not [url for url in here.asked if url.endswith("/v1/segment")]


def test_a_service_that_is_away_can_be_tried_again(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.context.set_offline(True)
    here.add(save(tmp_path / "car.png"))
    card = here.card("car.png")
    expect(card).to_contain_text("The service does not answer.")
    here.context.set_offline(False)
    card.get_by_role("button", name="Try again").click()
    expect(card).to_be_focused()
    expect(here.await_done("car.png")).to_contain_text("vehicle covers")
    expect(card.get_by_text("The service does not answer.")).to_be_hidden()


def test_a_busy_service_is_left_alone_and_asked_again(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    refused: list[str] = []

    def refuse_three(route: Route) -> None:
        if len(refused) < 3:
            refused.append(route.request.url)
            route.fulfill(status=503, headers={"Retry-After": "2"}, json={"error": {"message": "the queue is full"}})
        else:
            route.continue_()

    here.page.route("**/v1/segment", refuse_three)
    here.add(*(save(tmp_path / f"{number}.png") for number in range(5)))
    expect(here.page.get_by_role("status")).to_contain_text("The service is busy; trying again in 2 s.")
    expect(here.page.get_by_role("status")).to_have_text("5 of 5 photos done.")
    assert len(refused) == 3


def test_a_file_that_is_gone_since(visit: Visitor, tmp_path: Path) -> None:
    photo = save(tmp_path / "car.png")
    here = visit()
    here.add(photo)
    card = here.await_done("car.png")
    photo.unlink()
    card.get_by_role("button", name="Download mask").click()
    expect(card.get_by_role("alert")).to_contain_text("changed, moved or deleted since it was added")


def test_a_background_that_is_no_picture(visit: Visitor, tmp_path: Path) -> None:
    here = visit()
    here.add(save(tmp_path / "car.png"))
    here.await_done("car.png")
    (tmp_path / "notes.txt").write_text("no picture")
    with here.page.expect_file_chooser() as chooser:
        here.page.get_by_role("button", name="Choose picture").click()
    chooser.value.set_files(tmp_path / "notes.txt")
    expect(here.page.get_by_role("alert")).to_contain_text("notes.txt: your browser cannot show this picture")
    expect(here.page.get_by_role("radio", name="Transparent")).to_be_checked()


def test_a_token_is_asked_for(chromium: Browser, bright: Path, tmp_path: Path) -> None:
    token = secrets.token_urlsafe(24)
    (tmp_path / "token").write_text(token)
    with running("-m", bright, "--engine", "onnxruntime", "--token-file", tmp_path / "token") as service:
        here = Visit(chromium, f"{service.address}/", {}, is_open=False)
        field = here.page.get_by_label("Access token")
        expect(field).to_be_visible()
        here.add(save(tmp_path / "car.png"))
        field.fill("wrong")
        field.press("Enter")
        expect(here.page.get_by_role("alert")).to_have_text("This token was not accepted.")
        assert token not in here.page.content()
        field.fill(token)
        here.page.get_by_role("button", name="Continue").click()
        expect(here.await_done("car.png")).to_contain_text("vehicle covers")
        expect(field).to_be_hidden()
        assert here.page.evaluate("() => localStorage.length + sessionStorage.length + document.cookie.length") == 0
        here.close()
