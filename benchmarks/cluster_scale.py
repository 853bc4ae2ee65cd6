"""Check and measure `carmask predict --cluster` on Ray clusters of one-core nodes, started on this machine.

    python benchmarks/cluster_scale.py [PHOTOS] [--photos 2000] [--only same lost overhead memory]

same      masks and run lengths through 1, 2 and 4 nodes, compared with those of one machine, every byte
lost      the command killed, a node killed, a node lost at the start: compared again
overhead  one machine with all its cores as a cluster, against the same command without one
memory    the command's own memory for a long list of paths (--paths 1000000), one in a thousand of which exists

Updates the measured parts of docs/results/cluster.json, and exits with status 1 if a byte differs or a photo is lost.
Then `python benchmarks/cluster_cost.py` fills docs/scale.md.
"""

import argparse
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carmask.environment import environment
from carmask.pipeline.cluster.connection import folder_for_ray, quiet_ray
from kill_predict import contents
from record import CARVANA, link_photos, record, recorded, seconds_of_predict

NODES = (1, 2, 4)
DESTINATIONS = {"mask": "masks", "carvana-csv": "table.csv"}


@dataclass(frozen=True)
class Task:
    """Photos, the folder for results, and options of every command."""

    photos: Path
    count: int
    place: Path
    paths: int
    always: tuple[str, ...]

    def command(self, destination: Path, *options: str, source: Path | None = None) -> list[str]:
        """`carmask predict` of all photos, or of another source."""
        source = source or self.photos
        return [sys.executable, "-m", "carmask", "predict", str(source), str(destination), *options, *self.always]

    def run(self, destination: Path, *options: str) -> dict[str, float]:
        """Run to the end; seconds of the whole command, and of predicting alone."""
        destination.parent.mkdir(parents=True, exist_ok=True)
        began_s = time.perf_counter()
        done = subprocess.run(self.command(destination, *options), stdout=subprocess.PIPE, text=True, check=True)
        took_s = time.perf_counter() - began_s
        cutting_out_s = seconds_of_predict(done.stdout)
        return {
            "command_s": round(took_s, 1),
            "cutting_out_s": cutting_out_s,
            "photos_per_s": round(self.count / cutting_out_s, 2),
            "photos_per_s_of_command": round(self.count / took_s, 2),
        }


@contextmanager
def cluster(nodes: int, *, cores: int = 1) -> Iterator[Any]:
    """Start a head without cores and this many nodes; yields Ray's `Cluster`."""
    with folder_for_ray() as folder, quiet_ray():
        os.environ["RAY_TMPDIR"] = folder
        from ray.cluster_utils import Cluster

        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(nodes):
                started.add_node(num_cpus=cores)
            yield started
        finally:
            started.shutdown()


def same(task: Task) -> dict[str, Any]:
    """Both kinds of destinations on 1, 2 and 4 nodes."""
    figures: dict[str, Any] = {"photos": task.count}
    for kind, name in DESTINATIONS.items():
        figures[kind] = {"one machine": task.run(task.place / "whole" / kind / name)}
    for nodes in NODES:
        with cluster(nodes) as started:
            for kind, name in DESTINATIONS.items():
                folder = task.place / f"{nodes}" / kind
                row = task.run(folder / name, "--cluster", started.address)
                row |= differences(task.place / "whole" / kind, folder)
                figures[kind][f"{nodes} node{'s' * (nodes > 1)}"] = row
                print(kind, nodes, row, flush=True)
    photo_bytes = sum(path.stat().st_size for path in task.photos.rglob("*.*"))
    figures["bytes_a_photo"] = {"read": round(photo_bytes / task.count)}
    for kind in DESTINATIONS:
        files = [path for path in (task.place / "whole" / kind).rglob("*.*") if not path.name.startswith(".")]
        figures["bytes_a_photo"][kind] = round(sum(path.stat().st_size for path in files) / task.count)
    return figures


def lost(task: Task) -> dict[str, Any]:
    """Kill the command, start it again, kill a node; and kill one before the first result."""
    quarter, half = task.count // 4, task.count // 2
    return {
        "photos": task.count,
        "killed at a quarter, a node lost at half": {
            kind: _lose(task, kind, name, kill_at=quarter, lose_at=half) for kind, name in DESTINATIONS.items()
        },
        "a node lost at the start": _lose(task, "mask", "masks", kill_at=None, lose_at=0),
    }


def _lose(task: Task, kind: str, name: str, *, kill_at: int | None, lose_at: int) -> dict[str, Any]:
    """Disturb runs, finish the work, and compare."""
    whole = task.place / "whole" / kind
    if not whole.exists():
        task.run(whole / name)
    folder = task.place / f"lost-at-{lose_at}" / kind
    runs = []
    with cluster(4) as started:
        node = next(iter(started.worker_nodes))
        command, done = task.command(folder / name, "--cluster", started.address), _results(folder)
        if kill_at is not None:
            runs.append(_disturb(command, done, kill_at, lambda process: process.send_signal(signal.SIGKILL)))
        runs.append(_disturb(command, done, lose_at, lambda _: _pull_plug(started, node)))
        if runs[-1]["status"]:
            runs.append(_disturb(command, done, task.count, lambda _: None))
    figures = {"runs": runs, **differences(whole, folder)}
    print(kind, figures, flush=True)
    return figures


