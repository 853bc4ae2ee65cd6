"""Draw the documents' tables and pictures from the figures that were kept.

    python benchmarks/results.py add RUN [RUN ...]   figures of runs and their evaluations -> docs/results/runs/*.json
    python benchmarks/results.py draw                the tables of README and docs, and the curves

`add` expects that `carmask evaluate DATA --model RUN` was run, and takes its summary. No photo is copied anywhere.
"""

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from record import RESULTS
from runs import RUNS, add

ROOT = RESULTS.parent.parent
PICTURES = RESULTS.parent / "pictures"
# Benchmarks that have tables of their own, or are too long for one.
ELSEWHERE = (
    *("carmask benchmark", "packaged", "kill_predict", "video_speed", "ablation", "mixed"),
    *("serve_load", "serve_abuse", "cluster", "gpu_training", "gpu_any_vehicle", "expected_dice", "box_scenes"),
)
# Of benchmarks/any_vehicle.py: what is measured, its part and figure, and what is aimed at.
ANY_VEHICLE = (
    ("no vehicle: share with an empty mask (under 0.1 %)", "no-vehicle", "share_empty", "0.970"),
    ("no vehicle: mean false area", "no-vehicle", "false_area", "0.001"),
    ("car parts: share found", "car-parts", "found", "0.990"),
    ("car parts: spilled, share of the car", "car-parts", "spilled", "0.010"),
    ("the same where all vehicles are labeled", "car-parts", "all_labeled spilled", "0.010"),
    ("street, Dice", "street-cars", "dice", "0.985"),
    ("street, small photos, Dice", "street-small", "dice", ""),
    ("studio, Dice", "carvana", "dice", "0.993"),
    ("studio, thin parts found (below 8 px)", "carvana", "thin_recall", ""),
    ("fire trucks, Dice", "fire-trucks", "dice", "0.950"),
    ("scenes, Dice", "scenes", "dice", "0.780"),
    ("scenes with all vehicles labeled, Dice", "scenes", "all_vehicles dice", ""),
    ("composites, Dice", "composites", "dice", "0.930"),
    ("composites of rendered cars, Dice", "rendered", "dice", ""),
)
# The order of the tables. A run that is not named here comes after.
ORDER = (
    *("small-published", "small-best", "classic-cpu", "classic-gpu"),
    *("fast-cpu", "fast-best", "fast-large", "fast-full", "deep-cpu", "deep-large"),
)
# Dice that a careful run should reach, and Dice that is aimed at.
BARS = {
    "small": (0.9890, 0.9930),
    "classic": (0.9935, 0.9965),
    "fast": (0.9930, 0.9965),
    "deep": (0.9950, 0.9975),
}
ENSEMBLE_BARS = (0.9962, 0.9978)
# Reported Dice on the challenge's own test photos, after training on all of its 318 cars, and our measure of the time
# that a network such as the first takes when it is run the naive way.
PEERS = (
    ("the most used public U-Net, 31 M parameters *", "0.9884"),
    ("the challenge's winners, about 49 networks *", "0.9973"),
)
# What the folders of benchmarks/mixed_folder.py and of the challenge are called.
_FOLDERS = {"carvana": "studio", "mixed": "studio, street", "carvana+street-cars": "studio, street"}


def load_runs() -> list[dict[str, Any]]:
    """All runs that were added, in the order of the tables."""
    runs = [json.loads(path.read_text()) for path in sorted(RUNS.glob("*.json"))]
    return sorted(runs, key=lambda run: (ORDER.index(run["run"]) if run["run"] in ORDER else len(ORDER), run["run"]))


