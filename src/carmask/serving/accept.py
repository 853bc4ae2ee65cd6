"""Which of the forms that an answer may have the client wants (RFC 9110, 12.5.1)."""

from collections.abc import Sequence


def choose(accept: str, offers: Sequence[str]) -> str | None:
    """The offer that a header `Accept` values most, the first of those it values alike; none where it wants none."""
    ranges = [_parsed(text) for text in accept.split(",") if text.strip()]
    if not ranges:
        return offers[0]
    best = max(offers, key=lambda offer: _quality(offer, ranges))
    return best if _quality(best, ranges) > 0 else None


def _parsed(text: str) -> tuple[str, float]:
    media_type, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
    try:
        return media_type, min(1.0, max(0.0, float(quality)))
    except ValueError:
        return media_type, 0.0


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """What the most specific of the ranges that hold the offer says of it."""
    whole, family = offer, f"{offer.partition('/')[0]}/*"
    for wanted in (whole, family, "*/*"):
        found = [quality for media_type, quality in ranges if media_type == wanted]
        if found:
            return max(found)
    return 0.0
