"""Training speed of `small` at 128 x 128, batch 16: the project's own loop against plain float32 PyTorch.

    python benchmarks/training_speed.py

Both train the same network, in processes of their own, in turn and in three rounds; the figures are medians. `plain`
is what one writes first: float32, PyTorch's default memory layout, batches from arrays in memory. Between the two
stands the same loop with one step after the other of what makes the difference. A last figure is the speed over three
epochs of `carmask train`, which must not sink.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from carmask.models.card import ModelCard
from carmask.models.network import Network
from carmask.training.config import TrainSettings
from carmask.training.memory import keep_freed_memory
from record import record

BATCH = 16
WARM_UP_STEPS, STEPS = 1, 3
ROUNDS = 3
EPOCHS, EPOCH_STEPS = 3, 11
VARIANTS = ("plain", "+ kept memory", "+ channels_last", "+ bfloat16")


def loop_seconds(variant: str) -> list[float]:
    """Seconds of each step of a hand-written loop, with all that `variant` and those before it add."""
    with keep_freed_memory(torch.device("cpu")) if variant != "plain" else nullcontext():
        return _step_seconds(VARIANTS.index(variant))


def _step_seconds(level: int) -> list[float]:
    layout = torch.channels_last if level >= 2 else torch.contiguous_format
    network = Network(ModelCard.from_preset("small")).train()
    network.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    images_NCHW, masks_N1HW = torch.rand(4 * BATCH, 1, 128, 128), torch.rand(4 * BATCH, 1, 128, 128).round()
    seconds = []
    for step in range(WARM_UP_STEPS + STEPS):
        began_s = time.perf_counter()
        chosen = torch.randint(len(images_NCHW), (BATCH,))
        with torch.autocast("cpu", torch.bfloat16, enabled=level >= 3):
            logits_B1HW = network(images_NCHW[chosen].contiguous(memory_format=layout))
        loss = functional.binary_cross_entropy_with_logits(logits_B1HW.float(), masks_N1HW[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step >= WARM_UP_STEPS:
            seconds.append(time.perf_counter() - began_s)
    return seconds


def carmask_rates() -> list[float]:
    """Images per second in each epoch of a run of `carmask train` with the defaults of `small`."""
    from carmask.training.train import train

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
        run = train(settings).run
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
        part = sys.argv[1]
        print(json.dumps(loop_seconds(part) if part in VARIANTS else carmask_rates()))
        return
    rates: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    ours: list[list[float]] = []
    for number in range(ROUNDS):
        for variant in VARIANTS:
            rates[variant].append(BATCH / statistics.median(in_a_process(variant)))
        ours.append(in_a_process("carmask train"))
        line = ", ".join(f"{variant} {values[-1]:.2f}" for variant, values in rates.items())
        print(f"round {number + 1}: {line}, carmask train {' '.join(f'{rate:.2f}' for rate in ours[-1])} img/s")
    by_epoch = [statistics.median(epoch) for epoch in zip(*ours, strict=True)]
    medians = {variant: statistics.median(values) for variant, values in rates.items()}
    ratio = statistics.median(by_epoch) / medians["plain"]
    print(f"carmask train is {ratio:.2f} times as fast; epoch 3 against epoch 1: {by_epoch[-1] / by_epoch[0]:.3f}")
    bf16 = [name for name in ("amx_bf16", "avx512_bf16") if torch.cpu.get_capabilities().get(name)]
    record(
        "training_speed",
        {
            "network": "small",
            "input": "1 x 128 x 128",
            "batch": BATCH,
            "threads": torch.get_num_threads(),
            "bfloat16_instructions": bf16,
            "loop_img_per_s": {variant: round(rate, 2) for variant, rate in medians.items()},
            "carmask_train_img_per_s_by_epoch": [round(rate, 2) for rate in by_epoch],
            "ratio_to_plain": round(ratio, 2),
            "last_epoch_against_first": round(by_epoch[-1] / by_epoch[0], 3),
        },
    )


if __name__ == "__main__":
    main()
