"""What the measurements of the service share: the service itself, and clients that take little of the processor.

    python benchmarks/serve_clients.py PORT PHOTOS RESULTS [--clients 64] [--seconds 60]

As a program: so many clients, each on a connection of its own, ask for the masks of the photos in PHOTOS in turn, each
as soon as it has the last, and compare them with those that `carmask predict PHOTOS RESULTS` made. For so many seconds,
or with 0 until standard input ends. Prints a line of JSON.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from record import photos_in

BOUNDARY = b"a-boundary-that-no-photo-holds"
_READY = "is ready for photos"


@dataclass(frozen=True)
class Service:
    """A running service."""

    process: subprocess.Popen[str]
    port: int

    @property
    def memory_mb(self) -> float:
        """What it occupies now."""
        return _status_mb(self.process.pid, "VmRSS")

    @property
    def peak_memory_mb(self) -> float:
        """What it occupied at most."""
        return _status_mb(self.process.pid, "VmHWM")

    @property
    def cpu_s(self) -> float:
        """Time of the processor that it used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None


@contextmanager
def served(*options: str) -> Iterator[Service]:
    """Run `carmask serve` on a free port of this machine."""
    command = [sys.executable, "-m", "carmask", "serve", "--port", "0", "--quiet", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = next((line for line in process.stdout if _READY in line), None)
        if line is None:
            sys.exit(f"{' '.join(command)}: did not start")
        yield Service(process, int(line.split()[0].rpartition(":")[2]))
        process.terminate()


def head(length: int, path: str = "/v1/segment") -> bytes:
    """The head of a request with a form of so many bytes."""
    kind = f"multipart/form-data; boundary={BOUNDARY.decode()}"
    return f"POST {path} HTTP/1.1\r\nHost: load\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode()


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    """A part of a form."""
    disposition = f'Content-Disposition: form-data; name="{name}"'
    disposition += f'; filename="{filename}"' if filename is not None else ""
    return b"--" + BOUNDARY + b"\r\n" + disposition.encode() + b"\r\n\r\n" + data + b"\r\n"


def form(photo: bytes, **fields: str) -> bytes:
    """A form with a photo."""
    parts = [part("file", photo, "photo.jpg"), *(part(name, text.encode()) for name, text in fields.items())]
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
    return status, await reader.readexactly(length)


@dataclass
class Tally:
    """What became of the requests of clients that behave."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    broken: int = 0

    def figures(self, elapsed_s: float) -> dict[str, Any]:
        """Throughput, latency, and all that is not as it should be."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "requests": self.statuses.total(),
            "photos_per_s": round(self.statuses[200] / elapsed_s, 2),
            "p50_s": round(median(self.seconds), 3) if self.seconds else None,
            "p95_s": round(quantiles(self.seconds, n=20)[-1], 3) if len(self.seconds) > 1 else None,
            "slowest_s": round(max(self.seconds, default=0), 3),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "wrong_results": self.wrong,
            "broken_connections": self.broken,
            "clients_cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        }


async def drive(port: int, work: list[tuple[bytes, bytes]], clients: int, over: asyncio.Event) -> Tally:
    """Ask for all of `work` (a request, and the right answer) again and again, until it is over."""
    tally = Tally()
    turns = cycle(work)

    async def client() -> None:
        while not over.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
                while not over.is_set():
                    request, right = next(turns)
                    started_s = time.perf_counter()
                    writer.write(request)
                    status, body = await read_answer(reader)
                    if over.is_set():
                        break
                    tally.seconds.append(time.perf_counter() - started_s)
                    tally.statuses[status] += 1
                    tally.wrong += status == 200 and body != right
                    if status == 503:
                        await asyncio.sleep(1)
                writer.close()
            except (OSError, asyncio.IncompleteReadError):
                tally.broken += not over.is_set()

    await asyncio.gather(*(client() for _ in range(clients)))
    return tally


async def _main(port: int, photos: Path, results: Path, clients: int, seconds: float) -> None:
    work = []
    for path in photos_in(photos):
        body = form(path.read_bytes())
        right = results / path.relative_to(photos).with_suffix(".png")
        work.append((head(len(body)) + body, right.read_bytes()))
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    started_s = time.perf_counter()
    if seconds:
        loop.call_later(seconds, over.set)
    else:
        asyncio.ensure_future(loop.run_in_executor(None, sys.stdin.read)).add_done_callback(lambda _: over.set())
    tally = await drive(port, work, clients, over)
    print(json.dumps(tally.figures(seconds or time.perf_counter() - started_s)))


def _status_mb(process: int, name: str) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(round(int(line.split()[1]) / 1000, 1) for line in lines if line.startswith(name))


def command(port: int, photos: Path, results: Path, *, clients: int, seconds: float) -> list[str]:
    """How these clients are called."""
    places = [str(port), str(photos), str(results)]
    return [sys.executable, __file__, *places, "--clients", str(clients), "--seconds", str(seconds)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("photos", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    asyncio.run(_main(given.port, given.photos, given.results, given.clients, given.seconds))
