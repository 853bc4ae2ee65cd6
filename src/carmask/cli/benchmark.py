"""`carmask benchmark`."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from carmask.cli.console import print_facts, print_line, print_table
from carmask.environment import environment
from carmask.files import write_bytes_atomically
from carmask.models.config import PresetName
from carmask.pipeline.kinds import Kind

_KINDS: tuple[Kind, ...] = ("carvana-csv", "mask", "cutout")


def benchmark(
    photos: Path | None = None,
    *,
    model: Annotated[tuple[str, ...], Parameter(alias="-m", negative=(), show_default=False)] = (),
    preset: Annotated[tuple[PresetName, ...], Parameter(negative=(), show_default=False)] = (),
    kind: Annotated[tuple[Kind, ...], Parameter(alias="-k", negative=(), show_default=False)] = _KINDS,
    count: Annotated[int, Parameter(validator=Number(gte=1))] = 200,
    seconds: Annotated[float, Parameter(validator=Number(gt=0))] = 3.0,
    out: Path | None = None,
) -> int:
    """Measure how fast this machine cuts out photos, compared with the naive way.

    It measures each network in each engine, each stage from a photo's file to its result, and the whole. The naive way
    is PyTorch eager in float32, which decodes each photo at full size, one at a time. All figures are medians, or rates
    over many photos. Let nothing else run meanwhile. It takes up to 20 minutes; a single --model with a single --kind
    takes one or two.

    Args:
        photos: A folder of photos. Default: rendered example photos of 1918 x 1280 px.
        model: Packaged weights or .onnx files to measure the stages and the whole with. Default: all packaged weights.
        preset: Untrained networks to measure too, in PyTorch and exported, which takes minutes. The naive way is
            measured with each, and the whole, of masks alone, with those that are not among the models.
        kind: Kinds of results to measure the stages and the whole for.
        count: Number of photos to measure the whole with.
        seconds: How long to measure each figure of a network.
        out: A .json file for all figures, with the machine and the versions.
    """
    # Slow imports happen here, so that --help does not wait for them.
    from carmask.benchmark.suite import run_benchmark
    from carmask.benchmark.tables import make_tables

    figures = run_benchmark(
        photos, models=model, presets=preset, kinds=kind, count=count, seconds=seconds, log=print_line
    )
    for table in make_tables(figures):
        print_table(*table)
    if out is not None:
        contents = {"benchmark": "carmask benchmark", **environment(), "figures": figures}
        write_bytes_atomically(out, json.dumps(contents, indent=1).encode() + b"\n")
        print_facts([("figures", str(out))])
    return 0
