"""The commands, with a network that takes for a vehicle what is bright."""

from pathlib import Path

import pytest
from commands import Command

from bright_onnx import write_bright_onnx


@pytest.fixture(scope="session")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bright_onnx(tmp_path_factory.mktemp("bright") / "bright.onnx")


@pytest.fixture
def video(bright: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command("video", bright, capsys)


@pytest.fixture
def live(video: Command) -> Command:
    return Command("live", video.model, video.capsys)
