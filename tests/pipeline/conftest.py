"""Fixtures of the pipeline's tests: a network that takes for a vehicle what is bright, and the commands."""

from pathlib import Path

import pytest

from bright_onnx import write_bright_onnx
from bright_photos import Command


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bright_onnx(tmp_path_factory.mktemp("bright") / "bright.onnx")


@pytest.fixture
def predict(
    model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """`carmask predict` with that network, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return Command("predict", capsys, "-m", str(model), "--engine", "onnxruntime", "--device", "cpu")


@pytest.fixture
def convert(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`carmask convert`, in the same folder."""
    monkeypatch.chdir(tmp_path)
    return Command("convert", capsys)


@pytest.fixture
def submit(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`carmask submit`, in the same folder."""
    monkeypatch.chdir(tmp_path)
    return Command("submit", capsys)
