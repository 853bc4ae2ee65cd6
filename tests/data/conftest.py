import shutil
from pathlib import Path

import pytest


@pytest.fixture
def data(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny data set that a test may damage."""
    return shutil.copytree(tiny, tmp_path / "data")
