"""What the service does when it is attacked while good clients go on.

    python benchmarks/serve_abuse.py PHOTOS [--requests 2400] [--at-once 24] [--model MODEL]

Cut bodies, lying lengths, bombs, forms of 10,000 parts, slow senders, wrong types, fuzzed pictures, heads of 100 KB,
noise: each has to be answered with a right status in bounded time, while good clients get the very bytes that `carmask
predict` writes, and the service's memory stays bounded. Writes docs/results/serve_abuse.json, and ends with status 1
where something is not as it should be.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from carmask.serving.settings import ServiceLimits
from record import CARVANA, link_photos, photos_in, record
from serve_attacks import ANSWER_TIMEOUT_S, BODY_TIMEOUT_S, HEADER_TIMEOUT_S, MAX_BYTES, Attack, attacks
from serve_clients import Service, command, served
from serve_load import predict

# A request that is not answered by then is lost.
PATIENCE_S = 90.0
OPTIONS = (
    *("--header-timeout-s", str(HEADER_TIMEOUT_S), "--body-timeout-s", str(BODY_TIMEOUT_S)),
    *("--answer-timeout-s", str(ANSWER_TIMEOUT_S), "--max-bytes", str(MAX_BYTES)),
)
GOOD_CLIENTS = 4
# What docs/serving.md says that the process stays below: of its own, and what it allows photos.
_LIMITS = ServiceLimits()
MOST_MEMORY_MB = 300 + _LIMITS.uploads_mb + _LIMITS.work_mb


def small_photos(source: Path) -> list[bytes]:
    """A few real photos, small, in every format that is read."""
    found = []
    for number, path in enumerate(photos_in(source)[:12]):
        with Image.open(path) as image:
            small = image.convert("RGB").resize((480, 320))
        name = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")[number % 6]
        buffer = BytesIO()
        small.save(buffer, name)
        found.append(buffer.getvalue())
    return found


async def carry_out(port: int, attack: Attack) -> int:
    """The status of the first answer, 0 where the connection was closed without one."""
    wire = socket.socket()
    if not attack.reads:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.connect(("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=wire, limit=1 << 12)
    answering = asyncio.ensure_future(reader.readline()) if attack.reads else None
    try:
        for pause_s, data in attack.pieces:
            await asyncio.sleep(pause_s)
            if answering is not None and answering.done():
                break
            writer.write(data)
            await writer.drain()
        if attack.ends:
            writer.write_eof()
    except ConnectionError:
        pass  # it is refused before all of it was sent, and the answer is there
    try:
        if answering is None:
            # Where nothing is read, that the connection was cut is seen by writing on it.
            while not writer.transport.is_closing():
                writer.write(b"x")
                await asyncio.sleep(0.1)
            return 0
        line = await answering
        return int(line.split(b" ", 2)[1]) if line.startswith(b"HTTP/1.1 ") else 0
    except ConnectionError:
        return 0
    finally:
        writer.close()


async def attack_all(service: Service, planned: list[Attack], at_once: int) -> dict[str, Any]:
    """Carry out all attacks, some at once; what came of each family, and the memory at its highest."""
    places = asyncio.Semaphore(at_once)
    statuses: dict[str, Counter[int]] = defaultdict(Counter)
    slowest_s: dict[str, float] = defaultdict(float)
    wrong: list[str] = []

    async def one(attack: Attack) -> None:
        async with places:
            started_s = time.perf_counter()
            try:
                status = await asyncio.wait_for(carry_out(service.port, attack), PATIENCE_S)
            except TimeoutError:
                status = -1
            slowest_s[attack.family] = max(slowest_s[attack.family], time.perf_counter() - started_s)
            statuses[attack.family][status] += 1
            if status not in attack.right:
                wrong.append(f"{attack.family}: {status}, not {sorted(attack.right)}: {attack.pieces[0][1][:300]!r}")

    async def watch() -> float:
        most_mb = 0.0
        while True:
            most_mb = max(most_mb, service.memory_mb)
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                return most_mb

    watching = asyncio.ensure_future(watch())
    await asyncio.gather(*map(one, planned))
    watching.cancel()
    families = {
        family: {"statuses": dict(sorted(statuses[family].items())), "slowest_s": round(slowest_s[family], 2)}
        for family in sorted(statuses)
    }
    return {"families": families, "wrong": wrong, "memory_peak_MB": await watching}


def measure(given: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Figures of one attack on one service."""
    photos, results = place / "photos", place / "results"
    link_photos(given.source, photos, given.photos)
    model = ["--model", given.model] if given.model else []
    predict(photos, results, given.photos, model)
    planned = attacks(small_photos(given.source), given.requests, given.seed)
    with served(*OPTIONS, *model) as service:
        call = command(service.port, photos, results, clients=GOOD_CLIENTS, seconds=0)
        good = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        time.sleep(given.warm_up)
        before_mb = service.memory_mb
        started_s = time.perf_counter()
        found = asyncio.run(attack_all(service, planned, given.at_once))
        seconds = time.perf_counter() - started_s
        output, _ = good.communicate()
        time.sleep(2)
        return {
            "hostile_requests": len(planned),
            "seconds": round(seconds, 1),
            **found,
            "memory_before_MB": before_mb,
            "memory_after_MB": service.memory_mb,
            "good_clients": json.loads(output),
            "is_alive": service.is_alive,
        }


def main() -> None:
    """Measure, print, and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?", default=CARVANA / "train", metavar="PHOTOS")
    parser.add_argument("--requests", type=int, default=2400)
    parser.add_argument("--at-once", type=int, default=24)
    parser.add_argument("--photos", type=int, default=50, help="photos of the good clients")
    parser.add_argument("--warm-up", type=float, default=15, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        figures = measure(given, Path(place))
    wrong = figures.pop("wrong")
    print(json.dumps(figures, indent=1))
    good = figures["good_clients"]
    failures = [f"{len(wrong)} wrong answers"] if wrong else []
    if set(good["statuses"]) - {"200"} or good["wrong_results"] or good["broken_connections"]:
        failures.append("good clients were not served as they should be")
    if figures["memory_peak_MB"] > MOST_MEMORY_MB:
        failures.append(f"it took {figures['memory_peak_MB']} MB of memory, more than {MOST_MEMORY_MB}")
    if not figures["is_alive"]:
        failures.append("the service is dead")
    record("serve_abuse", {**figures, "wrong_answers": len(wrong), "shortcomings": failures})
    sys.exit("\n".join((*failures, *wrong[:20])) or None)


if __name__ == "__main__":
    main()
