"""Rendered cars and the commands, in an empty working folder."""

from pathlib import Path

import pytest

from bright_photos import Command
from carstudio import render_dataset

CARS_HW = (240, 360)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four rendered cars in Carvana's layout; do not change it."""
    root = tmp_path_factory.mktemp("rendered") / "studio"
    render_dataset(root, cars=2, views=2, size_HW=CARS_HW)
    return root


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command("convert", capsys)


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command("check", capsys, "--photos", "0")
