"""The wheel: what is in it, and that a user's type checker reads its annotations."""

import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import pytest

from test_core_install import link_files

ROOT = Path(__file__).parents[1]
RIGHT = """
from pathlib import Path
import numpy as np
from numpy.typing import NDArray
from carmask import Result, Segmenter

segmenter = Segmenter.load()
result: Result = segmenter(Path("car.jpg"))
mask: NDArray[np.bool_] = result.mask
coverage: float = result.coverage
"""
WRONG = """
from carmask import Segmenter

text: str = Segmenter.load()("car.jpg").coverage
Segmenter.load().segment_all()
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    program = f"from hatchling.build import build_wheel; build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling is not installed")
def test_a_type_checker_reads_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = next(environment.glob("lib/*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        # The weights are large and no annotations.
        archive.extractall(packages, [name for name in names if "/weights/" not in name])
    assert "carmask/py.typed" in names
    assert any(name.startswith("carmask/weights/") for name in names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "gpu"))]
    for name in ("numpy", "pydantic", "pydantic_core", "typing_extensions"):
        link_files(distribution(name), packages)
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--python-executable"]
    command += [str(environment / "bin" / "python"), "right.py", "wrong.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "right.py" not in done.stdout
    assert [done.stdout.count(f"[{code}]") for code in ("assignment", "attr-defined")] == [1, 1], done.stdout
