"""Reading an uploaded form with Starlette's parser: in memory, within the limits, and only if it is complete."""

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from carmask.serving.errors import ClientDisconnected, ServiceError, bad_form, printable


class UploadRequest(Request):
    """A request whose form is refused as early as possible: before it arrives, or while it arrives."""

    async def form(self, **_: object) -> FormData:  # type: ignore[override]
        """Read the form; FastAPI calls this before it runs dependencies.

        Raises:
            ServiceError: 503, the service is busy; 415, this is no form; 400, it is damaged or has too many parts.
            ClientDisconnected: the client closed the connection.

        """
        self.app.state.worker.check_ready()
        content_type, _options = parse_options_header(self.headers.get("content-type"))
        if content_type != b"multipart/form-data":
            message = "send the photo as multipart/form-data, for example with curl -F file=@car.jpg"
            raise ServiceError(415, "unsupported_media_type", message)
        limits = self.app.state.worker.limits
        most = {"max_files": limits.max_parts, "max_fields": limits.max_parts, "max_part_size": limits.max_field_bytes}
        parser = _MemoryFormParser(self.headers, self.stream(), **most)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise bad_form(f"the form cannot be read: {error.message}") from error
        except ClientDisconnect as error:
            raise ClientDisconnected from error
        if not parser.is_complete:
            raise bad_form("the form is cut short; send all of it")
        # A browser sends what was left empty in an HTML form, too: text, and files without name and bytes.
        given = [(name, part) for name, part in form.multi_items() if part != "" and not _is_untouched(part)]
        for _name, part in given:
            if isinstance(part, UploadFile):
                # For messages only: printable, without folders.
                part.filename = printable(part.filename or "") or "photo"
        return FormData(given)


def _is_untouched(part: UploadFile | str) -> bool:
    return isinstance(part, UploadFile) and not part.filename and not part.size


async def take(file: UploadFile) -> bytes:
    """Take a file out of a form. The form's copy is closed, so that the photo is in memory once."""
    data = await file.read()
    await file.close()
    return data


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
        *earlier, (name, _value) = self.items
        if len(self.items) > self.max_fields:
            raise bad_form(f"the form has more than {self.max_fields} parts; send one photo per request")
        if name in dict(earlier):
            raise bad_form(f"{printable(name)}: sent twice; send one photo per request")

    def on_end(self) -> None:
        self.is_complete = True
