"""HTTP/1.1 for strangers: uvicorn's protocol with time limits, a limit of connections, and errors in our own form.

uvicorn waits for ever for the rest of a request's head, for a client to read its answer, and for the end of a body that
nobody wants any more; each of these ends here. And it closes a connection on which bytes still come in, whereupon the
system tells the client of a broken connection, and what was answered is lost; here they are dropped for a while.
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

from carmask.serving import refusals
from carmask.serving.envelope import REQUEST_ID, SECURITY_HEADERS
from carmask.serving.metrics import Metrics
from carmask.serving.refusals import Refusal, busy
from carmask.serving.settings import Limits

# For so long what nobody wants any more is read and dropped: many clients send all before they read why it is refused.
_DROP_S = 5.0
# Connections over the limit are told so, up to this many times the limit; beyond it they are cut without a word.
_TOLD = 2


class GuardedConfig(Config):
    """uvicorn's configuration with what the protocol needs beside it."""

    def __init__(self, app: Any, limits: Limits, metrics: Metrics, **options: Any) -> None:
        self.limits = limits
        self.metrics = metrics
        super().__init__(
            app,
            http=GuardedProtocol,
            ws="none",
            h11_max_incomplete_event_size=limits.max_header_bytes,
            timeout_keep_alive=limits.keep_alive_s,
            timeout_graceful_shutdown=limits.shutdown_s,
            server_header=False,
            **options,
        )


class _PoliteTransport:
    """A connection's transport, which does not close before the client has seen what was said last."""

    def __init__(self, transport: asyncio.Transport, protocol: "GuardedProtocol") -> None:
        self._transport = transport
        self._protocol = protocol
        self._is_closing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._is_closing or self._transport.is_closing()

    def close(self) -> None:
        self._is_closing = True
        self._protocol.leave(self._transport)


class GuardedProtocol(H11Protocol):
    """One connection."""

    config: GuardedConfig

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = self.config.limits
        self._is_leaving = False
        self._awaited: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, _PoliteTransport(transport, self))
        others = len(self.connections) - 1
        if others >= _TOLD * self._limits.max_connections:
            self._count("too_many_connections")
            transport.abort()
        elif others >= self._limits.max_connections:
            self.app = self._refuse_connection
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        super().connection_lost(exc)
        for timer in (self._timer, self._answer_timer):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Something arrived."""
        if self._is_leaving:
            return
        super().data_received(data)
        self._watch_answer()
        self._watch()

    def on_response_complete(self) -> None:
        """An answer was handed over to the system."""
        self._watch_answer()
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        super().pause_writing()
        self._watch_answer()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; called while h11's error is being handled."""
        error = sys.exc_info()[1]
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if status == 431:
            most_bytes = self._limits.max_header_bytes
            message = f"the request's head has more than {most_bytes} bytes; shorten it"
            self._refuse(Refusal(431, "headers_too_large", message))
        else:
            self._refuse(Refusal(status, "bad_request", f"this is no valid HTTP request ({error or msg})"))

    def leave(self, transport: asyncio.Transport) -> None:
        """Close the connection, when the client has closed its side too if it is still sending something."""
        state = self.conn.their_state
        is_sending = state in (h11.SEND_BODY, h11.ERROR) or (state is h11.IDLE and bool(self.conn.trailing_data[0]))
        if self._is_leaving or not is_sending:
            transport.close()
            return
        self._is_leaving = True
        transport.write_eof()
        self.flow.resume_reading()
        self._watch()

    def _watch(self) -> None:
        """Set a time limit to what the client has to do next, unless it runs already."""
        awaited = self._awaited_now()
        if awaited == self._awaited:
            return
        self._awaited = awaited
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if awaited is not None:
            limit_s = _DROP_S if awaited == "rest" else self._limits.header_timeout_s
            self._timer = self.loop.call_later(limit_s, self._end_waiting, awaited)

    def _awaited_now(self) -> str | None:
        """What the client has to do next: send a head, or the rest of a body that is dropped. Bodies are the gate's."""
        if self._is_leaving:
            return "rest"
        if self.transport.is_closing():
            return None
        state = self.conn.their_state
        has_answered = self.cycle is not None and self.cycle.response_complete
        if state is h11.IDLE and (self.cycle is None or self.conn.trailing_data[0]):
            return "head"
        return "rest" if state is h11.SEND_BODY and has_answered else None

    def _end_waiting(self, awaited: str) -> None:
        if awaited == "head" and self.conn.trailing_data[0]:
            limit_s = self._limits.header_timeout_s
            self._refuse(Refusal(408, "too_slow", f"the request's head did not arrive within {limit_s:g} seconds"))
        elif awaited == "head":
            self.transport.close()
        else:
            self.transport.abort()

    def _watch_answer(self) -> None:
        """Cut the connection of a client that does not take its answer in time."""
        is_taken = not self.transport.get_write_buffer_size()
        if is_taken and self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None
        elif not is_taken and self._answer_timer is None:
            self._answer_timer = self.loop.call_later(self._limits.answer_timeout_s, self._end_answer)

    def _end_answer(self) -> None:
        self._answer_timer = None
        if self.transport.get_write_buffer_size():
            self._count("answer_not_taken")
            self.transport.abort()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what never became a request, and close the connection."""
        self._count(refusal.code)
        if self.cycle is not None and not self.cycle.response_complete:
            # Whoever works on this request is told that nobody waits for it.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        response = _as_response(refusal)
        headers = [*response.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=refusal.status_code, headers=headers),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self._watch_answer()
        self.transport.close()

    async def _refuse_connection(self, scope: Scope, receive: Receive, send: Send) -> None:
        most = self._limits.max_connections
        refusal = busy("too_many_connections", f"{most} connections are open already")
        self._count(refusal.code)
        response = _as_response(refusal)
        response.headers["Connection"] = "close"
        await response(scope, receive, send)

    def _count(self, cause: str) -> None:
        self.config.metrics.refusals.labels(cause).inc()


def _as_response(refusal: Refusal) -> Response:
    request_id = refusals.new_request_id()
    response = refusals.answer(refusal, request_id)
    response.headers.update({**SECURITY_HEADERS, REQUEST_ID: request_id})
    return response
