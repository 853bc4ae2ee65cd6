"""`POST /v1/segment`: the form is read, the photo cut out, the answer sent, as long as the client is there."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from carmask.serving.answers import Answer
from carmask.serving.form import read_form
from carmask.serving.service import Service
from carmask.serving.wishes import BACKDROP, PHOTO, Fields, read_wish

Done = TypeVar("Done")

_TEXTS = frozenset(Fields.model_fields)
_FILES = frozenset({PHOTO, BACKDROP})
# An answer goes out in pieces, each when the client has taken those before: until then its memory is accounted for.
_PIECE_BYTES = 256 * 1024


class ClientGone(Exception):
    """The client left before it had its answer."""


async def segment(request: Request, service: Service) -> Response:
    """Answer one request.

    Raises:
        Refusal: something is wrong with it, or too much is going on.
        ClientGone: nobody waits for the answer.
        EngineError: a network failed.

    """
    service.refuse_when_unable()
    content_type = request.headers.get("content-type", "")
    try:
        form = await read_form(content_type, request.stream(), texts=_TEXTS, files=_FILES, limits=service.limits)
    except ClientDisconnect as error:
        raise ClientGone from error
    photo, wish = read_wish(form, ",".join(request.headers.getlist("accept")))
    del form
    return _Sent(await _while_connected(request, service.cut_out(photo, wish, request.state.request_id)))


class _Sent(Response):
    """An answer on its way, whose memory is given back when the client has it, or has gone."""

    def __init__(self, answer: Answer) -> None:
        headers = {**answer.headers, "Content-Length": str(len(answer.body)), "Vary": "Accept"}
        super().__init__(None, headers=headers, media_type=answer.media_type)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's form
        body = memoryview(self._answer.body)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for start in range(0, len(body), _PIECE_BYTES):
                piece = bytes(body[start : start + _PIECE_BYTES])
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._answer.release()


async def _while_connected(request: Request, work: Coroutine[None, None, Done]) -> Done:
    """The outcome of some work, which is dropped when the client leaves.

    Raises:
        ClientGone: it left.

    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
