"""What missing cars cost: Dice of `fast` on the same held-out cars, against the number of cars that it learned from.

    python benchmarks/cars_curve.py CARVANA     runs, evaluates, writes docs/results/cars_curve.json, draws the curve

Every run sees as many photos (configs/ablation.yaml with the border-weighted loss); those of fewer cars see them more
often. The smaller sets lie inside the larger ones.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from carmask.data.split import Split
from record import RESULTS, record
from trainings import figures_of, measure

CONFIG = RESULTS.parent.parent / "configs" / "ablation.yaml"
CARS = (8, 16, 32, 57)
PICTURE = RESULTS.parent / "pictures" / "cars_curve.png"
SEED = 0


def main() -> None:
    """Train once for each number of cars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", type=Path, default=RESULTS / "split-carvana-fold0of5.json")
    parser.add_argument("--runs", type=Path, default=Path("runs/cars"))
    arguments = parser.parse_args()
    whole = Split.load(arguments.split)
    cars = np.random.default_rng(SEED).permutation(sorted({whole.group_of[id_] for id_ in whole.train}))
    rows = []
    for count in CARS:
        split = arguments.runs / f"{count}-cars.json"
        some_cars(whole, frozenset(cars[:count])).save(split)
        options = ["--config", str(CONFIG), "--loss.name", "border", "--dataset.split", str(split)]
        measure(
            arguments.data,
            run := arguments.runs / f"{count}-cars",
            [*options, "--epoch-samples", str(len(whole.train))],
        )
        rows.append({"cars": count, **figures_of(run)})
    record("cars_curve", {"config": CONFIG.name, "data": arguments.data.name, "rows": rows})
    draw([row["cars"] for row in rows], [row["dice"] for row in rows])


def some_cars(whole: Split, cars: frozenset[str]) -> Split:
    """The same held-out photos, and those of fewer cars to learn from."""
    train = tuple(id_ for id_ in whole.train if whole.group_of[id_] in cars)
    group_of = {id_: whole.group_of[id_] for id_ in (*train, *whole.validation)}
    return whole.model_copy(update={"train": train, "group_of": group_of})


def draw(cars: list[int], dice: list[float]) -> None:
    """The curve, the number of cars on a scale of doublings."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(cars, dice, marker="o", color="#1f6f8b")
    axes.set(title="fast at 256 x 384", xlabel="cars learned from", ylabel="Dice on 14 other cars", xscale="log")
    axes.set_xticks(cars, [str(count) for count in cars])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