def results_table(runs: list[dict[str, Any]]) -> str:
    """One row for each run."""
    lines = [
        "| run | input | parameters | multiply-adds | photos seen | Dice, mean | median | worst | boundary error | "
        "boundary F1 at 2 px | thin parts found | steps alone, at their median speed |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        dice, error, f1 = (run["figures"][name] for name in ("dice", "boundary_error_px", "boundary_f1"))
        minutes = run.get("minutes", run["photos_seen"] / run["images_per_s"] / 60)
        lines.append(
            f"| `{run['run']}` | {run['input']} | {run['parameters'] / 1e6:.2f} M | {run['gmac']} G "
            f"| {run['photos_seen']:,} | **{dice['mean']:.4f}** | {dice['median']:.4f} | {dice['worst']:.4f} "
            f"| {error['mean']:.2f} px | {f1['mean']:.3f} | {_thin(run['figures'].get('thin_recall', {}).get('mean'))} "
            f"| {minutes:.0f} min, at last {run['images_per_s']} img/s |"
        )
    return "\n".join([*lines, "", *sorted({_photos_of(run) for run in runs})])


def _thin(recall: float | None) -> str:
    """The recall of thin parts; older runs were measured without it."""
    return "-" if recall is None else f"{recall:.3f}"


def _photos_of(run: dict[str, Any]) -> str:
    cars = run["train_groups"] + run["held_out_groups"]
    of_all = f" ({cars} cars were at hand, of the challenge's 318)" if run["data"] == "carvana" else ""
    return (
        f"Measured on {run['held_out_photos']} photos of {run['held_out_groups']} cars that were not trained on, "
        f"each at its own size; trained on {run['train_photos']} photos of {run['train_groups']} cars{of_all}."
    )


def provenance_table(runs: list[dict[str, Any]]) -> str:
    """Where and when each figure was made."""
    lines = ["| run | commit | date | machine | settings |", "|---|---|---|---|---|"]
    for run in runs:
        environment = run["environment"]
        machine = environment["machine"]
        lines.append(
            f"| `{run['run']}` | `{environment['commit']}` | {environment['date'][:10]} | {machine['cpu']}, "
            f"{machine['cores']} cores | [`runs/{run['run']}.json`](results/runs/{run['run']}.json) |"
        )
    return "\n".join(lines)


def by_view_table(runs: list[dict[str, Any]]) -> str:
    """Mean Dice of each of the sixteen views."""
    lines = ["| view | " + " | ".join(f"`{run['run']}`" for run in runs) + " |", "|---" * (len(runs) + 1) + "|"]
    views = [row["name"] for row in runs[0]["by_view"]]
    for view in views:
        scores = [next(row["dice"] for row in run["by_view"] if row["name"] == view) for run in runs]
        lines.append(f"| {view} | " + " | ".join(f"{score:.4f}" for score in scores) + " |")
    return "\n".join(lines)


def bars_table(runs: list[dict[str, Any]]) -> str:
    """The best of each preset, and of several networks together, beside what was to be reached."""
    best = {
        f"`{preset}`": (f"`{run['run']}`", run["figures"]["dice"]["mean"], BARS[preset])
        for preset in BARS
        for run in sorted(runs, key=lambda run: float(run["figures"]["dice"]["mean"]))
        if run["settings"]["preset"] == preset
    }
    row = max(ensemble_rows(), key=lambda row: float(row["dice"]))
    together = " + ".join(f"`{name}`" for name in row["runs"]) + (", mirrored too" if row["tta"] == "flip" else "")
    best["all that helps"] = together, row["dice"], ENSEMBLE_BARS
    lines = [
        f"| {name} | {run} | **{dice:.4f}** | {least:.4f}, {_reached(dice, least)} | {aim:.4f}, {_reached(dice, aim)} |"
        for name, (run, dice, (least, aim)) in best.items()
    ]
    return "\n".join(["| network | best run | Dice | least | aim |", "|---|---|--:|---|---|", *lines])


def _reached(dice: float, bar: float) -> str:
    return "reached" if dice >= bar else f"missed by {bar - dice:.4f}"


def ensemble_table() -> str:
    """Several networks and mirror images."""
    lines = [
        "| networks | mirror images | Dice, mean | worst | boundary error | thin parts found |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in ensemble_rows():
        names, mirrored = " + ".join(f"`{name}`" for name in row["runs"]), "yes" if row["tta"] == "flip" else "no"
        lines.append(
            f"| {names} | {mirrored} | {row['dice']:.4f} | {row['worst_dice']:.4f} "
            f"| {row['boundary_error_px']:.2f} px | {_thin(row.get('thin_recall'))} |"
        )
    return "\n".join(lines)


def ensemble_rows() -> list[dict[str, Any]]:
    """Rows of all files that benchmarks/ensemble.py wrote."""
    return [row for path in sorted(RESULTS.glob("ensemble-*.json")) for row in _benchmark(path.stem)["rows"]]


def _benchmark(name: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())["figures"]
    return figures


def packaged_table() -> str:
    """The weights inside the package, on photos that they were not trained on."""
    lines = [
        "| weights and photos | held-out photos | Dice, mean | median | worst | boundary error |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in _benchmark("packaged").items():
        lines.append(
            f"| {name} | {row['photos']} | **{row['dice']:.4f}** | {row['median_dice']:.4f} "
            f"| {row['worst_dice']:.4f} | {row['boundary_error_px']:.1f} px |"
        )
    return "\n".join(lines)


def mixed_table() -> str:
    """What learning from street photos gives, and what it costs in the studio."""
    lines = [
        "| run | learned from | started from | loss | photos with pasted cars | studio, Dice | street, Dice | worst |",
        "|---|---|---|---|--:|--:|--:|--:|",
    ]
    for row in _benchmark("mixed")["rows"]:
        learned, (studio, street) = _FOLDERS[row["data"]], (row["on"][kind] for kind in ("carvana", "street"))
        lines.append(
            f"| `{row['run']}` | {learned} | `{row['started_from']}` | {row['loss']} | {row['paste']:.0%} "
            f"| {studio['dice']:.4f} | {street['dice']:.4f} | {street['worst_dice']:.3f} |"
        )
    return "\n".join(lines)


def summary_table() -> str:
    """The packaged weights in one line each, beside what others reach: the table of the README."""
    wholes = _benchmark("speed_packaged")["wholes"]
    speeds = {row["network"]: row["photos_per_s"] for row in wholes if row["kind"] == "mask"}
    lines = [
        "| | Dice, studio | Dice, street | empty where no vehicle is | photos/s, file to mask |",
        "|---|--:|--:|--:|--:|",
    ]
    for name in ("general", "general-int8", "sharp", "fast", "fast-int8"):
        packaged = _benchmark("packaged")
        parts = {"studio": packaged.get(f"{name}'s twin on carvana"), "street": packaged.get(f"{name} on street-cars")}
        empty = ""
        if (RESULTS / f"any_vehicle-{name}.json").exists():
            measured = _benchmark(f"any_vehicle-{name}")
            parts = {"studio": parts["studio"] or measured["carvana"], "street": measured["street-cars"]}
            empty = f"{measured['no-vehicle']['share_empty']:.0%}"
        cells = [f"{part['dice']:.4f}" if part else "" for part in parts.values()]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {empty} | {speeds[name]:.0f} |")
    whole = _benchmark("speed")["wholes"][0]
    naive = f"{whole['photos_per_s'] / whole['times_naive']['classic']:.1f}"
    return "\n".join(
        [
            *lines,
            *(f"| {name} | {dice} | | | {speed} |" for (name, dice), speed in zip(PEERS, (naive, ""), strict=True)),
        ]
    )


def any_vehicle_table() -> str:
    """What networks make of held-out photos of all kinds, one column for each network."""
    names = sorted(path.stem for path in RESULTS.glob("any_vehicle-*.json"))
    columns = {name.partition("-")[2]: _benchmark(name) for name in names}
    lines = [
        f"| photos | aim | {' | '.join(f'`{name}`' for name in columns)} |",
        "|---|--:" + "|--:" * len(names) + "|",
    ]
    for label, part, figure, aim in ANY_VEHICLE:
        cells = [_figure_of_part(figures[part], figure) for figures in columns.values()]
        lines.append(f"| {label} | {aim} | {' | '.join(cells)} |")
    composites = [figures["composites"]["vehicles"] for figures in columns.values()]
    for vehicle in composites[0]:
        cells = [f"{of_network[vehicle]['dice']:.3f}" for of_network in composites]
        lines.append(f"| vehicles in composites, {vehicle}: Dice | | {' | '.join(cells)} |")
    return "\n".join(lines)


def _figure_of_part(figures: dict[str, Any], path: str) -> str:
    """A figure below the names in `path`; it says so where the network has learned from the photos."""
    *outer, name = path.split()
    inner = figures[outer[0]] if outer else figures
    return f"{inner[name]:.4f}" + (" (learned from)" if figures.get("warnings") else "")


def expected_dice_table() -> str:
    """How far the expected Dice of the packaged networks is from the measured one."""
    areas = {"studio": 0.004, "street": 0.02, "composites": 0.06, "foreign": 0.06, "no vehicle": None}
    head = [f"{area} (aim {aim})" if aim else area for area, aim in areas.items()]
    lines = [
        f"| network | {' | '.join(head)} | worst tenth found (aim 0.90) | altered photos | worst tenth of them found |",
        f"|---|{'--:|' * (len(head) + 3)}",
    ]
    for name, figures in sorted(_benchmark("expected_dice").items()):
        both = figures["all"], figures["all"]["altered"]
        found = [f"{one['worst_tenth_in_doubtful_fifth']:.2f}" for one in both]
        errors = [f"{figures[area]['error']:.4f}" for area in areas]
        lines.append(f"| `{name}` | {' | '.join(errors)} | {found[0]} | {both[1]['error']:.4f} | {found[1]} |")
    return "\n".join(lines)


def ablation_table() -> str:
    """What each change to the recipe of `fast` gave, against the recipe as it is."""
    rows = _benchmark("ablation")["rows"]
    base = next(row["dice"] for row in rows if row["variant"] == "base")
    lines = [
        f"| {row['variant']} | {row['dice']:.4f} | {row['dice'] - base:+.4f} | {row['boundary_error_px']:.2f} px "
        f"| `{row['commit']}` |"
        for row in rows
    ]
    heading = ["| changed | Dice | against the base | boundary error | commit |", "|---|--:|--:|--:|---|"]
    return "\n".join([*heading, *lines])


def cars_table() -> str:
    """Dice against the number of cars that were learned from."""
    lines = [
        f"| `{recipe}` | {row['cars']} | {row['dice']:.4f} | {row['boundary_error_px']:.2f} px | `{row['commit']}` |"
        for recipe in ("fast", "sharp")
        for row in _benchmark(f"cars_curve-{recipe}")["rows"]
    ]
    return "\n".join(
        ["| network | cars learned from | Dice | boundary error | commit |", "|---|--:|--:|--:|---|", *lines]
    )


def benchmark_tables() -> str:
    """What the benchmarks recorded."""
    lines: list[str] = []
    for path in sorted(RESULTS.glob("*.json")):
        contents = json.loads(path.read_text())
        name = contents.get("benchmark", "carmask benchmark")
        if name in ELSEWHERE or name.startswith(("any_vehicle-", "ensemble-", "cars_curve-")):
            continue
        machine = contents["machine"]
        lines += [
            f"### {contents['benchmark'].replace('_', ' ')}",
            "",
            f"{machine['cpu']}, {machine['cores']} cores; commit `{contents['commit']}`, {contents['date'][:10]}",
            "",
            *_bullets(contents["figures"]),
            "",
        ]
    return "\n".join(lines).rstrip()


def _bullets(figures: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in figures.items():
        if isinstance(value, dict):
            flat = not any(isinstance(inner, dict) or _is_table(inner) for inner in value.values())
            text = ", ".join(f"{key.replace('_', ' ')} {inner}" for key, inner in value.items()) if flat else ""
            lines.append(f"{indent}- {name.replace('_', ' ')}: {text}".rstrip())
            if not flat:
                lines += _bullets(value, indent + "    ")
        elif _is_table(value):
            lines.append(f"{indent}- {name.replace('_', ' ')}:")
            rows = (", ".join(f"{key.replace('_', ' ')} {inner}" for key, inner in row.items()) for row in value)
            lines += [f"{indent}    - {row}" for row in rows]
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append(f"{indent}- {name.replace('_', ' ')}: {text}")
    return lines


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def draw_curves(runs: list[dict[str, Any]], path: Path) -> None:
    """Held-out Dice over the photos seen, one line for each run."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        seen = [row["photos"] / 1000 for row in run["history"]]
        axes.plot(seen, [row["dice"] for row in run["history"]], marker=".", label=run["run"])
    axes.set(xlabel="photos seen, thousands", ylabel="Dice", ylim=(0.95, 1.0))
    axes.set_title("Dice on cars not trained on, at 1918 x 1280 px")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def fill(tables: dict[str, str], *documents: Path) -> None:
    """Put tables between their markers, `<!-- name -->` and `<!-- /name -->`, and end where one has them nowhere."""
    homeless = set(tables)
    for document in documents:
        text = document.read_text()
        for name, table in tables.items():
            before, begin, rest = text.partition(f"<!-- {name} -->\n")
            _, end, after = rest.partition(f"<!-- /{name} -->")
            if end:
                text = f"{before}{begin}{table}\n{end}{after}"
                homeless.discard(name)
        document.write_text(text)
    if homeless:
        sys.exit(f"no document has the markers of {', '.join(sorted(homeless))}")


def draw() -> None:
    """Make every table and picture anew from the committed JSON."""
    runs = load_runs()
    if not runs:
        sys.exit(f"{RUNS}: no runs added yet")
    tables = {
        "summary": summary_table(),
        "results": results_table(runs),
        "bars": bars_table(runs),
        "ensemble": ensemble_table(),
        "provenance": provenance_table(runs),
        "by-view": by_view_table(runs),
        "packaged": packaged_table(),
        "mixed": mixed_table(),
        "any-vehicle": any_vehicle_table(),
        "expected-dice": expected_dice_table(),
        "ablation": ablation_table(),
        "cars": cars_table(),
        "benchmarks": benchmark_tables(),
    }
    fill(tables, ROOT / "README.md", RESULTS.parent / "results.md", RESULTS.parent / "experiments.md")
    draw_curves(runs, PICTURES / "curves.png")


def main() -> None:
    """Dispatch."""
    if sys.argv[1:2] == ["add"] and len(sys.argv) > 2:
        for run in sys.argv[2:]:
            add(Path(run))
    elif sys.argv[1:] == ["draw"]:
        draw()
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
