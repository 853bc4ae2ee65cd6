"""What is refused, and how that is said: a status, a code for programs, a sentence for people."""

import secrets
from collections.abc import Mapping
from http import HTTPStatus

from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

# Seconds after which a refused client may try again. The queue is worked off in about that time.
RETRY_AFTER_S = 2

# What a status is called where nobody said it better.
_CODES = {
    404: ("not_found", "there is nothing at this address; GET /docs says what there is"),
    405: ("method_not_allowed", "this address takes another method; the header Allow says which"),
}


class ErrorDetails(BaseModel):
    """What went wrong."""

    code: str = Field(description="for programs", examples=["too_large"])
    message: str = Field(description="for people: what is wrong, and what to do")
    request_id: str = Field(description="by which the service's log names the request; also in X-Request-Id")


class ErrorAnswer(BaseModel):
    """Every answer that is no success."""

    error: ErrorDetails


class Refusal(HTTPException):
    """A request that is not served. `code` is for programs and for metrics, `message` for people."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.code = code
        self.message = message


def busy(code: str, message: str) -> Refusal:
    """A refusal for the time being."""
    return Refusal(503, code, f"{message}; try again in {RETRY_AFTER_S} seconds", {"Retry-After": str(RETRY_AFTER_S)})


def not_ready(obstacle: str) -> Refusal:
    """A refusal until something is over or mended."""
    return busy("not_ready", f"photos cannot be cut out: {obstacle}")


def defect() -> Refusal:
    """What is said of our own mistakes."""
    return Refusal(500, "internal_error", "the service failed; its log says more under this request's id")


def as_refusal(error: HTTPException) -> Refusal:
    """What Starlette refuses by itself, in our words."""
    if isinstance(error, Refusal):
        return error
    code, message = _CODES.get(error.status_code, ("refused", HTTPStatus(error.status_code).phrase.lower()))
    return Refusal(error.status_code, code, message, error.headers)


def new_request_id() -> str:
    """An id for a request that has none."""
    return secrets.token_hex(8)


def answer(refusal: Refusal, request_id: str) -> Response:
    """The refusal as it goes to the client."""
    details = ErrorDetails(code=refusal.code, message=refusal.message, request_id=request_id)
    # Ends with a line's end, for who sees it in a terminal.
    text = ErrorAnswer(error=details).model_dump_json() + "\n"
    return Response(text, refusal.status_code, refusal.headers, media_type="application/json")
