"""The service as a process of its own, and plain ways to talk to it: http.client, and bytes over a socket."""

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from io import BufferedReader
from pathlib import Path
from typing import Any, Self

# For a machine that is busy with other things; a quiet one needs a hundredth.
PATIENCE_S = 120.0
BOUNDARY = b"a-boundary-of-the-tests"
_NOWHERE = {"HOME": "/nonexistent", "TMPDIR": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
FORM = f"multipart/form-data; boundary={BOUNDARY.decode()}"


@dataclass(frozen=True)
class Reply:
    """An answer of the service."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def of(cls, response: HTTPResponse) -> Self:
        headers = {name.lower(): value for name, value in response.getheaders()}
        return cls(response.status, headers, response.read())

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error, which has to have the form of all errors."""
        assert self.headers["content-type"] == "application/json"
        error = self.json["error"]
        assert set(error) == {"code", "message", "request_id"}
        assert error["message"]
        assert error["request_id"] == self.headers["x-request-id"]
        assert self.headers["x-content-type-options"] == "nosniff"
        code = error["code"]
        assert isinstance(code, str)
        return code

    @property
    def refused(self) -> tuple[int, str]:
        return self.status, self.code


class Service:
    """A running service."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self.address = address
        self.port = int(address.rpartition(":")[2])

    def ask(
        self, method: str, path: str, body: bytes | Iterable[bytes] | None = None, headers: Mapping[str, str] = {}
    ) -> Reply:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body=body, headers=dict(headers))
            return Reply.of(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, headers=headers)

    def segment(self, photo: Path | bytes | None, headers: Mapping[str, str] = {}, **fields: object) -> Reply:
        """Send a photo. Fields that are paths are sent as files."""
        parts = {"file": photo, **fields} if photo is not None else fields
        return self.ask("POST", "/v1/segment", form(**parts), {"Content-Type": FORM, **headers})

    def counted(self, name: str, **labels: str) -> float:
        """A counter of /metrics; the sum of all that have these labels."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        found = 0.0
        for line in self.get("/metrics").body.decode().splitlines():
            told, _, value = line.rpartition(" ")
            if told.partition("{")[0] == name and wanted <= set(told.partition("{")[2].rstrip("}").split(",")):
                found += float(value)
        return found

    def await_count(self, value: float, name: str, **labels: str) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while self.counted(name, **labels) != value:
            assert time.monotonic() < deadline_s, f"{name} is {self.counted(name, **labels)}, not {value}"
            time.sleep(0.02)

    def connect(self) -> "Wire":
        return Wire(socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S))

    @property
    def memory_bytes(self) -> int:
        """What the process occupies now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


class _Kept:
    """What comes in on a connection: http.client would close it with each answer, and lose what follows."""

    def __init__(self, incoming: BufferedReader) -> None:
        self._incoming = incoming

    def makefile(self, _: str) -> Self:
        return self

    def close(self) -> None:
        pass

    def end(self) -> None:
        self._incoming.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._incoming, name)


class Wire:
    """A connection on which a test says what it likes."""

    def __init__(self, wire: socket.socket) -> None:
        self.socket = wire
        self._answers = _Kept(wire.makefile("rb"))

    def send(self, data: bytes) -> Self:
        self.socket.sendall(data)
        return self

    def reply(self) -> Reply:
        response = HTTPResponse(self._answers)  # type: ignore[arg-type]
        response.begin()
        return Reply.of(response)

    def is_closed(self) -> bool:
        """Wait until the other side closes; nothing more may come from it."""
        try:
            return self._answers.read(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        # A socket is open as long as a file of it is.
        self._answers.end()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def head(length: int | None = None, *lines: str, method: str = "POST", path: str = "/v1/segment") -> bytes:
    """The head of a request, for a body of so many bytes."""
    told = [f"{method} {path} HTTP/1.1", "Host: test", f"Content-Type: {FORM}", *lines]
    if length is not None:
        told.append(f"Content-Length: {length}")
    return "\r\n".join([*told, "", ""]).encode()


def form(**fields: object) -> bytes:
    """A form. Bytes and paths are files."""
    return b"".join(part(name, value) for name, value in fields.items()) + b"--" + BOUNDARY + b"--\r\n"


def part(name: str, value: object) -> bytes:
    if isinstance(value, Path):
        return part_of_file(name, value.name, value.read_bytes())
    if isinstance(value, bytes):
        return part_of_file(name, "photo.jpg", value)
    disposition = f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
    return b"--" + BOUNDARY + b"\r\n" + disposition + str(value).encode() + b"\r\n"


def part_of_file(name: str, filename: str, data: bytes) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'.encode()
    kind = b"Content-Type: application/octet-stream\r\n\r\n"
    return b"--" + BOUNDARY + b"\r\n" + disposition + kind + data + b"\r\n"


@contextmanager
def running(
    *options: object,
    environment: Mapping[str, str] = {},
    errors: Path | None = None,
    may_write: bool = True,
) -> Iterator[Service]:
    """Run `carmask serve` on a free port; ends with the block.

    errors: where its standard error goes. may_write: whether it can write into any file, and has a folder for that.
    """
    command = [sys.executable, "-m", "carmask", "serve", "--port", "0", *map(str, options)]
    with errors.open("w") if errors else open(os.devnull, "w") as log:  # noqa: PTH123
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **environment, **({} if may_write else _NOWHERE)},
            preexec_fn=None if may_write else _forbid_files,
            cwd=None if may_write else "/",
        )
    try:
        yield Service(process, _announced(process))
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _forbid_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _announced(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("http://"):
            return line.split()[0]
    raise AssertionError("the service did not start; run it by hand to see why")


def ask_app(app: Any, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    """Ask an application in this process, before its life begins."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"test")],
        "scheme": "http",
    }
    asyncio.run(app(scope, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])
