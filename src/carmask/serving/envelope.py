"""Around every request: its id, the headers that every answer has, the log, the counters, and our own bugs."""

import asyncio
import logging
import re
import time
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carmask.serving import refusals
from carmask.serving.metrics import Metrics

LOG = logging.getLogger("carmask.serving")

# The page loads nothing but its own files, and may not be framed or fed with scripts.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
REQUEST_ID = "X-Request-Id"
# A proxy in front may give a request its id. What stands in a log has to be harmless.
_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Envelope:
    """The outermost part of the service."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, addresses: frozenset[str], is_logged: bool) -> None:
        """Wrap an application.

        Args:
            app: What answers.
            metrics: Counts the answers.
            addresses: Which addresses are counted by their own names.
            is_logged: Whether each answer is a line in the log.

        """
        self._app = app
        self._metrics = metrics
        self._addresses = addresses
        self._is_logged = is_logged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _HARMLESS.fullmatch(given) else refusals.new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_dressed(message: Message) -> None:
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
            # HEAD is GET without the body, which the server leaves out.
            inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            await self._app(inner, receive, send_dressed)
        except Exception:
            LOG.exception("%s: a defect of the service", request_id)
            if not status:
                await refusals.answer(refusals.defect(), request_id)(scope, receive, send_dressed)
        except asyncio.CancelledError:
            # The service was told to stop, and this was not finished in the time for that.
            if not status:
                stopping = refusals.busy("stopping", "the service is being stopped")
                await refusals.answer(stopping, request_id)(scope, receive, send_dressed)
        finally:
            self._metrics.requests_now.dec()
            self._count(scope, status, request_id, time.perf_counter() - started_s)

    def _count(self, scope: Scope, status: int, request_id: str, seconds: float) -> None:
        path = scope["path"]
        address = path if path in self._addresses else "/static" if path.startswith("/static/") else "other"
        self._metrics.requests.labels(address, str(status)).inc()
        self._metrics.request_seconds.labels(address).observe(seconds)
        if self._is_logged:
            client = (scope.get("client") or ("-",))[0]
            LOG.info(
                "%s %s %s %d %.0f ms %s",
                _printable(client),
                scope["method"],
                _printable(scope["raw_path"].decode("latin-1")),
                status,
                seconds * 1000,
                request_id,
            )


def _printable(text: str) -> str:
    """What strangers sent, so that it cannot look like a line of the log."""
    return quote(text, safe="/:%")[:200]
