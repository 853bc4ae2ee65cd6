"""Reading an upload in memory, within the limits, and only if it is complete: a form, or a photo as the body."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from io import BytesIO
from typing import Any, NamedTuple, TypeVar

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from carmask.serving.errors import ClientDisconnected, ServiceError, bad_form, printable

T = TypeVar("T")


class UploadRequest(Request):
    """A request whose form is refused as early as possible: before it arrives, or while it arrives."""

    async def form(self, **_: object) -> FormData:  # type: ignore[override]
        """Read the fields out of the query and the form, or the photo out of the body. FastAPI calls this first.

        Raises:
            ServiceError: 503, the service is busy; 415, this is no form and no photo; 400, the form is damaged, has
                too many parts, or a field twice.
            ClientDisconnected: the client closed the connection.
        """
        self.app.state.worker.check_ready()
        queried = self.query_params.multi_items()
        for name, value in queried:
            if not value:
                raise bad_form(f"{printable(name)}: has no value in the query; give it one, or leave it out")
        content_type = parse_options_header(self.headers.get("content-type"))[0].decode("latin-1")
        is_form = content_type == "multipart/form-data"
        if not is_form and content_type != "application/octet-stream" and not content_type.startswith("image/"):
            message = (
                "send the photo as multipart/form-data, for example with curl -F file=@car.jpg, or as the body with "
                "its media type: curl --data-binary @car.jpg -H 'Content-Type: image/jpeg'"
            )
            raise ServiceError(415, "unsupported_media_type", message)
        try:
            items = [*queried, *await (self._read_form() if is_form else self._read_photo())]
        except ClientDisconnect as error:
            raise ClientDisconnected from error
        names = Counter(name for name, value in items if name != "file" or isinstance(value, str))
        for name, count in names.items():
            if count > 1:
                raise bad_form(f"{printable(name)}: sent twice; send it once, in the query or in the form")
        return FormData(items)

    async def _read_photo(self) -> list[tuple[str, UploadFile | str]]:
        data = b"".join([piece async for piece in self.stream()])
        return [("file", UploadFile(BytesIO(data), size=len(data), filename="photo"))]

    async def _read_form(self) -> list[tuple[str, UploadFile | str]]:
        limits = self.app.state.worker.limits
        most = {"max_files": limits.max_parts, "max_fields": limits.max_parts, "max_part_size": limits.max_field_bytes}
        parser = _MemoryFormParser(self.headers, self.stream(), **most)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise bad_form(f"the form cannot be read: {error.message}") from error
        if not parser.is_complete:
            raise bad_form("the form is cut short; send all of it")
        # A browser sends what was left empty in an HTML form, too: text, and files without name and bytes.
        given = [(name, part) for name, part in form.multi_items() if part != "" and not _is_untouched(part)]
        for _name, part in given:
            if isinstance(part, UploadFile):
                # For messages only: printable, without folders.
                part.filename = printable(part.filename or "") or "photo"
        return given


def _is_untouched(part: UploadFile | str) -> bool:
    return isinstance(part, UploadFile) and not part.filename and not part.size


class UploadedFile(NamedTuple):
    """A file that a client sent, with its name for messages."""

    name: str
    data: bytes


async def take(file: UploadFile) -> UploadedFile:
    """Take a file out of a form. The form's copy is closed, so that the photo is in memory once."""
    data = await file.read()
    await file.close()
    return UploadedFile(str(file.filename), data)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await some work; when the client disconnects, cancel it and raise `ClientDisconnected`. The body was read."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnected
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _MemoryFormParser(MultiPartParser):
    """Starlette's parser, with the checks that it lacks."""

    # Never to a file on disk, however large. The request as a whole is limited by its bytes.
    spool_max_size = 0
    # Without this a form that ends in the middle would be read as if its last part had not been sent.
    is_complete = False

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        try:
            super().on_part_data(data, start, end)
        except MultiPartException as error:
            hint = "send files with a file name"
            raise bad_form(f"a text field has more than {self.max_part_size} bytes; {hint}") from error

    def on_part_end(self) -> None:
        super().on_part_end()
        *earlier, (name, value) = self.items
        if len(self.items) > self.max_fields:
            raise bad_form(f"the form has more than {self.max_fields} parts; send fewer photos per request")
        is_photo = name == "file" and isinstance(value, UploadFile)
        if name in dict(earlier) and not is_photo:
            raise bad_form(f"{printable(name)}: sent twice; send it once")

    def on_end(self) -> None:
        self.is_complete = True
