"""Errors that clients see: a status, a code for programs, and a message for people."""

import difflib
import reprlib
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from carmask.errors import CarmaskError
from carmask.imaging.decode import UnreadableImage
from carmask.imaging.formats import FORMATS
from carmask.imaging.image_file import TooManyPixels
from carmask.serving.form import SegmentForm
from carmask.serving.schemas import ErrorDetails, ErrorResponse

# A client that gets 503 may try again after this. The queue is processed in about that time.
RETRY_AFTER_S = 2

# Errors that Starlette raises itself.
_STARLETTE_ERRORS = {
    404: ("not_found", "there is nothing at this address; GET /docs lists what there is"),
    405: ("method_not_allowed", "this address does not accept this method; see the Allow header"),
}
_MAX_NAME_CHARACTERS = 100

# Why a request can fail, by status; for the OpenAPI description.
_DESCRIPTIONS = {
    400: "The form is damaged, or a field or parameter is invalid.",
    401: "A token is required, as `Authorization: Bearer ...`.",
    406: "The Accept header allows none of the formats that the response can have.",
    408: "The request did not arrive in time.",
    413: "The request is too large. It is refused as soon as it reaches the limit.",
    415: "The request is neither multipart/form-data nor a photo with its media type.",
    422: "The photo cannot be read or has too many pixels.",
    431: "The request's headers are too large.",
    500: "The service failed. Its log has the details, under the request's id.",
    503: "The service is busy or not ready yet. The Retry-After header says when to try again.",
}
COMMON_ERRORS = (408, 431, 500, 503)
SEGMENT_ERRORS = (400, 406, 413, 415, 422)


class ServiceError(HTTPException):
    """An error response. `code` is for programs and for the metrics."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.code = code


class ClientDisconnected(ServiceError):
    """The client closed the connection. 499 is what nginx calls it; only the log and the metrics show it."""

    def __init__(self) -> None:
        super().__init__(499, "client_disconnected", "the client closed the connection")


def bad_form(message: str) -> ServiceError:
    """400: something is wrong with the form."""
    return ServiceError(400, "bad_form", message)


def busy(code: str, message: str) -> ServiceError:
    """503: try again soon."""
    message = f"{message}; try again in {RETRY_AFTER_S} seconds"
    return ServiceError(503, code, message, {"Retry-After": str(RETRY_AFTER_S)})


def not_ready(reason: str) -> ServiceError:
    """503: photos cannot be segmented yet, or any more."""
    return busy("not_ready", f"the service is not ready: {reason}")


def internal_error() -> ServiceError:
    """500: a bug of the service."""
    return ServiceError(500, "internal_error", "the service failed; its log has the details under this request's id")


def unprocessable(error: CarmaskError) -> ServiceError:
    """422: the photo cannot be read, or the result cannot be encoded."""
    if isinstance(error, TooManyPixels):
        return ServiceError(422, "too_many_pixels", f"{error.name}: {error.cause}; {error.advice}")
    if isinstance(error, UnreadableImage):
        advice = f"send an intact {FORMATS} file"
        return ServiceError(422, "unreadable", f"{error.name}: {error.cause}; {advice}")
    return ServiceError(422, "cannot_draw", str(error))


def _invalid_form(error: RequestValidationError) -> ServiceError:
    """400: say what is wrong with the first invalid field."""
    fault = error.errors()[0]
    name = printable(".".join(map(str, fault["loc"][1:])))
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, SegmentForm.model_fields, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(sorted(SegmentForm.model_fields))}"
        return bad_form(f"{name!r}: there is no such field; {hint}")
    if name.partition(".")[0] in ("file", "background_file", "mask_file"):
        name = name.partition(".")[0]
        return bad_form(f"{name}: send a file in this field, for example with curl -F {name}=@car.jpg")
    message = fault["msg"].removeprefix("Value error, ")
    return bad_form(f"{name} = {reprlib.repr(fault['input'])}: {message}" if name else message)


def as_service_error(error: Exception) -> ServiceError:
    """Give the errors of FastAPI and Starlette a code and a message."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid_form(error)
    assert isinstance(error, HTTPException)
    default = ("refused", HTTPStatus(error.status_code).phrase.lower())
    code, message = _STARLETTE_ERRORS.get(error.status_code, default)
    return ServiceError(error.status_code, code, message, error.headers)


def error_response(error: ServiceError, request_id: str) -> Response:
    """The error as JSON."""
    details = ErrorDetails(code=error.code, message=error.detail, request_id=request_id)
    # The newline is for terminals.
    text = ErrorResponse(error=details).model_dump_json() + "\n"
    return Response(text, error.status_code, error.headers, media_type="application/json")


def describe_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route in FastAPI."""
    described: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        headers = {"X-Request-Id": {"schema": {"type": "string"}, "description": "identifies the request in the log"}}
        if status == 503:
            headers["Retry-After"] = {"schema": {"type": "integer"}, "description": "seconds"}
        if status == 401:
            headers["WWW-Authenticate"] = {"schema": {"type": "string"}, "description": "the scheme: Bearer"}
        described[status] = {"model": ErrorResponse, "description": _DESCRIPTIONS[status], "headers": headers}
    return described


def new_request_id() -> str:
    """An id for a request that has none."""
    return secrets.token_hex(8)


def printable(name: str) -> str:
    """Shorten a name that a client sent, without folders and without characters that could control a terminal."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in last if character.isprintable())[:_MAX_NAME_CHARACTERS]
