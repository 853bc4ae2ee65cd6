"""Draw the tables of docs/serving.md from what `serve_load.py` and `serve_abuse.py` recorded.

python benchmarks/serve_load.py && python benchmarks/serve_abuse.py && python benchmarks/serving.py
"""

import json
from typing import Any

from documents import fill
from performance import machine_line
from record import RESULTS


def load_table(load: dict[str, Any]) -> str:
    """One row with micro-batches and one without, beside `carmask predict`."""
    figures = load["figures"]
    lines = [
        "| micro-batches | photos/s | of `carmask predict` | median | p95 | slowest | photos in a batch | not 200 "
        "| memory: warm, end, peak |",
        "|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for name, row in figures["micro_batches"].items():
        others = sum(count for status, count in row["statuses"].items() if status != "200")
        memory = ", ".join(f"{row[f'memory_{when}_MB']:.0f}" for when in ("after_warm_up", "at_the_end", "peak"))
        lines.append(
            f"| {name} | **{row['photos_per_s']:.1f}** | {row['of_predict']:.0%} | {row['p50_s']:.2f} s "
            f"| {row['p95_s']:.2f} s | {row['slowest_s']:.2f} s | {row['photos_in_a_batch']:.1f} | {others} "
            f"| {memory} MB |"
        )
    rates = " and ".join(f"{rate:.1f}" for rate in figures["predict_photos_per_s"])
    summary = (
        f"{figures['clients']} clients for {figures['seconds']:.0f} s, {figures['photos']} photos of 1918 x 1280 px; "
        f"`carmask predict` before and after: {rates} photos a second. {machine_line(load)}."
    )
    return "\n".join([*lines, "", summary, *_shortcomings(figures)])


def abuse_table(abuse: dict[str, Any]) -> str:
    """One row for each family of attacks."""
    figures = abuse["figures"]
    lines = ["| attack | answers | slowest |", "|---|---|--:|"]
    for family, row in figures["families"].items():
        answers = ", ".join(
            f"{count} closed" if status == "0" else f"{count} times {status}"
            for status, count in row["statuses"].items()
        )
        lines.append(f"| {family} | {answers} | {row['slowest_s']:.1f} s |")
    good = figures["good_clients"]
    summary = (
        f"{figures['hostile_requests']:,} hostile requests in {figures['seconds']:.0f} s, of which "
        f"{figures['wrong_answers']} were answered wrongly. Clients that behave had {good['requests']} photos cut out "
        f"meanwhile, {good['wrong_results']} wrongly, with {good['broken_connections']} broken connections. Memory: "
        f"{figures['memory_before_MB']:.0f} MB before, {figures['memory_peak_MB']:.0f} MB at most, "
        f"{figures['memory_after_MB']:.0f} MB after. {machine_line(abuse)}."
    )
    return "\n".join([*lines, "", summary, *_shortcomings(figures)])


def _shortcomings(figures: dict[str, Any]) -> list[str]:
    return ["", f"Not as it should be: {'; '.join(figures['shortcomings'])}."] if figures["shortcomings"] else []


def main() -> None:
    """Fill the tables."""
    tables = {"load": load_table, "abuse": abuse_table}
    fill(
        {name: table(json.loads((RESULTS / f"serve_{name}.json").read_text())) for name, table in tables.items()},
        RESULTS.parent / "serving.md",
    )


if __name__ == "__main__":
    main()
