"""The Accept header chooses among the media types of a response."""

import pytest

from carmask.serving.errors import ServiceError
from carmask.serving.responses import choose_media_type

OFFERS = ("image/png", "image/webp", "application/json")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "image/png"),
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("image/webp", "image/webp"),
        ("application/json", "application/json"),
        ("Application/JSON; charset=utf-8", "application/json"),
        ("application/*", "application/json"),
        ("image/avif,image/webp,*/*;q=0.8", "image/webp"),
        ("application/json, text/plain, */*", "image/png"),
        ("image/*;q=0.5, application/json", "application/json"),
        ("*/*, image/png;q=0", "image/webp"),
        ("image/png;q=0.2, image/*;q=0.9", "image/webp"),
        (",, ,", "image/png"),
    ],
)
def test_choice(accept: str, chosen: str) -> None:
    assert choose_media_type(accept, OFFERS) == chosen


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "image/png;q=nonsense"])
def test_nothing_acceptable(accept: str) -> None:
    with pytest.raises(ServiceError) as caught:
        choose_media_type(accept, OFFERS)
    assert (caught.value.status_code, caught.value.code) == (406, "not_acceptable")
