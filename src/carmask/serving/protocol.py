"""Time limits, a limit of connections and lingering closes for uvicorn's HTTP/1.1 protocol.

A reverse proxy such as nginx does all of this, and behind one nothing here ever happens. The service must survive
hostile clients without one too (benchmarks/serve_abuse.py, tests/serving/test_limits.py), and uvicorn has no options
for it: it waits without limit for the rest of a request's headers, for the rest of a body that was refused, and for a
client to read its response. And it closes connections on which data still arrives; the system then resets them, and the
client loses the response. So this extends uvicorn's own class; the tests run with one pinned version of uvicorn.
"""

import asyncio
import sys
from typing import Any, cast

import h11
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from carmask.serving.errors import ServiceError, busy, error_response, new_request_id
from carmask.serving.metrics import ServiceMetrics
from carmask.serving.middleware import REQUEST_ID, SECURITY_HEADERS, headers_too_large
from carmask.serving.settings import ServiceLimits

# For this long the rest of a refused request is read and dropped: many clients send all before they read the response.
_LINGER_S = 5.0
# Connections over the limit get a response up to this multiple of it; beyond that they are cut.
_REFUSED_FACTOR = 2


class _LingeringTransport:
    """A transport whose `close` goes through `LimitedProtocol.linger`."""

    def __init__(self, transport: asyncio.Transport, protocol: "LimitedProtocol") -> None:
        self._transport = transport
        self._protocol = protocol
        self._is_closing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._is_closing or self._transport.is_closing()

    def close(self) -> None:
        self._is_closing = True
        self._protocol.linger(self._transport)


class LimitedProtocol(H11Protocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ServiceLimits,
        metrics: ServiceMetrics,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._metrics = metrics
        self._is_lingering = False
        self._awaited: str | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse the connection if there are too many."""
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, _LingeringTransport(transport, self))
        others = len(self.connections) - 1
        if others >= _REFUSED_FACTOR * self._limits.max_connections:
            self._metrics.errors.labels("too_many_connections").inc()
            transport.abort()
        elif others >= self._limits.max_connections:
            self.app = self._refuse_connection
        self._update_request_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        super().connection_lost(exc)
        for timer in self._timers.values():
            timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take data, or drop it if the connection is being closed."""
        if self._is_lingering:
            return
        super().data_received(data)
        self._update_response_timer()
        self._update_request_timer()

    def on_response_complete(self) -> None:
        """The response was handed over to the system."""
        self._update_response_timer()
        super().on_response_complete()
        self._update_request_timer()

    def pause_writing(self) -> None:
        """The client reads more slowly than the service writes."""
        super().pause_writing()
        self._update_response_timer()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP. Called while h11's error is handled."""
        error = sys.exc_info()[1]
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if status == 431:
            self._refuse(headers_too_large(self._limits))
        else:
            self._refuse(ServiceError(status, "bad_request", f"this is not a valid HTTP request ({error or msg})"))

    def linger(self, transport: asyncio.Transport) -> None:
        """Close the connection; if the client is still sending, only after it has seen the end of the response."""
        state = self.conn.their_state
        is_sending = state in (h11.SEND_BODY, h11.ERROR) or (state is h11.IDLE and bool(self.conn.trailing_data[0]))
        if self._is_lingering or not is_sending:
            transport.close()
            return
        self._is_lingering = True
        transport.write_eof()
        self.flow.resume_reading()
        self._update_request_timer()

    def _update_request_timer(self) -> None:
        """Limit the time for what the client has to send next."""
        awaited = self._awaited_from_client()
        if awaited == self._awaited:
            return
        self._awaited = awaited
        self._stop_timer("request")
        if awaited is not None:
            limit_s = _LINGER_S if awaited == "rest" else self._limits.header_timeout_s
            self._timers["request"] = self.loop.call_later(limit_s, self._on_request_timeout, awaited)

    def _awaited_from_client(self) -> str | None:
        """The "headers", or the "rest" of a body that is dropped. `LimitMiddleware` limits the time of other bodies."""
        if self._is_lingering:
            return "rest"
        if self.transport.is_closing():
            return None
        state = self.conn.their_state
        if state is h11.IDLE and (self.cycle is None or self.conn.trailing_data[0]):
            return "headers"
        has_response = self.cycle is not None and self.cycle.response_complete
        return "rest" if state is h11.SEND_BODY and has_response else None

    def _on_request_timeout(self, awaited: str) -> None:
        if awaited == "rest":
            self.transport.abort()
        elif self.conn.trailing_data[0]:
            limit_s = self._limits.header_timeout_s
            message = f"the request's headers did not arrive within {limit_s:g} seconds"
            self._refuse(ServiceError(408, "too_slow", message))
        else:
            self.transport.close()

    def _update_response_timer(self) -> None:
        """Limit the time for the client to read the response."""
        if not self.transport.get_write_buffer_size():
            self._stop_timer("response")
        elif "response" not in self._timers:
            limit_s = self._limits.answer_timeout_s
            self._timers["response"] = self.loop.call_later(limit_s, self._on_response_timeout)

    def _stop_timer(self, name: str) -> None:
        if name in self._timers:
            self._timers.pop(name).cancel()

    def _on_response_timeout(self) -> None:
        self._timers.pop("response")
        if self.transport.get_write_buffer_size():
            self._metrics.errors.labels("answer_not_taken").inc()
            self.transport.abort()

    def _refuse(self, error: ServiceError) -> None:
        """Respond to an invalid request, and close the connection."""
        self._metrics.errors.labels(error.code).inc()
        if self.cycle is not None and not self.cycle.response_complete:
            # The request before this one is still in progress: its client counts as gone.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        response = _closing_response(error)
        for event in (
            h11.Response(status_code=response.status_code, headers=response.raw_headers),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self._update_response_timer()
        self.transport.close()

    async def _refuse_connection(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = busy("too_many_connections", f"{self._limits.max_connections} connections are open already")
        self._metrics.errors.labels(error.code).inc()
        await _closing_response(error)(scope, receive, send)


def _closing_response(error: ServiceError) -> Response:
    request_id = new_request_id()
    response = error_response(error, request_id)
    response.headers.update({**SECURITY_HEADERS, REQUEST_ID: request_id, "Connection": "close"})
    return response
