"""What missing cars cost: Dice on the same held-out cars, against the number of cars that a network learned from.

    python benchmarks/cars_curve.py CARVANA [--recipe fast|sharp]

Trains, evaluates, writes docs/results/cars_curve-RECIPE.json and draws the curves. The smaller sets of cars lie inside
the larger ones, and the runs of a recipe see as many photos or crops, so those of fewer cars see each more often.

`fast` learns from whole photos at 256 x 384, with configs/ablation.yaml and the border-weighted loss. `sharp` learns
from crops of photos at their own size, with configs/sharp.yaml for a sixth of its epochs and from the studio alone.
It refines the outlines of `general`, which has learned from all 57 cars.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from matplotlib.figure import Figure

from carmask.data.split import Split
from record import RESULTS, record, recorded
from trainings import figures_of, measure

CONFIGS = RESULTS.parent.parent / "configs"
CARS = {"fast": (8, 16, 32, 57), "sharp": (16, 57)}
TITLES = {"fast": "fast at 256 x 384", "sharp": "sharp at the photo's size"}
PICTURE = RESULTS.parent / "pictures" / "cars_curve.png"
SEED = 0
SHARP_EPOCHS = 4
SHARP_CROPS_PER_PHOTO = 32


def main() -> None:
    """Train once for each number of cars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", choices=CARS, default="fast")
    parser.add_argument("--split", type=Path, default=RESULTS / "split-carvana-fold0of5.json")
    parser.add_argument("--runs", type=Path, default=Path("runs/cars"))
    arguments = parser.parse_args()
    whole = Split.load(arguments.split)
    cars = np.random.default_rng(SEED).permutation(sorted({whole.group_of[id_] for id_ in whole.train}))
    learn = {"fast": learn_fast, "sharp": learn_sharp}[arguments.recipe]
    rows = []
    for count in CARS[arguments.recipe]:
        run = arguments.runs / f"{arguments.recipe}-{count}-cars"
        split = run.with_suffix(".json")
        some_cars(whole, frozenset(cars[:count])).save(split)
        learn(arguments.data, split, run, len(whole.train))
        rows.append({"cars": count, **figures_of(run)})
    record(f"cars_curve-{arguments.recipe}", {"data": arguments.data.name, "rows": rows})
    draw()


def some_cars(whole: Split, cars: frozenset[str]) -> Split:
    """The same held-out photos, and those of fewer cars to learn from."""
    train = tuple(id_ for id_ in whole.train if whole.group_of[id_] in cars)
    group_of = {id_: whole.group_of[id_] for id_ in (*train, *whole.validation)}
    return whole.model_copy(update={"train": train, "group_of": group_of})


def learn_fast(data: Path, split: Path, run: Path, photos: int) -> None:
    """Train on whole photos."""
    config = ["--config", str(CONFIGS / "ablation.yaml"), "--loss.name", "border", "--dataset.split", str(split)]
    measure(data, run, [*config, "--epoch-samples", str(photos)])


def learn_sharp(data: Path, split: Path, run: Path, photos: int) -> None:
    """Train on crops of the photos, which are cut first. Each run sees the same number of them."""
    crops = run.with_name(f"{run.name}-crops")
    if not crops.exists():
        command = ["crops", str(data), str(crops), "--split", str(split), "--per-photo", str(SHARP_CROPS_PER_PHOTO)]
        subprocess.run([sys.executable, "-m", "carmask", *command], check=True)
    config = run.with_suffix(".yaml")
    settings = yaml.safe_load((CONFIGS / "sharp.yaml").read_text())
    del settings["datasets"]
    config.write_text(
        yaml.safe_dump({**settings, "epochs": SHARP_EPOCHS, "epoch_samples": photos * SHARP_CROPS_PER_PHOTO})
    )
    options = ["--config", str(config), "--dataset.fraction", "0"]
    measure(crops, run, options, evaluate_on=data, split=split)


def draw() -> None:
    """The curves of the recipes that were measured, the number of cars on a scale of doublings."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for recipe, color in zip(CARS, ("#1f6f8b", "#c8553d"), strict=True):
        if rows := recorded(f"cars_curve-{recipe}").get("rows"):
            dice = [row["dice"] for row in rows]
            axes.plot([row["cars"] for row in rows], dice, marker="o", color=color, label=TITLES[recipe])
    axes.set(xlabel="cars learned from", ylabel="Dice on 14 other cars", xscale="log")
    axes.set_xticks(CARS["fast"], [str(count) for count in CARS["fast"]])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
