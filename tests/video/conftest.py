"""The commands, with a network that takes what is bright for a vehicle."""

from pathlib import Path

import pytest

from bright_onnx import write_bright_onnx
from bright_photos import Command


@pytest.fixture(scope="session")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bright_onnx(tmp_path_factory.mktemp("bright") / "bright.onnx")


@pytest.fixture
def video(bright: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command("video", capsys, "-m", str(bright))


@pytest.fixture
def live(video: Command, bright: Path) -> Command:
    return Command("live", video.capsys, "-m", str(bright))
