"""`carmask export`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.table import Table

from carmask.cli.console import print_facts, print_line, print_remark, progress_bar, wide_console
from carmask.cli.options import Flag
from carmask.exporting.listener import Listener
from carmask.progress import Progress

if TYPE_CHECKING:
    # They bring PyTorch, which a command's help does not wait for.
    from carmask.exporting.comparison import Comparison
    from carmask.exporting.parity import Figures, Reference
    from carmask.exporting.photos import Photos


def export(
    run: Path,
    *,
    out: Path | None = None,
    name: str | None = None,
    int8: Flag = False,
    data: Path | None = None,
    calibration: Path | None = None,
    photos: int = 24,
    calibration_photos: int = 64,
    foreground: int | None = None,
    weights: Literal["float16", "float32"] = "float16",
    allow_drop: Flag = False,
) -> int:
    """Write a network to one .onnx file that needs nothing beside it, once it is shown to say what PyTorch says.

    It takes photos of any size (uint8, N x H x W x C) and gives probabilities (float32, N x H x W); its card says how
    photos are best fitted to it. Nothing is written unless each engine that is installed does as PyTorch on the photos:
    its masks have a mean Dice of 0.999 with PyTorch's in float32 and 0.995 in bf16, or more, and its mean Dice with the
    true masks differs by 0.0002 and 0.002, or less.

    Args:
        run: Folder of a training run (its best weights) or of weights.
        out: The file to write, or a folder for it; NAME.onnx inside the run's folder if not given.
        name: What the network is called; the name in its weights, which is its preset's, if not given.
        int8: Write also a quantized version, to NAME-int8.onnx: half the size again, and faster on most processors.
            Refused when it loses more than 0.0005 of Dice, or its masks have less than 0.98 with PyTorch's.
        data: Photos with masks to compare on, in Carvana's layout or with images/ and masks/; the run's own, held-out
            ones first, if not given, or where they are gone a few rendered ones.
        calibration: Photos to take the ranges of --int8 from, with masks or without; those that the run learned from,
            if not given.
        photos: How many photos are compared.
        calibration_photos: How many photos are taken from the calibration folder.
        foreground: Stored mask value in --data that means foreground, where 0 and one other value is not the rule.
        weights: How weights are stored. float16 is half as large, and computed in float32 all the same.
        allow_drop: Write the int8 file also where it is refused.

    """
    from carmask.exporting.export import ExportSettings, export_network
    from carmask.exporting.photos import Sources

    sources = Sources(data, calibration, measured=photos, calibrated=calibration_photos, foreground=foreground)
    settings = ExportSettings(out, name, weights, int8=int8, allow_drop=allow_drop, sources=sources)
    for written in export_network(run, settings, _Printer()):
        print_line(f"written: {written.path}, {_mb(written.size_bytes)}")
    return 0


class _Printer(Listener):
    """Prints what happens, as it happens."""

    def bar(self, what: str) -> AbstractContextManager[Progress]:
        return progress_bar(what)

    def chosen(self, photos: "Photos") -> None:
        for remark in photos.remarks:
            print_remark(remark)
        print_line(f"comparing on {photos.told}")

    def probed(self, reference: "Reference", differences: dict[str, float]) -> None:
        sizes = ", ".join(f"{height} x {width}" for height, width in reference.probe_sizes)
        batches = " and ".join(map(str, reference.probe_batches))
        found = ", ".join(f"{value:.1g} in {engine}" for engine, value in differences.items())
        print_facts(
            [
                ("graph against PyTorch", f"largest difference {found}"),
                ("", f"float32, at {sizes} px, in batches of {batches}"),
            ]
        )

    def measured(self, reference: "Reference", figures: Sequence["Figures"]) -> None:
        table = Table(title="photos, at their own sizes", title_justify="left")
        for heading in ("engine", "precision"):
            table.add_column(heading)
        for heading in ("Dice", "difference", "same mask", "largest difference", "mean difference"):
            table.add_column(heading, justify="right")
        table.add_row("PyTorch", "float32", f"{reference.dice:.5f}", "", "", "", "")
        for one in figures:
            table.add_row(
                one.engine,
                one.precision,
                f"{one.dice:.5f}",
                _signed(one.dice - reference.dice),
                f"{one.same_mask:.5f}",
                f"{one.largest_difference:.4f}",
                f"{one.mean_difference:.6f}",
            )
        wide_console().print(table)

    def compared(self, compared: Sequence["Comparison"], float_bytes: int, int8_bytes: int) -> None:
        title = f"int8 ({_mb(int8_bytes)}) against float ({_mb(float_bytes)})"
        table = Table(title=title, title_justify="left")
        table.add_column("engine")
        table.add_column("float in")
        for heading in ("Dice", "int8 Dice", "difference", "same mask", "ms", "int8 ms", "times as fast"):
            table.add_column(heading, justify="right")
        for one in compared:
            table.add_row(
                one.int8.engine,
                one.floating.precision,
                f"{one.floating.dice:.5f}",
                f"{one.int8.dice:.5f}",
                _signed(-one.drop),
                f"{one.int8.same_mask:.5f}",
                f"{one.floating_ms:.1f}",
                f"{one.int8_ms:.1f}",
                f"{one.floating_ms / one.int8_ms:.1f}",
            )
        wide_console().print(table)


def _signed(value: float) -> str:
    # Nought is added so that there is no "-0.00000".
    return f"{round(value, 5) + 0:+.5f}"


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
