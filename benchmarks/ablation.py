"""What each of the defaults of `fast` gives: one run for each, everything else as in configs/ablation.yaml.

    python benchmarks/ablation.py CARVANA [VARIANT ...]     runs, evaluates, writes docs/results/ablation.json

Runs that are finished are kept, one that was stopped goes on. All run on the same held-out cars. The list is of what
can be run; docs/experiments.md says what was. The base stands in it with three seeds: what differs less than they do
would say nothing.
"""

import argparse
from pathlib import Path

from record import RESULTS, record
from trainings import evaluations, figures_of, measure

CONFIG = RESULTS.parent.parent / "configs" / "ablation.yaml"
# Options of `carmask train` for each variant.
VARIANTS: dict[str, str] = {
    "base": "",
    "base, seed 1": "--seed 1",
    "base, seed 2": "--seed 2",
    "border-weighted loss": "--loss.name border",
    "BCE alone": "--loss.name bce",
    "Dice alone": "--loss.name dice",
    "no averaged weights": "--ema 0",
    "nothing varied": "--augment.flip 0 --augment.geometric 0 --augment.color 0 --augment.gray 0",
    "flips alone": "--augment.geometric 0 --augment.color 0 --augment.gray 0",
    "Adam at 1e-4, constant": "--optimizer.name adam --optimizer.lr 1e-4 --optimizer.weight-decay 0 "
    "--optimizer.clip-norm 0 --schedule.name constant",
    "hard masks": "--loss.hard-targets",
    "cars pasted on other photos": "--augment.copy-paste 0.3",
    "cosine instead of one-cycle": "--schedule.name cosine",
    "stem 4, 32 to 256": "--network.stem 4 --network.widths 32 64 128 256 256",
    "half the width": "--network.widths 8 16 32 64 128 128",
    "one and a half times the width": "--network.widths 24 48 96 192 384 384",
    "one level fewer": "--network.widths 16 32 64 128 256",
    "128 x 192": "--input.height-px 128 --input.width-px 192",
    "512 x 768": "--input.height-px 512 --input.width-px 768",
}


def main() -> None:
    """Run what is asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("variants", nargs="*", default=list(VARIANTS))
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    arguments = parser.parse_args()
    for variant in arguments.variants:
        options = ["--config", str(CONFIG), *VARIANTS[variant].split()]
        measure(arguments.data, folder_of(variant, arguments.runs), options)
    runs = {variant: folder_of(variant, arguments.runs) for variant in VARIANTS}
    rows = [
        {"variant": variant, "options": VARIANTS[variant], **figures_of(run)}
        for variant, run in runs.items()
        if evaluations(run)
    ]
    record("ablation", {"config": CONFIG.name, "data": arguments.data.name, "rows": rows})


def folder_of(variant: str, runs: Path) -> Path:
    """The run of a variant."""
    return runs / variant.lower().replace(",", "").replace(" ", "-")


if __name__ == "__main__":
    main()
