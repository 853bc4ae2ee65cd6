"""Fixtures that the tests of training share."""

import ctypes
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from carmask.training.run_folder import RunFolder
from tiny_runs import SMALL, tiny_settings, train


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux's <signal.h>."""

    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@pytest.fixture(autouse=True)
def own_signal_stack() -> None:
    """Let signals use the stack of the process.

    After many engines were opened in one process, some library leaves it an alternate stack that is no longer mapped,
    and the next signal ends the process. Commands open one engine; their Ctrl-C is tested in processes of their own.
    """
    if sys.platform == "linux":
        disabled = _SignalStack(None, 2, 0)
        ctypes.CDLL(None).sigaltstack(ctypes.byref(disabled), None)


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    """Folder for runs, emptied after the test: a run's weights are large."""
    yield tmp_path / "runs"
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)


@pytest.fixture
def make(tiny: Path, cache_folder: Path, runs: Path) -> Any:
    """`make(recipe, **given)` makes settings for the tiny data set."""
    return partial(tiny_settings, data=tiny, cache=cache_folder, runs=runs)


@pytest.fixture(scope="session")
def finished(
    tiny: Path, cache_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunFolder, str]]:
    """A run of `small` that nobody disturbed, with its curves, and what it said. Not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    yield train(tiny_settings(SMALL, data=tiny, cache=cache_folder, runs=folder, name="whole"))
    shutil.rmtree(folder)
