"""Draw the tables of docs/performance.md from what `carmask benchmark` recorded.

carmask benchmark PHOTOS --preset fast --preset classic --out docs/results/speed.json
python benchmarks/performance.py
"""

import json
from typing import Any

from record import RESULTS
from results import fill

SPEED = RESULTS / "speed.json"


def machine_line(speed: dict[str, Any]) -> str:
    """Where, when and from which commit."""
    machine = speed["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores; commit `{speed['commit']}`, {speed['date'][:10]}"


def networks_table(speed: dict[str, Any]) -> str:
    """One row for each network in each engine; the naive way first."""
    lines = [
        "| network | input | engine | computes in | one photo | photos/s | times naive |",
        "|---|---|---|---|--:|--:|--:|",
    ]
    rows = speed["figures"]["networks"]
    naive = speed["figures"]["naive_network_ms"]
    for preset, naive_ms in naive.items():
        # Trained weights are as fast as untrained ones: the exported file stands for both.
        mine = [row for row in rows if row["network"] in (preset, f"{preset}-int8")]
        size, rate = mine[0]["input"], 1000 / naive_ms
        lines.append(f"| `{preset}` | {size} | PyTorch eager | float32 | {naive_ms:.1f} ms | {rate:.2f} | 1 |")
        seen = set()
        for row in mine:
            engine = row["engine"], row["stored"], row["precision"]
            if engine not in seen:
                seen.add(engine)
                lines.append(
                    f"| `{row['network']}` | {size} | {row['engine']} | {row['precision']} | {row['one_ms']:.1f} ms "
                    f"| {row['photos_per_s']:.1f} | {naive_ms / row['one_ms']:.1f} |"
                )
    return "\n".join(lines)


def stages_table(speed: dict[str, Any]) -> str:
    """Milliseconds of one thread for each stage, a row for each network and kind."""
    wholes = speed["figures"]["wholes"]
    names = [stage["stage"] for stage in wholes[0]["stages"]]
    lines = ["| network | kind | " + " | ".join(names) + " |", "|---|---" + "|--:" * len(names) + "|"]
    for whole in wholes:
        cells = (f"{stage['one_ms']:.1f} ms, {stage['photos_per_s']:.0f}/s" for stage in whole["stages"])
        lines.append(f"| `{whole['network']}` | {whole['kind']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def whole_table(speed: dict[str, Any]) -> str:
    """Photos a second from file to result."""
    naive = speed["figures"]["naive"]
    headings = ["network", "kind", "photos/s", "of the slowest stage", "of all stages in turn"]
    headings += [f"times naive `{name}`" for name in naive]
    lines = ["| " + " | ".join(headings) + " |", "|---|---" + "|--:" * (len(headings) - 2) + "|"]
    for whole in speed["figures"]["wholes"]:
        cells = [f"**{whole['photos_per_s']:.1f}**"]
        cells += [f"{whole[ratio]:.0%}" for ratio in ("of_slowest_stage", "of_all_stages_in_turn")]
        cells += [f"{ratio:.0f}" for ratio in whole["times_naive"].values()]
        lines.append(f"| `{whole['network']}` | {whole['kind']} | " + " | ".join(cells) + " |")
    slow = ", ".join(f"`{name}` {seconds:.2f} s" for name, seconds in naive.items())
    return "\n".join([*lines, "", f"The naive way, a photo: {slow}."])


def shares_line(speed: dict[str, Any]) -> str:
    """How much of what its stages allow each preset reaches, int8 included."""
    wholes = speed["figures"]["wholes"]
    reached = []
    for preset in speed["figures"]["naive"]:
        shares = [one["of_slowest_stage"] for one in wholes if one["network"] in (preset, f"{preset}-int8")]
        reached.append(f"`{preset}` {min(shares) * 100:.0f} to {max(shares) * 100:.0f} %")
    together = min(one["of_all_stages_in_turn"] for one in wholes)
    return (
        f"Of what the slowest stage alone allows 85 % was asked, and here are reached: {', '.join(reached)}.\n"
        f"Of what the stages allow together all reach {together * 100:.0f} % and more."
    )


def main() -> None:
    """Fill the tables."""
    speed = json.loads(SPEED.read_text())
    tables = {
        "machine": machine_line,
        "networks": networks_table,
        "stages": stages_table,
        "whole": whole_table,
        "shares": shares_line,
    }
    fill({name: table(speed) for name, table in tables.items()}, RESULTS.parent / "performance.md")


if __name__ == "__main__":
    main()
