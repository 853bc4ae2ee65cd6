"""The response to several photos: results as a ZIP file or as multipart/mixed, each sent as soon as it is ready."""

import secrets
import zipfile
from collections.abc import Sequence
from itertools import count
from pathlib import PurePosixPath
from urllib.parse import quote

from pydantic import TypeAdapter
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from carmask.serving.errors import ClientDisconnected, ServiceError, as_service_error, error_response, internal_error
from carmask.serving.log import LOG
from carmask.serving.metrics import ServiceMetrics
from carmask.serving.responses import ResultResponse, measurements
from carmask.serving.schemas import GEOJSON, MULTIPART, PICTURE_TYPES, ZIP, BatchEntry, ErrorDetails
from carmask.serving.uploads import while_connected
from carmask.serving.worker import PhotoTask, SegmentationWorker

BATCH_TYPES = (ZIP, MULTIPART)
_SUFFIXES = {**{of_format: f".{name}" for name, of_format in PICTURE_TYPES.items()}, GEOJSON: ".json"}
_SUMMARY = "results.json"
# The earliest that a ZIP file can say: the same results are the same bytes at any time.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


class _ZipArchive:
    """Results by name, and a summary of all photos. Pictures are stored as they are: they are compressed already."""

    content_type = ZIP

    def __init__(self) -> None:
        self._buffer = _Unseekable()
        self._zip = zipfile.ZipFile(self._buffer, "w")

    def add(self, name: str, part: Response) -> bytes:
        if part.status_code == 200:
            self._zip.writestr(zipfile.ZipInfo(name, _ZIP_DATE), bytes(part.body))
        return self._buffer.take()

    def end(self, summary: bytes) -> bytes:
        self._zip.writestr(zipfile.ZipInfo(_SUMMARY, _ZIP_DATE), summary)
        self._zip.close()
        return self._buffer.take()


class _MultipartArchive:
    """A part for each photo, with the headers that its response has when it is alone. An error is a part, too."""

    def __init__(self) -> None:
        self._boundary = secrets.token_hex(16)
        self.content_type = f"{MULTIPART}; boundary={self._boundary}"

    def add(self, name: str, part: Response) -> bytes:
        lines = [b"--" + self._boundary.encode()]
        lines.append(f"Content-Disposition: attachment; filename*=UTF-8''{quote(name, safe='')}".encode())
        lines += [header + b": " + value for header, value in part.raw_headers if header != b"vary"]
        return b"\r\n".join([*lines, b"", bytes(part.body), b""])

    def end(self, summary: bytes) -> bytes:  # noqa: ARG002 - each part says all of its photo
        return f"--{self._boundary}--\r\n".encode()


class _Unseekable:
    """A file that can only be written; what was written is taken piece by piece.

    No `io.RawIOBase`: the collector would close it before a ZIP file that was given up, which still writes its end.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(data)
        return len(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def take(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


class BatchResponse(Response):
    """Segments photos while it is sent. A photo that cannot be read has an error in place of a result."""

    def __init__(
        self, tasks: Sequence[PhotoTask], worker: SegmentationWorker, metrics: ServiceMetrics, media_type: str
    ) -> None:
        """Prepare the archive. media_type: one of `BATCH_TYPES`."""
        self._archive: _ZipArchive | _MultipartArchive = _ZipArchive() if media_type == ZIP else _MultipartArchive()
        headers = {"Vary": "Accept", "Content-Type": self._archive.content_type}
        if media_type == ZIP:
            headers["Content-Disposition"] = 'attachment; filename="carmask.zip"'
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._tasks, self._worker, self._metrics = tasks, worker, metrics
        self._names = _result_names(tasks)
        self._entries = [BatchEntry(file=task.photo.name) for task in tasks]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send the archive. When the client disconnects, the rest of the work is dropped.

        Raises:
            ServiceError: 503, the queue is full; nothing was sent.
        """
        with self._worker.admitted(len(self._tasks)) as at_once:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                await while_connected(receive, self._send_archive(at_once, send))
            except ClientDisconnected:
                self._metrics.clients_gone.inc()

    async def _send_archive(self, at_once: int, send: Send) -> None:
        async def send_result(task: PhotoTask, result: ResultResponse | Exception) -> None:
            place = self._tasks.index(task)
            if isinstance(result, ResultResponse):
                part: Response = result
                self._entries[place] = BatchEntry(
                    file=task.photo.name, result=self._names[place], **measurements(result.found)
                )
            else:
                error = self._as_service_error(result, task)
                part = error_response(error, task.request_id)
                details = ErrorDetails(code=error.code, message=error.detail, request_id=task.request_id)
                self._entries[place] = BatchEntry(file=task.photo.name, error=details)
            piece = self._archive.add(self._names[place], part)
            await send({"type": "http.response.body", "body": piece, "more_body": True})

        await self._worker.segment_each(self._tasks, at_once, send_result)
        summary = TypeAdapter(list[BatchEntry]).dump_json(self._entries, indent=1)
        await send({"type": "http.response.body", "body": self._archive.end(summary)})

    def _as_service_error(self, error: Exception, task: PhotoTask) -> ServiceError:
        if isinstance(error, HTTPException):
            service_error = as_service_error(error)
        else:
            fields = {"request_id": task.request_id}
            LOG.error("%s: internal error", task.request_id, exc_info=error, extra={"fields": fields})
            service_error = internal_error()
        self._metrics.errors.labels(service_error.code).inc()
        return service_error


def _result_names(tasks: Sequence[PhotoTask]) -> list[str]:
    """A name for each result, from its photo's, that no other has, even where case does not count."""
    names: list[str] = []
    taken = {_SUMMARY}
    for task in tasks:
        stem, suffix = PurePosixPath(task.photo.name).stem, _SUFFIXES[task.media_type]
        candidates = (f"{stem}{'' if number == 1 else f'-{number}'}{suffix}" for number in count(1))
        name = next(candidate for candidate in candidates if candidate.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return names
