"""A run that is recorded, stopped and gone on with, in a process of its own: `tracked.py FOLDER TRACKER`."""

import sys
from pathlib import Path

import numpy as np

from carmask.training.recording import Trackers
from carmask.training.settings import TrainSettings


def record(folder: Path, tracker: str) -> None:
    """Steps 1 to 6, of which a checkpoint knows 4, and from there to 8; what is recorded is a function of the step."""
    settings = TrainSettings.model_validate(
        {"data": "photos", "trackers": [tracker], "optimizer": {"lr": 0.002}, "network": {"widths": [4, 8]}}
    )
    for first, last in ((1, 6), (5, 8)):
        trackers = Trackers(settings)
        with trackers.recording(folder, first - 1, print):
            for step in range(first, last + 1):
                trackers.scalars(step, {"loss/train": 1 / step, "lr": 0.002})
            trackers.picture(last, "held_out/samples", np.full((20, 30, 3), last, np.uint8))


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2])
