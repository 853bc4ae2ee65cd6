"""Around every request: its id, security headers, the log, the metrics, and the limits of the service."""

import asyncio
import re
import time
from dataclasses import asdict
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carmask.serving.errors import ServiceError, busy, error_response, internal_error, new_request_id
from carmask.serving.log import LOG, take_over_trace
from carmask.serving.metrics import ServiceMetrics
from carmask.serving.settings import MB, ServiceLimits

# The page loads only its own files, cannot be framed, and runs no injected scripts.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
REQUEST_ID = "X-Request-Id"
# These answer even while there are too many requests.
_HEALTH_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
# The metrics count these under their own names, all others together.
_PATHS = _HEALTH_PATHS | {"/", "/docs", "/openapi.json", "/v1/model", "/v1/segment"}
# A proxy may set the request's id. It goes into the log, so only harmless characters are accepted.
_REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestMiddleware:
    """The outermost layer: request id, headers, log, metrics, and the response to bugs and to a forced shutdown."""

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics, *, log_requests: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started_s = time.perf_counter()
        given_id = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given_id if _REQUEST_ID_PATTERN.fullmatch(given_id) else new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers[REQUEST_ID] = request_id
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        self._metrics.requests_now.inc()
        try:
            # HEAD is GET without a body; the server omits the body.
            inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            await self._app(inner, receive, send_with_headers)
        except Exception:  # noqa: BLE001 - it is logged, with its traceback
            LOG.exception("%s: internal error", request_id, extra={"fields": {"request_id": request_id}})
            if not status:
                await error_response(internal_error(), request_id)(scope, receive, send_with_headers)
        except asyncio.CancelledError:
            # uvicorn cancels what has not finished within --shutdown-s.
            if not status:
                stopping = busy("stopping", "the service is shutting down")
                await error_response(stopping, request_id)(scope, receive, send_with_headers)
        finally:
            self._metrics.requests_now.dec()
            self._record(scope, status, request_id, time.perf_counter() - started_s)

    def _record(self, scope: Scope, status: int, request_id: str, seconds: float) -> None:
        path = scope["path"]
        address = path if path in _PATHS else "/static" if path.startswith("/static/") else "other"
        self._metrics.requests.labels(address, str(status)).inc()
        self._metrics.request_seconds.labels(address).observe(seconds)
        if self._log_requests:
            fields = {
                "client": _quoted((scope.get("client") or ("-",))[0]),
                "method": scope["method"],
                "path": _quoted(scope["raw_path"].decode("latin-1")),
                "status": status,
                "duration_ms": round(seconds * 1000, 1),
                "request_id": request_id,
            }
            trace = take_over_trace(Headers(scope=scope).get("traceparent", ""))
            if trace is not None:
                fields |= {**asdict(trace), "traceparent": trace.traceparent}
            line = "%(client)s %(method)s %(path)s %(status)d %(duration_ms).0f ms %(request_id)s"
            LOG.info(line, fields, extra={"fields": fields})


class LimitMiddleware:
    """Refuses requests over the limits: too many at once, headers too large, bodies too large or too slow."""

    def __init__(self, app: ASGIApp, limits: ServiceLimits, metrics: ServiceMetrics) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._requests = 0
        self._upload_bytes = 0
        metrics.upload_bytes.set_function(lambda: self._upload_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; reading its body raises `ServiceError` 413, 408 or, if memory is full, 503."""
        try:
            self._check_head(scope)
        except ServiceError as error:
            self._metrics.errors.labels(error.code).inc()
            await error_response(error, scope["state"]["request_id"])(scope, receive, send)
            return
        limits = self._limits
        deadline_s = asyncio.get_running_loop().time() + limits.body_timeout_s
        received_bytes = 0
        is_complete = False

        async def receive_limited() -> Message:
            nonlocal received_bytes, is_complete
            if is_complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline_s):
                    message = await receive()
            except TimeoutError as error:
                cause = f"the request did not arrive within {limits.body_timeout_s:g} seconds"
                raise ServiceError(408, "too_slow", cause) from error
            is_complete = not message.get("more_body", False)
            size_bytes = len(message.get("body", b""))
            if received_bytes + size_bytes > limits.max_bytes:
                raise _too_large(limits)
            if self._upload_bytes + size_bytes > limits.uploads_mb * MB:
                raise busy("out_of_memory", "the memory for uploads is full")
            self._upload_bytes += size_bytes
            received_bytes += size_bytes
            return message

        self._requests += 1
        try:
            await self._app(scope, receive_limited, send)
        finally:
            self._requests -= 1
            self._upload_bytes -= received_bytes

    def _check_head(self, scope: Scope) -> None:
        head_bytes = len(scope["raw_path"]) + len(scope["query_string"])
        head_bytes += sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if head_bytes > self._limits.max_header_bytes:
            raise headers_too_large(self._limits)
        if scope["path"] not in _HEALTH_PATHS and self._requests >= self._limits.max_requests:
            raise busy("too_many_requests", f"{self._requests} requests are in progress already")
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > self._limits.max_bytes:
            raise _too_large(self._limits)


def headers_too_large(limits: ServiceLimits) -> ServiceError:
    """431: the request line and headers are over the limit."""
    message = f"the request line and headers have more than {limits.max_header_bytes} bytes"
    return ServiceError(431, "headers_too_large", message)


def _too_large(limits: ServiceLimits) -> ServiceError:
    return ServiceError(413, "too_large", f"the request has more than {limits.max_bytes} bytes; send a smaller photo")


def _quoted(text: str) -> str:
    """Text from a client, so that it cannot imitate a line of the log."""
    return quote(text, safe="/:%")[:200]
