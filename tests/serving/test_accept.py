"""What a client wants, by its header Accept."""

import pytest

from carmask.serving.accept import choose

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
        ("text/html", None),
        ("*/*;q=0", None),
        ("image/png;q=nonsense", None),
        (",, ,", "image/png"),
    ],
)
def test_choice(accept: str, chosen: str | None) -> None:
    assert choose(accept, OFFERS) == chosen
