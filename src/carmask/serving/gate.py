"""What is refused before anything is done: too many requests, heads and bodies that are too large or too slow."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carmask.serving import refusals
from carmask.serving.memory import Memory
from carmask.serving.metrics import Metrics
from carmask.serving.refusals import Refusal, busy
from carmask.serving.settings import MB, Limits


class Gate:
    """Lets requests through within the limits."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, *, always_open: frozenset[str]) -> None:
        """Wrap an application. `always_open`: addresses that are also answered when too much is going on."""
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._always_open = always_open
        self._requests = 0
        self._uploads = Memory(limits.uploads_mb * MB)
        metrics.upload_bytes.set_function(lambda: self._uploads.used_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_head(scope)
        except Refusal as refusal:
            self._metrics.refusals.labels(refusal.code).inc()
            await refusals.answer(refusal, scope["state"]["request_id"])(scope, receive, send)
            return
        body = _Body(receive, self._limits, self._uploads)
        self._requests += 1
        try:
            await self._app(scope, body.receive, send)
        finally:
            self._requests -= 1
            body.close()

    def _check_head(self, scope: Scope) -> None:
        head_bytes = len(scope["raw_path"]) + len(scope["query_string"])
        head_bytes += sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        most_bytes = self._limits.max_header_bytes
        if head_bytes > most_bytes:
            raise Refusal(431, "headers_too_large", f"the request's head has more than {most_bytes} bytes; shorten it")
        if scope["path"] not in self._always_open and self._requests >= self._limits.max_requests:
            raise busy("too_many_requests", f"{self._requests} requests are being served already")
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > self._limits.max_bytes:
            raise _too_large(self._limits)


class _Body:
    """A request's body, counted while it arrives."""

    def __init__(self, receive: Receive, limits: Limits, uploads: Memory) -> None:
        self._receive = receive
        self._limits = limits
        self._uploads = uploads
        self._deadline_s = asyncio.get_running_loop().time() + limits.body_timeout_s
        self._arrived_bytes = 0
        self._is_whole = False

    async def receive(self) -> Message:
        """The next piece.

        Raises:
            Refusal: 413, there is too much of it; 408, it comes too slowly; 503, there is no memory for it.

        """
        if self._is_whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline_s):
                message = await self._receive()
        except TimeoutError as error:
            limit_s = self._limits.body_timeout_s
            raise Refusal(408, "too_slow", f"the request did not arrive within {limit_s:g} seconds") from error
        self._is_whole = not message.get("more_body", False)
        size_bytes = len(message.get("body", b""))
        if self._arrived_bytes + size_bytes > self._limits.max_bytes:
            raise _too_large(self._limits)
        if not self._uploads.take(size_bytes):
            raise busy("out_of_memory", "the service holds as many photos in memory as it may")
        self._arrived_bytes += size_bytes
        return message

    def close(self) -> None:
        """Give back the memory."""
        self._uploads.give_back(self._arrived_bytes)
        self._arrived_bytes = 0


def _too_large(limits: Limits) -> Refusal:
    return Refusal(
        413, "too_large", f"the request has more than {limits.max_bytes} bytes; send a smaller photo, or less with it"
    )