def overhead(task: Task) -> dict[str, Any]:
    """Compare one machine as a cluster, with all its cores, with the same machine without Ray."""
    plain = task.run(task.place / "plain")
    ray = task.run(task.place / "cluster", "--cluster", "auto")
    figures = {"photos": task.count, "one machine": plain, "the same as a cluster": ray}
    for what in ("photos_per_s", "photos_per_s_of_command"):
        figures[f"share of {what}"] = round(ray[what] / plain[what], 3)
    print(figures, flush=True)
    return {**figures, **differences(task.place / "plain", task.place / "cluster")}


def memory(task: Task) -> dict[str, Any]:
    """Memory and time for a long list of paths, few of which exist."""
    real = itertools.cycle(sorted(path for path in task.photos.rglob("*.*")))
    few, listing = task.place / "few", task.place / "list.txt"
    few.mkdir()
    with listing.open("w") as stream:
        for number in range(task.paths):
            path = few / f"{number // 10_000:04}" / f"photo_with_a_usual_name_{number:08}.jpg"
            if number % 1000 == 0:
                path.parent.mkdir(exist_ok=True)
                path.symlink_to(next(real))
            stream.write(f"{path}\n")
    began_s = time.perf_counter()
    command = task.command(task.place / "long.csv", "--cluster", "auto", source=listing)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took_s = time.perf_counter() - began_s
    failures = (task.place / "long.csv.failures.csv").read_bytes().count(b"\n") - 1
    rows = (task.place / "long.csv").read_bytes().count(b"\n") - 1
    figures = {
        "paths": task.paths,
        "photos": rows,
        "missing": failures,
        "status": os.waitstatus_to_exitcode(status),
        "seconds": round(took_s, 1),
        "paths_per_s": round(task.paths / took_s),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_MB": round(usage.ru_maxrss / 1024),
        "lost": task.paths - rows - failures,
    }
    print(figures, flush=True)
    return figures


def differences(whole: Path, found: Path) -> dict[str, Any]:
    """Count files and name those that differ, hidden ones included."""
    one, other = contents(whole), contents(found)
    return {
        "files": len(one),
        "files that differ": sorted(name for name in {*one, *other} if one.get(name) != other.get(name)),
    }


def _pull_plug(started: Any, node: Any) -> None:
    """Kill Ray's own processes of a node, and with them its workers, which may outlive them."""
    mark = f"RAY_RAYLET_PID={node.all_processes['raylet'][0].process.pid}\0".encode()
    started.remove_node(node, allow_graceful=False)
    for environment_of in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in environment_of.read_bytes():
                os.kill(int(environment_of.parent.name), signal.SIGKILL)


def _results(folder: Path) -> Callable[[], int]:
    """Return a function that counts results: pictures, or lines of an unfinished table."""

    def count() -> int:
        part = folder / "table.csv.part"
        if part.exists():
            return max(0, part.read_bytes().count(b"\n") - 1)
        return sum(1 for _ in folder.rglob("*.png"))

    return count


def _disturb(
    command: Sequence[str], done: Callable[[], int], at: int, disturb: Callable[[Any], None]
) -> dict[str, Any]:
    """Run the command, and disturb it when it has `at` results; with 0 as soon as it has started."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # it names the network and the workers when all machines agree
    while process.poll() is None and done() < at:
        time.sleep(0.02)
    results = done()
    disturb(process)
    process.communicate()
    return {"results before": results, "status": process.returncode}


PARTS: dict[str, Callable[[Task], dict[str, Any]]] = {
    "same": same,
    "lost": lost,
    "overhead": overhead,
    "memory": memory,
}


def main() -> None:
    """Measure the chosen parts, and keep the figures of the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?", default=CARVANA / "train")
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--paths", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--model")
    parser.add_argument("--trial", action="store_true", help="record nothing")
    given = parser.parse_args()
    figures = recorded("cluster")
    wrong = False
    with tempfile.TemporaryDirectory() as place:
        link_photos(given.source, Path(place, "photos"), given.photos, folders=20)
        always = ("-m", given.model) if given.model else ()
        task = Task(Path(place, "photos"), given.photos, Path(place), given.paths, always)
        for name in given.only:
            about = environment()
            figures[name] = {"commit": about["commit"], "date": about["date"], **PARTS[name](task)}
            wrong |= _is_wrong(figures[name])
            if not given.trial:
                record("cluster", figures)
    sys.exit(wrong)


def _is_wrong(figures: dict[str, Any]) -> bool:
    """Whether any file differs, or any photo was lost, at any depth."""
    return any(
        (_is_wrong(value) if isinstance(value, dict) else key in ("files that differ", "lost") and bool(value))
        for key, value in figures.items()
    )


if __name__ == "__main__":
    main()
