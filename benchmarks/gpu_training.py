"""Training speed on a GPU: img/s, utilization and peak memory of `classic` and `deep`, beside a plain float32 loop.

    python benchmarks/gpu_training.py                              all of it, in about eight minutes on a large GPU
    python benchmarks/gpu_training.py --seconds 30                 `classic` at 512 px, not compiled, for half a minute
    python benchmarks/gpu_training.py --device cpu --sizes 64      a trial of the script itself, without figures

Each line is measured in a process of its own, with --seconds all in one. All do the same: forward, the border-weighted
loss, backward, AdamW, on random images that are on the device already: the cache's reading is measured by
`training_speed.py`.
"""

import argparse
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from carmask.models.card import ModelCard
from carmask.models.config import PRESETS
from carmask.models.network import Network
from carmask.training.config_sections import LossSettings
from carmask.training.losses import make_loss
from record import record

NETWORKS = ("classic", "deep")
SIZES_PX = (512, 1024)
# Images at once at 512 px; a quarter of that at 1024 px.
BATCH = 32
WARM_UP_STEPS, BLOCKS, STEPS_IN_BLOCK = 8, 5, 6
VARIANTS: dict[str, dict[str, Any]] = {
    "plain float32": {"precision": torch.float32, "channels_last": False, "compiled": False},
    "bf16, channels_last": {"precision": torch.bfloat16, "channels_last": True, "compiled": False},
    "bf16, channels_last, compiled": {"precision": torch.bfloat16, "channels_last": True, "compiled": True},
}


def main() -> None:
    """Measure every combination, each in its own process, or the one that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", type=int, nargs="*", help="sides of the images in pixels; 512 and 1024 if not given")
    parser.add_argument("--seconds", type=float, help="time for `classic`, float32 and bf16 together, beside the start")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU that PyTorch can use is here; --device cpu tries the script without figures")
    if arguments.one:
        network, size, variant = arguments.one
        print(json.dumps(measure(network, int(size), variant, arguments.device)))
        return
    rows = []
    combinations = list(itertools.product(NETWORKS, arguments.sizes or SIZES_PX, VARIANTS))
    if arguments.seconds is not None:
        uncompiled = [name for name, how in VARIANTS.items() if not how["compiled"]]
        combinations = list(itertools.product(NETWORKS[:1], arguments.sizes or SIZES_PX[:1], uncompiled))
    for network, size, variant in combinations:
        if arguments.seconds is not None:
            try:
                answer = measure(network, size, variant, arguments.device, arguments.seconds / len(combinations))
            except torch.OutOfMemoryError as error:
                answer = {"failed": str(error)[:200]}
        else:
            command = [sys.executable, __file__, "--device", arguments.device, "--one", network, str(size), variant]
            answer = _answer(subprocess.run(command, capture_output=True, text=True, check=False))
        rows.append({"network": network, "size_px": size, "variant": variant, **answer})
        print(rows[-1], flush=True)
    if arguments.device == "cuda":
        record("gpu_training", {"device": torch.cuda.get_device_name(), "rows": rows})


def _answer(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no word"])[-1][:200]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(name: str, size_px: int, variant: str, device: str, seconds: float | None = None) -> dict[str, Any]:
    """Images in a second (median of blocks), share of the time that the GPU was busy, and memory at its peak.

    Measures some blocks of steps or, with the warm-up, for `seconds`.
    """
    until_s = None if seconds is None else time.perf_counter() + seconds
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    how = VARIANTS[variant]
    batch = max(1, BATCH * 512**2 // size_px**2) if device == "cuda" else 2
    layout = torch.channels_last if how["channels_last"] else torch.contiguous_format
    preset = next(preset for preset in PRESETS if preset == name)
    network = Network(ModelCard.from_preset(preset)).train()
    network.to(device, memory_format=layout)  # type: ignore[call-overload]
    forward = torch.compile(network) if how["compiled"] else network
    loss_of = make_loss(LossSettings(name="border"))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    images_BCHW = torch.rand(batch, 3, size_px, size_px, device=device).contiguous(memory_format=layout)
    soft_B1HW = torch.rand(batch, 1, size_px, size_px, device=device)

    def step() -> None:
        with torch.autocast(device, how["precision"], enabled=how["precision"] != torch.float32):
            logits_B1HW = forward(images_BCHW)
        optimizer.zero_grad(set_to_none=True)
        loss_of(logits_B1HW.float(), soft_B1HW).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    for _ in range(WARM_UP_STEPS if device == "cuda" else 1):
        step()
    watch = _Utilization() if device == "cuda" else None
    blocks_s = [_timed(step, device)]
    while len(blocks_s) < (BLOCKS if device == "cuda" else 1) if until_s is None else time.perf_counter() < until_s:
        blocks_s.append(_timed(step, device))
    figures: dict[str, Any] = {
        "batch": batch,
        "steps": len(blocks_s) * STEPS_IN_BLOCK,
        "img_per_s": round(batch * STEPS_IN_BLOCK / statistics.median(blocks_s), 1),
    }
    if watch is not None:
        figures |= {"busy_percent": watch.end(), "peak_memory_GB": round(torch.cuda.max_memory_allocated() / 1e9, 2)}
    return figures


def _timed(step: Any, device: str) -> float:
    began_s = time.perf_counter()
    for _ in range(STEPS_IN_BLOCK):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began_s


class _Utilization:
    """What nvidia-smi says of the GPU, five times a second, until `end`."""

    def __init__(self) -> None:
        tool = shutil.which("nvidia-smi")
        query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=200"]
        self._process = subprocess.Popen([tool, *query], stdout=subprocess.PIPE, text=True) if tool else None

    def end(self) -> float | None:
        """The mean in percent; nothing without nvidia-smi."""
        if self._process is None:
            return None
        self._process.terminate()
        said = self._process.communicate()[0].split()
        return round(statistics.fmean(map(float, said)), 1) if said else None


if __name__ == "__main__":
    main()
