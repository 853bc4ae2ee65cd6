"""Masks of one network in every engine that is here, held against PyTorch in float32 and against the truth.

    python benchmarks/engines_agree.py CARVANA WEIGHTS FLOAT.onnx INT8.onnx [--photos 100] [--split SPLIT]

WEIGHTS is the folder that both files were exported from. Photos are spread evenly over those that SPLIT holds out. Each
mask is made at the photo's own size by the same `Segmenter`. Two figures for each engine: by how much Dice against the
truth differs from PyTorch's, and the Dice of the engine's mask with PyTorch's own mask.
"""

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carmask.data.pairs import Pair, find_pairs, load_soft_mask
from carmask.data.split import Split
from carmask.evaluation.metrics import dice
from carmask.runtime.options import RunOptions
from carmask.segmenter import Segmenter
from record import CARVANA, RESULTS, record

Masks = list[NDArray[np.bool_]]

REFERENCE = "torch float32"


def chosen(carvana: Path, split: Path, count: int) -> list[Pair]:
    """Held-out photos, spread evenly over all of them."""
    held_out = Split.load(split).select(find_pairs(carvana).pairs)[1]
    places = np.linspace(0, len(held_out) - 1, min(count, len(held_out))).round().astype(int)
    return [held_out[place] for place in places]


def masks_of(model: Path, options: RunOptions, pairs: list[Pair]) -> tuple[str, Masks]:
    """What the engine calls itself, and its mask for each photo."""
    segmenter = Segmenter.load(model, options)
    masks = [segmenter(pair.image).mask for pair in pairs]
    found = segmenter.members[0].engine
    return f"{found.name} {found.precision}", masks


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("carvana", type=Path, nargs="?", default=CARVANA)
    for name in ("weights", "float", "int8"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--split", type=Path, default=RESULTS / "split-carvana-fold0of5.json")
    given = parser.parse_args()
    pairs = chosen(given.carvana, given.split, given.photos)
    truths = [load_soft_mask(pair).mask_HW for pair in pairs]
    runs: tuple[tuple[Path, RunOptions], ...] = (
        (given.weights, RunOptions("torch", precision="float32")),
        (given.float, RunOptions("onnxruntime")),
        (given.float, RunOptions("openvino", precision="float32")),
        (given.float, RunOptions("openvino")),
        (given.int8, RunOptions("onnxruntime")),
        (given.int8, RunOptions("openvino")),
    )
    masks = dict(masks_of(*run, pairs) for run in runs)
    against_truth = {
        name: [dice(truth, mask) for truth, mask in zip(truths, found, strict=True)] for name, found in masks.items()
    }
    rows: dict[str, dict[str, Any]] = {}
    for name, found in masks.items():
        same = [dice(one, other) for one, other in zip(masks[REFERENCE], found, strict=True)]
        rows[name] = {
            "mean_dice": round(fmean(against_truth[name]), 6),
            "difference": round(fmean(against_truth[name]) - fmean(against_truth[REFERENCE]), 6),
            "mean_dice_with_torch_s_mask": round(fmean(same), 6),
            "worst_dice_with_torch_s_mask": round(min(same), 6),
        }
        print(name, rows[name])
    record("engines_agree", {"photos": len(pairs), "model": given.float.stem, "by_engine": rows})


if __name__ == "__main__":
    main()
