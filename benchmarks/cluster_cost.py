"""Fill the tables of docs/scale.md: what was measured on clusters, and what many photos cost.

    python benchmarks/cluster_cost.py [--photos 100000000] [--dollars 0.04]

From docs/results/speed.json (`carmask benchmark`: the times of all stages, and of `predict` on one machine) and
docs/results/cluster.json (`cluster_scale.py`: the efficiency of a cluster, bytes, the command's own speed).
"""

import argparse
import json
from typing import Any

from documents import fill
from record import RESULTS

KINDS = ("carvana-csv", "mask", "cutout")
# GPU-hours were not measured, only what feeds a GPU.
CORES = (100, 1000)


def proofs_table(figures: dict[str, Any]) -> str:
    """All comparisons with their speed and the files that differ."""
    lines = [
        "| what | photos | seconds, of them predicting | photos/s | files that differ |",
        "|---|--:|--:|--:|--:|",
    ]
    for kind in ("mask", "carvana-csv"):
        for name, row in figures["same"][kind].items():
            lines.append(_proof(f"{kind}, {name}", figures["same"]["photos"], row))
    for kind, row in figures["lost"]["killed at a quarter, a node lost at half"].items():
        lines.append(_loss(f"{kind}, 4 nodes: killed at a quarter, a node lost at half", figures["lost"], row))
    early = figures["lost"]["a node lost at the start"]
    lines.append(_loss("mask, 4 nodes: a node lost before the first result", figures["lost"], early))
    for name in ("one machine", "the same as a cluster"):
        row = figures["overhead"][name]
        lines.append(_proof(f"overhead: mask, {name}, all cores", figures["overhead"]["photos"], row))
    return "\n".join(lines)


def _proof(what: str, photos: int, row: dict[str, Any]) -> str:
    differ = len(row["files that differ"]) if "files that differ" in row else ""
    return f"| {what} | {photos} | {row['command_s']}, {row['cutting_out_s']} | {row['photos_per_s']} | {differ} |"


def _loss(what: str, figures: dict[str, Any], row: dict[str, Any]) -> str:
    runs = len(row["runs"])
    return f"| {what} | {figures['photos']} | {runs} run{'s' * (runs > 1)} | | {len(row['files that differ'])} |"


def stages_table(speed: dict[str, Any]) -> str:
    """Milliseconds of one core for each stage of a photo."""
    cores = speed["machine"]["cores"]
    rows = [(whole, _core_ms(whole, cores)) for whole in _wholes(speed)]
    names = list(rows[0][1])
    lines = ["| network | kind | " + " | ".join(names) + " | all |", "|---|---" + "|--:" * (len(names) + 1) + "|"]
    for whole, stages in rows:
        cells = [f"{ms:.1f} ms" for ms in (*stages.values(), sum(stages.values()))]
        lines.append(f"| `{whole['network']}` | {whole['kind']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cost_table(speed: dict[str, Any], figures: dict[str, Any], photos: int, dollars: float) -> str:
    """Photos per core-hour, and the core-hours of many photos."""
    cores = speed["machine"]["cores"]
    share = min(1.0, figures["overhead"]["share of photos_per_s"])
    lines = [
        f"| network | kind | photos per core-hour | {photos:,} photos | "
        + " | ".join(f"on {count:,} cores" for count in CORES)
        + f" | at ${dollars:g} per core-hour |",
        "|---|---|--:|--:|" + "--:|" * (len(CORES) + 1),
    ]
    for whole in _wholes(speed):
        per_hour = whole["photos_per_s"] / cores * share * 3600
        hours = photos / per_hour
        spans = " | ".join(f"{hours / count:.1f} h" for count in CORES)
        lines.append(
            f"| `{whole['network']}` | {whole['kind']} | {per_hour:,.0f} | {hours:,.0f} core-hours | {spans} "
            f"| ${hours * dollars:,.0f} |"
        )
    return "\n".join(lines)


def limits(speed: dict[str, Any], figures: dict[str, Any], photos: int) -> str:
    """What is read and written, and what becomes the bottleneck."""
    cores = speed["machine"]["cores"]
    share = min(1.0, figures["overhead"]["share of photos_per_s"])
    fast = next(whole for whole in _wholes(speed) if (whole["network"], whole["kind"]) == ("fast", "mask"))
    of_core = fast["photos_per_s"] / cores * share
    sizes, memory = figures["same"]["bytes_a_photo"], figures["memory"]
    noted = memory["paths"] / memory["cpu_s"]
    read, stages = sizes["read"], _core_ms(fast, cores)
    rest_ms = sum(stages.values()) - stages["network"]
    return "\n".join(
        [
            f"- Per photo {read:,} bytes are read, and {sizes['mask']:,} are written as a mask or "
            f"{sizes['carvana-csv']:,} as a row of run lengths. For {photos:,} photos that is "
            f"{read * photos / 1e12:.1f} TB read and {sizes['mask'] * photos / 1e12:.2f} TB of masks written.",
            f"- The command is the first bottleneck: on one full core it lists and records {noted:,.0f} photos per "
            f"second, as many as {noted / of_core:,.0f} cores predict; for {memory['paths']:,} paths it needs up to "
            f"{memory['peak_MB']:,} MB. Divide more cores or paths among several commands with a list each.",
            f"- Storage is the second: 1,000 cores read {of_core * 1000 * read / 1e9:.1f} GB and write "
            f"{of_core * 1000:,.0f} files per second.",
            f"- GPU-hours were not measured. A GPU takes over the network, {stages['network']:.0f} of "
            f"{sum(stages.values()):.0f} ms per photo; the other {rest_ms:.0f} ms stay on the CPU, so one core "
            f"feeds it {1000 / rest_ms:.0f} photos per second.",
        ]
    )


def _wholes(speed: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the packaged networks and of these kinds."""
    return [row for row in speed["figures"]["wholes"] if row["network"].startswith("fast") and row["kind"] in KINDS]


def _core_ms(whole: dict[str, Any], cores: int) -> dict[str, float]:
    """Milliseconds of one core. The network runs on all cores, with photos in batches."""
    return {
        stage["stage"]: 1000 * cores / stage["photos_per_s"] if stage["stage"] == "network" else stage["one_ms"]
        for stage in whole["stages"]
    }


def machine_line(speed: dict[str, Any], cluster: dict[str, Any]) -> str:
    """The machine, the commits and the dates of the measurements."""
    machine = cluster["machine"]
    commits = dict.fromkeys(f"`{part['commit']}`, {part['date'][:10]}" for part in cluster["figures"].values())
    return (
        f"{machine['cpu']}, {machine['cores']} cores; {'; '.join(commits)}. Stage times: `speed.json`, commit "
        f"`{speed['commit']}`, {speed['date'][:10]}."
    )


def main() -> None:
    """Fill the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=100_000_000)
    parser.add_argument("--dollars", type=float, default=0.04, help="price per core-hour")
    given = parser.parse_args()
    speed, cluster = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("speed", "cluster"))
    figures = cluster["figures"]
    tables = {
        "machine": machine_line(speed, cluster),
        "proofs": proofs_table(figures),
        "stages": stages_table(speed),
        "cost": cost_table(speed, figures, given.photos, given.dollars),
        "limits": limits(speed, figures, given.photos),
    }
    fill(tables, RESULTS.parent / "scale.md")


if __name__ == "__main__":
    main()
