"""All measurements of one machine, one after the other, so that every ratio is from one run."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from carmask.benchmark.clock import median_of_each_s, median_s
from carmask.benchmark.networks import BATCH, NetworkTime, time_networks
from carmask.benchmark.whole import WholeTime, time_whole
from carmask.environment import cpu_name, environment
from carmask.errors import CarmaskError
from carmask.files import write_bytes_atomically
from carmask.models.config import PresetName
from carmask.pipeline.kinds import Kind
from carmask.pipeline.sources import find_photos
from carmask.runtime.locate import locate, packaged_models
from carmask.segmenter import Segmenter
from carstudio import StudioError, render_dataset

# The naive way takes seconds for each photo.
_NAIVE_PHOTOS = 3
# Enough to set the scale of an untrained network's values; nobody looks at its masks.
_CALIBRATION_PHOTOS = 4
_EXAMPLE_CARS, _EXAMPLE_VIEWS = 2, 8
# How long the whole is measured at most, by how fast its network is; and the kinds worth measuring for masks of noise.
_MOST_S = 30.0
_KINDS_UNTRAINED: tuple[Kind, ...] = ("mask",)

Say = Callable[[str], None]


@dataclass
class Figures:
    """What was measured.

    naive_network_ms: PyTorch eager in float32, one photo, by network. naive: seconds a photo of the naive way from
    file to file, by network.
    """

    networks: list[NetworkTime] = field(default_factory=list)
    wholes: list[WholeTime] = field(default_factory=list)
    naive_network_ms: dict[str, float] = field(default_factory=dict)
    naive: dict[str, float] = field(default_factory=dict)

    def times_naive(self, whole: WholeTime) -> dict[str, float]:
        """How many times as fast as the naive way the whole is, by the naive way's network."""
        return {name: whole.photos_per_s * naive_s for name, naive_s in self.naive.items()}

    def save(self, path: Path) -> None:
        """Write all figures, with the machine and the versions, as JSON.

        Raises:
            UnwritableFile: it cannot be written.

        """
        wholes = [
            {
                **asdict(whole),
                "of_slowest_stage": whole.of_slowest_stage,
                "of_all_stages_in_turn": whole.of_all_stages_in_turn,
                "times_naive": self.times_naive(whole),
            }
            for whole in self.wholes
        ]
        figures = {**asdict(self), "wholes": wholes}
        contents = {"benchmark": "carmask benchmark", **environment(), "figures": figures}
        write_bytes_atomically(path, json.dumps(contents, indent=1).encode() + b"\n")


def measure(
    photos: Path | None,
    *,
    models: Sequence[str],
    presets: Sequence[PresetName],
    kinds: Sequence[Kind],
    count: int,
    seconds: float,
    say: Say,
) -> Figures:
    """Measure everything; see `carmask.cli.benchmark.benchmark`.

    Raises:
        CarmaskError: there are no photos, or no such model, or PyTorch is needed and is not there.

    """
    figures = Figures()
    say(cpu_name())
    with _photos(photos, say) as paths, tempfile.TemporaryDirectory(prefix="carmask-benchmark-") as folder:
        trained = [locate(model) for model in models] or list(packaged_models().values())
        known = {model.stem for model in trained}
        built = _build(presets, Path(folder), paths, figures, seconds, say)
        # What is there trained need not be measured untrained too, but in PyTorch, which the exported file is not for.
        untrained = [model for model in built if model.is_dir() or model.stem not in known]
        for model in (*trained, *untrained):
            say(f"measuring {model.stem} ...")
            times = list(time_networks([model], seconds=seconds))
            figures.networks += times
            if model.suffix == ".onnx":
                # A slow network shows in fewer photos what it shows in many.
                enough = max(2 * BATCH, min(count, int(_MOST_S * max(time.photos_per_s for time in times))))
                segmenter = Segmenter.load(model)
                figures.wholes += [
                    time_whole(segmenter, paths, kind, count=enough)
                    for kind in (kinds if model in trained else _KINDS_UNTRAINED)
                ]
    return figures


def _build(
    presets: Sequence[PresetName], folder: Path, photos: Sequence[Path], figures: Figures, seconds: float, say: Say
) -> Iterator[Path]:
    """Build and export untrained networks, and measure the naive way with each."""
    if not presets:
        return
    from carmask.benchmark.naive import NaiveWay
    from carmask.benchmark.presets import build, save

    for name in presets:
        say(f"the naive way, {name} ...")
        network = build(name)
        naive = NaiveWay(network)
        infer = partial(naive.infer, naive.input_1CHW)
        figures.naive_network_ms[name] = 1000 * median_s(infer, seconds=seconds)
        figures.naive[name] = median_of_each_s(naive, photos[:_NAIVE_PHOTOS])
        say(f"exporting {name} ...")
        yield from save(network, folder, photos[:_CALIBRATION_PHOTOS])


@contextmanager
def _photos(folder: Path | None, say: Say) -> Iterator[list[Path]]:
    """The photos of a folder, or rendered ones for as long as they are wanted."""
    with tempfile.TemporaryDirectory(prefix="carmask-benchmark-") as rendered:
        if folder is None:
            say("rendering example photos ...")
            try:
                render_dataset(rendered, cars=_EXAMPLE_CARS, views=_EXAMPLE_VIEWS)
            except StudioError as error:
                raise CarmaskError(str(error)) from error
            folder = Path(rendered, "train")
        found = find_photos(folder, results=None)
        yield [found.path(name) for name in found.names]
