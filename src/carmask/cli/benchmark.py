"""`carmask benchmark`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from carmask.cli.console import plain, print_facts, print_line, wide_console
from carmask.errors import CarmaskError
from carmask.models.config import PresetName
from carmask.pipeline.kinds import Kind

if TYPE_CHECKING:
    # It brings OpenCV, which a command's help does not wait for.
    from carmask.benchmark.pipeline import BenchmarkResult

_KINDS: tuple[Kind, ...] = ("carvana-csv", "mask", "cutout")


def benchmark(
    photos: Path | None = None,
    *,
    model: Annotated[tuple[str, ...], Parameter(alias="-m", negative=(), show_default=False)] = (),
    preset: Annotated[tuple[PresetName, ...], Parameter(negative=(), show_default=False)] = (),
    kind: Annotated[tuple[Kind, ...], Parameter(alias="-k", negative=(), show_default=False)] = _KINDS,
    count: int = 200,
    seconds: float = 3.0,
    out: Path | None = None,
) -> int:
    """Measure how fast this machine cuts out photos, and how much faster than the naive way.

    Each network in each engine, each stage from a photo's file to its result, and the whole; beside them PyTorch eager
    in float32 that decodes each photo whole, one at a time. All figures are medians, or rates over many photos. For
    figures that mean something nothing else should be running.

    Args:
        photos: A folder of photos; rendered example photos of 1918 x 1280 px if not given.
        model: Weights inside the package, or .onnx files, that the stages and the whole are measured with; all packaged
            weights if not given.
        preset: Untrained networks to measure too, in PyTorch and exported, which takes minutes: small, classic, deep,
            fast. The naive way is measured with each, and the whole with `classic`.
        kind: Kinds of results that the stages and the whole are measured for.
        count: Photos that the whole is measured with.
        seconds: How long each figure of a network is measured.
        out: A .json file for all figures, with the machine and the versions.

    """
    from carmask.benchmark.pipeline import run_benchmark

    if count < 1 or not seconds > 0:
        raise CarmaskError(f"--count {count} --seconds {seconds:g}: give at least one photo, and more than no time")
    result = run_benchmark(
        photos, models=model, presets=preset, kinds=kind, count=count, seconds=seconds, log=print_line
    )
    _print_networks(result)
    _print_stages(result)
    _print_pipelines(result)
    if out is not None:
        result.save(out)
        print_facts([("figures", str(out))])
    return 0


def _print_networks(result: "BenchmarkResult") -> None:
    table = _table("Networks", ("network", "input", "engine", "computes in"), ("ms, one photo", "photos/s", "x naive"))
    for time in result.networks:
        naive = result.naive_network_ms.get(time.network)
        ratio = f"{naive / time.one_ms:.1f}" if naive else ""
        table.add_row(
            plain(time.network),
            time.input,
            time.engine,
            time.precision,
            f"{time.one_ms:.1f}",
            f"{time.photos_per_s:.1f}",
            ratio,
        )
    wide_console().print(table)


def _print_stages(result: "BenchmarkResult") -> None:
    table = _table("Stages, each alone", ("network", "kind", "stage"), ("ms a photo", "photos/s"))
    for pipeline in result.pipelines:
        for stage in pipeline.stages:
            table.add_row(
                plain(pipeline.network), pipeline.kind, stage.stage, f"{stage.one_ms:.2f}", f"{stage.photos_per_s:.0f}"
            )
        table.add_section()
    wide_console().print(table)


def _print_pipelines(result: "BenchmarkResult") -> None:
    table = _table(
        "From file to result",
        ("network", "kind", "slowest stage"),
        ("photos/s", "of the slowest stage", "of all stages in turn", *(f"x naive {name}" for name in result.naive_s)),
    )
    for pipeline in result.pipelines:
        table.add_row(
            plain(pipeline.network),
            pipeline.kind,
            pipeline.slowest.stage,
            f"{pipeline.photos_per_s:.1f}",
            f"{pipeline.of_slowest_stage:.0%}",
            f"{pipeline.of_all_stages_in_turn:.0%}",
            *(f"{times:.1f}" for times in result.times_naive(pipeline).values()),
        )
    wide_console().print(table)
    print_facts(
        (f"naive {name}", f"{naive_s:.2f} s a photo, {1 / naive_s:.2f} photos/s")
        for name, naive_s in result.naive_s.items()
    )


def _table(title: str, words: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in words:
        table.add_column(heading)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table
