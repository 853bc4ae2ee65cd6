"""The response with a result: the same bytes that `carmask predict` writes, or a JSON description of the mask."""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from carmask.imaging.rle import encode_carvana
from carmask.result import Result
from carmask.serving.errors import ServiceError
from carmask.serving.schemas import GEOJSON, JSON, MULTIPART, PICTURE_TYPES, ZIP, Segmentation

# The body is sent in pieces, each after the client has taken the one before. Until then its memory stays reserved.
_PIECE_BYTES = 256 * 1024

# Name, meaning and pattern of the headers that summarize a result.
_HEADERS = (
    ("X-Carmask-Size", "height,width of the photo as displayed, in pixels", r"^\d+,\d+$"),
    (
        "X-Carmask-Box",
        "top,left,bottom,right of the box around the mask in pixels, bottom and right exclusive; or none",
        r"^(none|\d+,\d+,\d+,\d+)$",
    ),
    ("X-Carmask-Coverage", "the share of the photo that the mask covers, 0..1", r"^[01]\.\d{6}$"),
    (
        "X-Carmask-Expected-Dice",
        "the Dice that the mask is expected to have with the true one, 0..1; or none, if the network is not calibrated",
        r"^(none|[01]\.\d{4})$",
    ),
    ("X-Carmask-Remark", "what was left out of the photo, such as further frames; or none", "^[ -~]+$"),
    ("X-Carmask-Seconds", "from the photo's arrival to the response", r"^\d+\.\d{4}$"),
)
RESULT_HEADERS = tuple(name for name, _, _ in _HEADERS)


class ResultResponse(Response):
    """Sends a result piece by piece, and frees its memory when the client has it or is gone.

    body: the encoded result. found: what the headers summarize. seconds: from the photo's arrival to now. release:
    frees the memory that is reserved for `body`.
    """

    def __init__(
        self, body: bytes, media_type: str, found: Result, seconds: float, release: Callable[[], None]
    ) -> None:
        super().__init__(body, headers={**_result_headers(found, seconds), "Vary": "Accept"}, media_type=media_type)
        self.found = found
        self.release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send the result."""
        body = memoryview(self.body)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for start in range(0, len(body), _PIECE_BYTES):
                piece = bytes(body[start : start + _PIECE_BYTES])
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self.release()


def json_body(found: Result, model: str, *, seconds: float, request_id: str) -> bytes:
    """Describe a result as JSON, with the mask as run lengths."""
    segmentation = Segmentation(
        **measurements(found),
        threshold=found.threshold,
        rle=encode_carvana(found.mask),
        model=model,
        remark=found.remark,
        seconds=round(seconds, 4),
        request_id=request_id,
    )
    return segmentation.model_dump_json().encode()


def measurements(found: Result) -> dict[str, Any]:
    """What every description of a result in JSON says."""
    coverage = round(found.coverage, 6)
    return {"size": found.mask.shape, "box": found.box_px, "coverage": coverage, "expected_dice": found.expected_dice}


def _result_headers(found: Result, seconds: float) -> dict[str, str]:
    values = (
        ",".join(map(str, found.mask.shape)),
        "none" if found.box_px is None else ",".join(map(str, found.box_px)),
        f"{found.coverage:.6f}",
        "none" if found.expected_dice is None else f"{found.expected_dice:.4f}",
        found.remark or "none",
        f"{seconds:.4f}",
    )
    return dict(zip(RESULT_HEADERS, values, strict=True))


def describe_result() -> dict[str, Any]:
    """The successful response in FastAPI's `responses`."""
    picture = {"schema": {"type": "string", "format": "binary"}}
    headers = {
        name: {"description": description, "schema": {"type": "string", "pattern": pattern}}
        for name, description, pattern in _HEADERS
    }
    geojson = {"schema": {"type": "object", "required": ["type", "features"]}}
    return {
        "description": "The result in the format that the Accept header prefers: a picture, GeoJSON for polygons, or "
        "a JSON description of the mask. Of several photos an archive with the results: application/zip, or "
        "multipart/mixed.",
        "model": Segmentation,
        "headers": headers,
        "content": {
            **dict.fromkeys(PICTURE_TYPES.values(), picture),
            GEOJSON: geojson,
            JSON: {},
            ZIP: picture,
            MULTIPART: picture,
        },
    }


def choose_media_type(accept: str, offers: Sequence[str]) -> str:
    """The offer that an Accept header prefers, the first of those it prefers alike (RFC 9110, 12.5.1).

    Raises:
        ServiceError: 406, the header allows none of them.
    """
    if not accept.replace(",", "").strip():
        return offers[0]
    # Of a range that is given twice, the higher quality counts.
    ranges = dict(sorted(map(_parse_range, accept.split(",")), key=itemgetter(1)))
    best = max(offers, key=lambda offer: _quality(offer, ranges))
    if _quality(best, ranges) == 0:
        raise ServiceError(406, "not_acceptable", f"the Accept header allows none of {', '.join(offers)}")
    return best


def _parse_range(text: str) -> tuple[str, float]:
    media_type, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = next((value[2:] for value in parameters if value.startswith("q=")), "1")
    try:
        return media_type, min(1.0, max(0.0, float(quality)))
    except ValueError:
        return media_type, 0.0


def _quality(offer: str, ranges: Mapping[str, float]) -> float:
    """The quality of the most specific range that matches the offer."""
    matching = (offer, f"{offer.partition('/')[0]}/*", "*/*")
    return next((ranges[media_type] for media_type in matching if media_type in ranges), 0.0)
