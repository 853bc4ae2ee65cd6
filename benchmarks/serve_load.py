"""How many photos a second the service cuts out for many clients at once, beside `carmask predict` on the same photos.

    python benchmarks/serve_load.py PHOTOS [--photos 500] [--clients 64] [--seconds 60] [--model MODEL]

On loopback, clients and service sharing the machine: with micro-batches and without, `carmask predict` before and
after. Every answer is compared with the file that `carmask predict` wrote. Writes docs/results/serve_load.json; ends
with status 1 where something is not as it should be.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from pathlib import Path
from statistics import median
from typing import Any

from record import CARVANA, link_photos, record, seconds_of_predict
from serve_clients import command, served

# What has to be shown.
LEAST_OF_PREDICT = 0.8
MOST_P95_OF_P50 = 3.0
MOST_GROWTH_MB = 30.0
# Memory is the median of so many seconds: what is at work at one moment is more or less by chance.
MEMORY_SAMPLES = 9

BATCHING = {"on": ("--batch-size", "4"), "off": ("--batch-size", "1", "--batch-wait-ms", "0")}


def predict(photos: Path, results: Path, count: int, model: list[str]) -> float:
    """Photos a second of `carmask predict`, without its start."""
    call = [sys.executable, "-m", "carmask", "predict", str(photos), str(results), "--overwrite", *model]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(call)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return round(count / seconds_of_predict(done.stdout), 2)


def photos_in_a_batch(port: int) -> float:
    """How many photos passed through the network together, on average, by the service's own counters."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        metrics = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
    return round(float(metrics["carmask_batch_photos_sum"]) / float(metrics["carmask_batch_photos_count"]), 2)


def load(photos: Path, results: Path, given: argparse.Namespace, options: tuple[str, ...]) -> dict[str, Any]:
    """Figures of one service under load, after a warm-up."""
    with served(*options) as service:

        def clients(seconds: float) -> tuple[dict[str, Any], float]:
            """Their figures, and the memory of the service toward their end, while they are at it still."""
            call = command(service.port, photos, results, clients=given.clients, seconds=seconds)
            memory_mb = deque([service.memory_mb], maxlen=MEMORY_SAMPLES)
            with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as process:
                while process.poll() is None:
                    memory_mb.append(service.memory_mb)
                    time.sleep(1)
                assert process.stdout is not None
                return json.loads(process.stdout.read()), median(memory_mb)

        _, warm_mb = clients(given.warm_up)
        before_s = service.cpu_s
        figures, end_mb = clients(given.seconds)
        return {
            **figures,
            "service_cpu_s": round(service.cpu_s - before_s, 1),
            "photos_in_a_batch": photos_in_a_batch(service.port),
            "memory_after_warm_up_MB": warm_mb,
            "memory_at_the_end_MB": end_mb,
            "memory_peak_MB": service.peak_memory_mb,
        }


def shortcomings(figures: dict[str, Any]) -> list[str]:
    """What is not as it should be."""
    growth_mb = figures["memory_at_the_end_MB"] - figures["memory_after_warm_up_MB"]
    strange = set(figures["statuses"]) - {"200", "503"}
    found = {
        f"{figures['of_predict']:.0%} of predict's throughput": figures["of_predict"] < LEAST_OF_PREDICT,
        f"p95 is {figures['p95_s'] / figures['p50_s']:.1f} times the median": figures["p95_s"]
        > MOST_P95_OF_P50 * figures["p50_s"],
        f"memory grew by {growth_mb:.1f} MB": growth_mb > MOST_GROWTH_MB,
        f"statuses {strange}": bool(strange),
        f"{figures['wrong_results']} wrong results": figures["wrong_results"] > 0,
        f"{figures['broken_connections']} broken connections": figures["broken_connections"] > 0,
    }
    return [words for words, is_so in found.items() if is_so]


def main() -> None:
    """Measure, print, and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?", default=CARVANA / "train", metavar="PHOTOS")
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warm-up", type=float, default=20, help="seconds")
    parser.add_argument("--model")
    given = parser.parse_args()
    model = ["--model", given.model] if given.model else []
    with tempfile.TemporaryDirectory() as place:
        photos, results = Path(place, "photos"), Path(place, "results")
        link_photos(given.source, photos, given.photos)
        rates = [predict(photos, results, given.photos, model)]
        loads = {name: load(photos, results, given, (*options, *model)) for name, options in BATCHING.items()}
        rates.append(predict(photos, results, given.photos, model))
    mean = sum(rates) / len(rates)
    failures = []
    for name, figures in loads.items():
        figures["of_predict"] = round(figures["photos_per_s"] / mean, 3)
        print(f"micro-batches {name}: {json.dumps(figures, indent=1)}")
        failures += [f"micro-batches {name}: {words}" for words in shortcomings(figures)]
    print(f"carmask predict: {rates} photos a second")
    record(
        "serve_load",
        {
            "photos": given.photos,
            "clients": given.clients,
            "seconds": given.seconds,
            "predict_photos_per_s": rates,
            "micro_batches": loads,
            "shortcomings": failures,
        },
    )
    sys.exit("\n".join(failures) or None)


if __name__ == "__main__":
    main()
