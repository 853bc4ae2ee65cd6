"""`carmask export`."""

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from carmask.cli.console import print_facts, print_line, print_remark, print_table
from carmask.cli.options import Flag
from carmask.errors import CarmaskError
from carmask.exporting.logger import ExportLogger
from carmask.progress import Progress, progress_bar

if TYPE_CHECKING:
    from carmask.exporting.parity import Int8Comparison, Reference
    from carmask.exporting.photos import ExportPhotos
    from carmask.models.card import EngineParity
    from carmask.models.dice_calibration import DiceCalibration


def export(
    run: Path,
    *,
    out: Path | None = None,
    name: str | None = None,
    int8: Flag = False,
    fixed_size: Flag = False,
    size: str | None = None,
    batch: int = 1,
    data: Path | None = None,
    calibration: Path | None = None,
    photos: int = 24,
    calibration_photos: int = 64,
    dice_photos: int = 100,
    foreground: int | None = None,
    ignore: int | None = None,
    weights: Literal["float16", "float32"] = "float16",
    allow_drop: Flag = False,
) -> int:
    """Write a network to one .onnx file that needs no other file, if its results agree with PyTorch's.

    The file takes photos of any size (uint8, N x H x W x C) and returns probabilities (float32, N x H x W). Its card
    says how to fit photos to the network. The command writes nothing unless every installed engine agrees with PyTorch
    on some photos. The mean Dice between both masks must be at least 0.999 in float32 and 0.995 in bf16. The mean Dice
    with the true masks may differ by at most 0.0002 and 0.002.

    Args:
        run: Folder of a training run (its best weights) or of weights, a float .onnx file, or packaged weights (fast).
        out: The file to write, or a folder for it. Default: NAME.onnx inside the run's folder.
        name: Name of the network. Default: the name in its weights, which is that of its preset.
        int8: Also write a quantized version to NAME-int8.onnx, of half the size, and faster on most processors. It is
            not written if it loses more than 0.0005 Dice, or if the Dice between its masks and PyTorch's is below 0.98.
        fixed_size: Write a file for other programs instead, such as OpenCV and browsers: NAME-HEIGHTxWIDTH.onnx. It has
            one input size, takes float32 0..255 in N x C x H x W, and does no arithmetic on shapes. It is compared in
            OpenCV too.
        size: As --fixed-size, for another size: HEIGHTxWIDTH in pixels.
        batch: Number of images that a file of one size takes at once.
        data: Photos with masks to compare on, in Carvana's layout or with images/ and masks/. Default: the run's own
            photos, held-out ones first, or a few rendered ones if these are missing.
        calibration: Photos to calibrate the ranges of --int8 on, with masks or without. Default: the run's training
            photos.
        photos: Number of photos to compare on.
        calibration_photos: Number of photos to calibrate int8 on.
        dice_photos: Number of photos with masks to calibrate the expected Dice on; 0 for no calibration.
        foreground: Stored mask value in --data that means foreground, if masks have values other than 0 and one more.
        ignore: Stored mask value in --data that means unknown: pixels that nobody labeled, which are not compared.
        weights: How weights are stored. float16 is half as large; the network computes in float32 in both cases.
        allow_drop: Write the int8 file even if it loses too much.
    """
    from carmask.exporting.export import export as export_network
    from carmask.exporting.fixed import FixedSize
    from carmask.exporting.photos import PhotoOptions

    fixed = None
    if fixed_size or size is not None:
        sides = re.fullmatch(r"(\d+)x(\d+)", size or "")
        if size is not None and sides is None:
            raise CarmaskError(f"--size {size}: write height and width in pixels, such as 512x768")
        fixed = FixedSize((int(sides[1]), int(sides[2])) if sides else None, batch)
    elif batch != 1:
        raise CarmaskError("--batch: needs --fixed-size or --size; other files take batches of any size")
    options = PhotoOptions(data, calibration, photos, calibration_photos, dice_photos, foreground, ignore)
    written = export_network(
        run,
        out=out,
        name=name,
        weights=weights,
        int8=int8,
        allow_drop=allow_drop,
        fixed=fixed,
        photos=options,
        logger=_Console(),
    )
    for file in written:
        print_line(f"written: {file.path}, {_mb(file.size_bytes)}")
    return 0


class _Console(ExportLogger):
    """Prints progress and figures at once."""

    def bar(self, what: str) -> AbstractContextManager[Progress]:
        return progress_bar(what)

    def photos(self, photos: "ExportPhotos") -> None:
        for remark in photos.remarks:
            print_remark(remark)
        print_line(f"comparing on {photos.description}")

    def graph(self, reference: "Reference", differences: dict[str, float]) -> None:
        from carmask.exporting.parity import PROBE_BATCHES

        sizes = ", ".join(f"{height} x {width}" for height, width in reference.probe_sizes)
        batches = " and ".join(map(str, PROBE_BATCHES))
        found = ", ".join(f"{value:.1g} in {engine}" for engine, value in differences.items())
        print_facts(
            [
                ("graph against PyTorch", f"largest difference {found}"),
                ("", f"float32, at {sizes} px, in batches of {batches}"),
            ]
        )

    def masks(self, reference: "Reference", figures: Sequence["EngineParity"]) -> None:
        rows = [["PyTorch", "float32", f"{reference.dice:.5f}", "", "", "", ""]]
        for one in figures:
            scores = [f"{one.dice:.5f}", _signed(one.dice - reference.dice), f"{one.same_mask:.5f}"]
            distances = [f"{one.largest_difference:.4f}", f"{one.mean_difference:.6f}"]
            rows.append([one.engine, one.precision, *scores, *distances])
        figure_headings = ("Dice", "difference", "same mask", "largest difference", "mean difference")
        print_table("photos, at their own sizes", ("engine", "precision"), figure_headings, rows)

    def dice(self, name: str, calibration: "DiceCalibration | None") -> None:
        if calibration is None:
            print_remark(
                f"{name}: the expected Dice is not calibrated; it takes a few dozen photos with masks (--data)"
            )
        else:
            print_line(f"{name}: expected Dice calibrated on {calibration.masks} masks of {calibration.fitted_on}")

    def int8(self, compared: Sequence["Int8Comparison"], float_bytes: int, int8_bytes: int) -> None:
        title = f"int8 ({_mb(int8_bytes)}) against float ({_mb(float_bytes)})"
        rows = []
        for one in compared:
            scores = [f"{one.floating.dice:.5f}", f"{one.int8.dice:.5f}", _signed(-one.drop)]
            times = [f"{one.floating_ms:.1f}", f"{one.int8_ms:.1f}", f"{one.floating_ms / one.int8_ms:.1f}"]
            rows.append([one.int8.engine, one.floating.precision, *scores, f"{one.int8.same_mask:.5f}", *times])
        figure_headings = ("Dice", "int8 Dice", "difference", "same mask", "ms", "int8 ms", "times as fast")
        print_table(title, ("engine", "float in"), figure_headings, rows)


def _signed(value: float) -> str:
    # Adding 0 avoids "-0.00000".
    return f"{round(value, 5) + 0:+.5f}"


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
