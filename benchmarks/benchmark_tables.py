"""Tables of the packaged networks, and of all benchmarks that have no table of their own."""

import json
from typing import Any

from record import RESULTS, recorded

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
# Reported Dice on the challenge's own test photos, after training on all of its 318 cars, and our measure of the time
# that a network such as the first takes when it is run the naive way.
PEERS = (
    ("the most used public U-Net, 31 M parameters *", "0.9884"),
    ("the challenge's winners, about 49 networks *", "0.9973"),
)
# What the folders of benchmarks/mixed_folder.py and of the challenge are called.
_FOLDERS = {"carvana": "studio", "mixed": "studio, street", "carvana+street-cars": "studio, street"}


def packaged_table() -> str:
    """The weights inside the package, on photos that they were not trained on."""
    lines = [
        "| weights and photos | held-out photos | Dice, mean | median | worst | boundary error |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in recorded("packaged").items():
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
    for row in recorded("mixed")["rows"]:
        learned, (studio, street) = _FOLDERS[row["data"]], (row["on"][kind] for kind in ("carvana", "street"))
        lines.append(
            f"| `{row['run']}` | {learned} | `{row['started_from']}` | {row['loss']} | {row['paste']:.0%} "
            f"| {studio['dice']:.4f} | {street['dice']:.4f} | {street['worst_dice']:.3f} |"
        )
    return "\n".join(lines)


def summary_table() -> str:
    """The packaged weights in one line each, beside what others reach: the table of the README."""
    wholes = recorded("speed_packaged")["wholes"]
    speeds = {row["network"]: row["photos_per_s"] for row in wholes if row["kind"] == "mask"}
    lines = [
        "| | Dice, studio | Dice, street | empty where no vehicle is | photos/s, file to mask |",
        "|---|--:|--:|--:|--:|",
    ]
    for name in ("general", "general-int8", "sharp", "fast", "fast-int8"):
        packaged = recorded("packaged")
        parts = {"studio": packaged.get(f"{name}'s twin on carvana"), "street": packaged.get(f"{name} on street-cars")}
        empty = ""
        if measured := recorded(f"any_vehicle-{name}"):
            parts = {"studio": parts["studio"] or measured["carvana"], "street": measured["street-cars"]}
            empty = f"{measured['no-vehicle']['share_empty']:.0%}"
        cells = [f"{part['dice']:.4f}" if part else "" for part in parts.values()]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {empty} | {speeds[name]:.0f} |")
    whole = recorded("speed")["wholes"][0]
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
    columns = {name.partition("-")[2]: recorded(name) for name in names}
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
    for name, figures in sorted(recorded("expected_dice").items()):
        both = figures["all"], figures["all"]["altered"]
        found = [f"{one['worst_tenth_in_doubtful_fifth']:.2f}" for one in both]
        errors = [f"{figures[area]['error']:.4f}" for area in areas]
        lines.append(f"| `{name}` | {' | '.join(errors)} | {found[0]} | {both[1]['error']:.4f} | {found[1]} |")
    return "\n".join(lines)


def ablation_table() -> str:
    """What each change to the recipe of `fast` gave, against the recipe as it is."""
    rows = recorded("ablation")["rows"]
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
        for row in recorded(f"cars_curve-{recipe}")["rows"]
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
