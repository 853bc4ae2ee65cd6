"""Training speed of `small` at 128 x 128, batch 16: the project's own loop against plain float32 PyTorch.

    python benchmarks/training_speed.py

Both train the same network, in processes of their own, one after the other and three times in turn; the figures are
medians. `plain` is what one writes first: float32, PyTorch's default memory layout, batches from arrays in memory. A
second figure is the speed over three epochs, which must not sink.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from carmask.models.network import Network, NetworkConfig
from carmask.training.settings import TrainSettings
from record import record

BATCH = 16
WARM_UP_STEPS, STEPS = 3, 12
ROUNDS = 3
EPOCHS, EPOCH_STEPS = 3, 20


def plain_steps() -> list[float]:
    """Seconds of each step of a plain float32 loop."""
    network = Network(NetworkConfig.from_preset("small")).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    images_NCHW, masks_N1HW = torch.rand(4 * BATCH, 1, 128, 128), torch.rand(4 * BATCH, 1, 128, 128).round()
    seconds = []
    for step in range(WARM_UP_STEPS + STEPS):
        began_s = time.perf_counter()
        chosen = torch.randint(len(images_NCHW), (BATCH,))
        loss = functional.binary_cross_entropy_with_logits(network(images_NCHW[chosen]), masks_N1HW[chosen])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step >= WARM_UP_STEPS:
            seconds.append(time.perf_counter() - began_s)
    return seconds


def carmask_rates() -> list[float]:
    """Images per second in each epoch of a run of `carmask train` with the published recipe."""
    from carmask.training.start import train

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        _write_photos(data)
        settings = TrainSettings.model_validate(
            {
                "data": data,
                "runs": Path(folder) / "runs",
                "epochs": EPOCHS,
                "epoch_samples": EPOCH_STEPS * BATCH,
                "batch_size": BATCH,
                "dataset": {"cache": Path(folder) / "cache"},
            }
        )
        run = train(settings)
        lines = run.metrics.read_text().splitlines()
    column = lines[0].split(",").index("images_per_s")
    return [float(line.split(",")[column]) for line in lines[1:]]


def _write_photos(data: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
    for number in range(10):
        Image.fromarray(rng.integers(0, 255, (128, 128, 3), np.uint8)).save(data / f"images/{number}.png")
        Image.fromarray(rng.integers(0, 2, (128, 128), np.uint8) * 255).save(data / f"masks/{number}.png")


def in_a_process(part: str) -> list[float]:
    """Run one part of this file in a fresh process."""
    command = [sys.executable, __file__, part]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    values: list[float] = json.loads(output.splitlines()[-1])
    return values


def main() -> None:
    """Measure in turn, print, write down."""
    if len(sys.argv) > 1:
        print(json.dumps(plain_steps() if sys.argv[1] == "plain" else carmask_rates()))
        return
    plain, ours = [], []
    for _ in range(ROUNDS):
        plain.append(BATCH / statistics.median(in_a_process("plain")))
        ours.append(in_a_process("carmask"))
        print(f"plain {plain[-1]:.2f} img/s, carmask {', '.join(f'{rate:.2f}' for rate in ours[-1])} img/s by epoch")
    by_epoch = [statistics.median(rates) for rates in zip(*ours, strict=True)]
    ratio = statistics.median(by_epoch) / statistics.median(plain)
    print(f"carmask trains {ratio:.2f} times as fast; epoch 3 against epoch 1: {by_epoch[-1] / by_epoch[0]:.3f}")
    record(
        "training_speed",
        {
            "network": "small",
            "input": "1 x 128 x 128",
            "batch": BATCH,
            "threads": torch.get_num_threads(),
            "cpu_features": [name for name, there in torch.cpu.get_capabilities().items() if there is True],
            "plain_float32_img_per_s": round(statistics.median(plain), 2),
            "carmask_img_per_s_by_epoch": [round(rate, 2) for rate in by_epoch],
            "ratio": round(ratio, 2),
            "last_epoch_against_first": round(by_epoch[-1] / by_epoch[0], 3),
        },
    )


if __name__ == "__main__":
    main()
