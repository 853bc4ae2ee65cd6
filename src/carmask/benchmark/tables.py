"""The tables of a benchmark, ready to print."""

from collections.abc import Sequence
from typing import NamedTuple

from carmask.benchmark.suite import Figures, slowest_stage


class FigureTable(NamedTuple):
    """Figures to print: headings of the columns of words, and of those of numbers, which come after them."""

    title: str
    words: Sequence[str]
    numbers: Sequence[str]
    rows: list[list[str]]


def make_tables(figures: Figures) -> list[FigureTable]:
    """Return the tables of networks, of stages, and of all that `carmask predict` does."""
    naive_ms, naive_s = figures["naive_network_ms"], figures["naive"]
    networks = [
        [name, "", "PyTorch eager, the naive way", "float32", f"{one_ms:.1f}", f"{1000 / one_ms:.1f}", "1"]
        for name, one_ms in naive_ms.items()
    ]
    for row in figures["networks"]:
        speed = [f"{row['one_ms']:.1f}", f"{row['photos_per_s']:.1f}"]
        naive = naive_ms.get(row["network"].removesuffix("-int8"))
        ratio = f"{naive / row['one_ms']:.1f}" if naive else ""
        networks.append([row["network"], row["input"], row["engine"], row["precision"], *speed, ratio])
    stages, wholes = [], []
    for row in figures["wholes"]:
        words = [row["network"], row["kind"]]
        stages.append([*words, *(f"{one['one_ms']:.1f} ms, {one['photos_per_s']:.0f}/s" for one in row["stages"])])
        shares = [f"{row[share]:.0%}" for share in ("of_slowest_stage", "of_all_stages_in_turn")]
        ratios = [f"{row['photos_per_s'] * seconds:.1f}" for seconds in naive_s.values()]
        wholes.append([*words, slowest_stage(row["stages"])["stage"], f"{row['photos_per_s']:.1f}", *shares, *ratios])
    stage_names = [one["stage"] for one in figures["wholes"][0]["stages"]] if stages else []
    whole_headings = ["photos/s", "of the slowest stage", "of all stages in turn"]
    whole_headings += [f"x naive {name}, {seconds:.2f} s a photo" for name, seconds in naive_s.items()]
    return [
        FigureTable(
            "Networks",
            ("network", "input", "engine", "computes in"),
            ("ms, one photo", "photos/s", "x naive"),
            networks,
        ),
        FigureTable("Stages, each alone", ("network", "kind"), stage_names, stages),
        FigureTable("From file to result", ("network", "kind", "slowest stage"), whole_headings, wholes),
    ]
