"""Runs that are killed at any moment, also while they write, end with the weights of one that was left alone."""

from pathlib import Path
from typing import Any

import pytest
from forked_runs_call import forked

from carmask.training.run import RunFolder
from tiny_runs import FAST, assert_same_training

# A checkpoint after every step; a state of every kind; a network that is soon written.
RECIPE = {**FAST, "epochs": 4, "checkpoint_minutes": 0, "hard": 0.5, "network": {"widths": [4, 8]}}


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_random_and_resumed_is_as_if_left_alone(make: Any, tmp_path: Path, processes: int) -> None:
    settings = make({**RECIPE, "accumulate": 2 // processes}, name="whole")
    answer = forked(settings, tmp_path, processes=processes, kills=10)
    assert answer["ends"] == [0] * processes, (tmp_path / "said-0.txt").read_text()
    assert answer["killed"]["kills"] >= 10
    # Whom nobody killed ends by itself, with a sentence and without a traceback.
    assert {end for ends in answer["killed"]["ends"] for end in ends} <= {0, 1, -9}
    for run in range(answer["killed"]["runs"]):
        assert_same_training(RunFolder(settings.runs / f"killed-{run}"), RunFolder(settings.runs / "whole"))
